//! Keys as an adapter may write them, and where they lie below the grant's prefix.

use tidelock_types::{Error, Result};

/// The longest key, in bytes, prefix included.
const LONGEST_KEY: usize = 1024;

/// Checks a key: 1 to 1,024 bytes, no `.` or `..` part (some services and most proxies resolve them, and would lead out of
/// the grant's prefix), no control characters, no `/` at the beginning.
///
/// # Errors
/// `denied` for one that leads out; `invalid` for the rest.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("the key is empty"));
    }
    check_beginning(key)
}

/// Checks the beginning of keys, as a listing takes it: like a key, but it may be empty.
///
/// # Errors
/// As for [`check_key`].
pub(super) fn check_beginning(key: &str) -> Result<()> {
    let shown = || key.chars().take(100).collect::<String>().escape_debug().to_string();
    if key.split(['/', '\\']).any(|part| part == "..") || key.starts_with('/') {
        return Err(Error::denied(format!("the key `{}` leads out of the grant's prefix", shown())));
    }
    if key.split('/').any(|part| part == ".") {
        return Err(Error::invalid(format!("the key `{}` has a component `.`", shown())));
    }
    if key.len() > LONGEST_KEY {
        return Err(Error::invalid(format!("the key `{}…` is longer than {LONGEST_KEY} bytes", shown())));
    }
    if key.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the key `{}` contains control characters", shown())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn what_is_taken() {
        for good in ["a", "a/b", "a//b", "a/", "ü ß", "..a", "a..b", "a/...", "+&?#%"] {
            check_key(good).unwrap();
        }
        for out in ["..", "/a", "a/../b", "../a", "a/..", "a\\..\\b"] {
            assert_eq!(*check_key(out).unwrap_err().kind(), ErrorKind::Denied, "{out}");
        }
        for wrong in ["", ".", "a/./b", "a\nb", "a\0b"] {
            assert_eq!(*check_key(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        assert!(check_key(&"a".repeat(1025)).is_err());
        check_beginning("").unwrap();
    }

    proptest! {
        /// A service that resolves dots would find every key that is taken below the prefix still.
        #[test]
        fn what_is_taken_stays_below_the_prefix(key in "[ab./]{1,10}") {
            if check_key(&key).is_ok() {
                let url = url::Url::parse(&format!("http://host/bucket/prefix/{key}")).unwrap();
                prop_assert!(url.path().starts_with("/bucket/prefix/"), "{key}");
            }
        }
    }
}
