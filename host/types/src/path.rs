//! Paths as an adapter may write them.

use crate::{Error, Result};

/// The longest path, in bytes (Linux's `PATH_MAX`, less the end).
const LONGEST_PATH: usize = 4095;
/// The longest part of one, in bytes (Linux's `NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// The prefix of temporary files and of their directory.
pub const TEMPORARY: &str = ".tmp";

/// Checks the text of a path: relative, `/`-separated, without an empty, `.` or `..` component, without a component that
/// begins with `.tmp`, at most 4,095 bytes with components of at most 255, and without a zero byte. Links are checked when
/// it is opened.
///
/// # Errors
/// `denied` for one that leads out (`..`, or from the root); `invalid` for the rest.
pub fn check_path(path: &str) -> Result<()> {
    let shown = || path.chars().take(100).collect::<String>().escape_debug().to_string();
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::denied(format!("the path `{}` leads out of the directory", shown())));
    }
    let wrong = |why: &str| Err(Error::invalid(format!("the path `{}` {why}", shown())));
    if path.is_empty() {
        return wrong("is empty");
    }
    if path.len() > LONGEST_PATH || path.split('/').any(|part| part.len() > LONGEST_NAME) {
        return wrong("is too long");
    }
    if path.contains('\0') {
        return wrong("contains a zero byte");
    }
    for part in path.split('/') {
        if part.is_empty() || part == "." {
            return wrong("has an empty component");
        }
        if part.starts_with(TEMPORARY) {
            return wrong("has a component that begins with `.tmp`, which is reserved");
        }
    }
    Ok(())
}

/// The directory and the name of a checked path; the directory is empty for the root.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The directories of a checked path from the outermost: `a`, `a/b` for `a/b/c`.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn valid_and_invalid_paths() {
        for good in ["a", "a/b", "a b/ü", ".hidden", "..a", "a..", "x.tmp", "a/...", "-"] {
            check_path(good).unwrap();
        }
        for out in ["..", "/", "/a", "a/..", "../a", "a/../b", "a/b/.."] {
            assert_eq!(*check_path(out).unwrap_err().kind(), ErrorKind::Denied, "{out}");
        }
        for wrong in ["", ".", "a//b", "a/", "./a", "a/./b", ".tmp", ".tmp1/a", "a/.tmpx", "a\0b"] {
            assert_eq!(*check_path(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        assert!(check_path(&"a".repeat(256)).is_err());
        assert!(check_path(&"a/".repeat(2500)).is_err());
    }

    #[test]
    fn taken_apart() {
        assert_eq!(split("a/b/c"), ("a/b", "c"));
        assert_eq!(split("a"), ("", "a"));
        assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(parents("a").count(), 0);
    }

    proptest! {
        /// Whatever is taken stays inside when it is put together without looking at links.
        #[test]
        fn a_valid_path_stays_inside(path in "[a./\\\\~\0]{0,12}") {
            if check_path(&path).is_ok() {
                let mut depth = 0i32;
                for part in std::path::Path::new(&path).components() {
                    match part {
                        std::path::Component::Normal(_) => depth += 1,
                        other => prop_assert!(false, "{other:?} in {path:?}"),
                    }
                }
                prop_assert!(depth > 0);
            }
        }
    }
}
