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
    // One of blanks only is empty to the SDK.
    if key.chars().all(char::is_whitespace) {
        return Err(Error::invalid("the key is empty"));
    }
    check_beginning(key)
}

/// Checks the beginning of keys, as a listing takes it: like a key, but it may be empty.
///
/// # Errors
/// As for [`check_key`].
pub(crate) fn check_beginning(key: &str) -> Result<()> {
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

/// The prefix of the keys of a host's stores; 26 digits of base 32 follow.
const HOST_KEY: &str = "snap-";
const HOST_KEY_DIGITS: usize = 26;

/// Returns whether a name begins with a key that a host made for a store.
fn begins_with_host_key(name: &str) -> bool {
    let digits = name.strip_prefix(HOST_KEY).and_then(|rest| rest.as_bytes().get(..HOST_KEY_DIGITS));
    digits.is_some_and(|digits| digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')))
}

/// Returns whether an object is one of a store: a component of its key begins with a key of the host's.
pub(crate) fn is_of_a_store(key: &str) -> bool {
    key.split('/').any(begins_with_host_key)
}

/// Checks that a key lies below the prefix of a grant. A prefix that does not end in `/` is no folder: what merely goes on
/// from it (`vm` and `vm-prod/…`) belongs to others. So only names that the host made are taken there, and no folder: a
/// `/` behind the prefix is one of a folder of another grant, which may be `vm01/` or one of the
/// 256 folders of the layout `fan-out` below `vm`. `without_slash` says that no other grant has such a folder, and takes
/// these too.
///
/// # Errors
/// `denied`.
pub(crate) fn check_within(prefix: &str, without_slash: bool, key: &str) -> Result<()> {
    if prefix.is_empty() || prefix.ends_with('/') {
        return Ok(());
    }
    let fanned = key.split_once('/').filter(|(fan, _)| fan.len() == 2 && fan.bytes().all(|b| b.is_ascii_hexdigit()));
    let name = match fanned {
        Some((_, name)) if without_slash => name,
        _ => key,
    };
    if begins_with_host_key(name) && !name.contains('/') {
        return Ok(());
    }
    let shown = key.chars().take(100).collect::<String>().escape_debug().to_string();
    let hint = match fanned {
        Some((_, name)) if begins_with_host_key(name) => format!(
            "set `prefix_without_slash = true` if no other grant has the folder of a prefix like `{prefix}01/`; \
             write `prefix = \"{prefix}/\"` for a folder"
        ),
        _ => format!("write `prefix = \"{prefix}/\"` for a folder, or no prefix for the whole bucket"),
    };
    let told = format!("the key `{shown}` leads out of the grant's prefix `{prefix}`, which is not a folder");
    Err(Error::denied(told).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn valid_and_invalid_keys() {
        for good in ["a", "a/b", "a//b", "a/", "ü ß", "..a", "a..b", "a/...", "+&?#%"] {
            check_key(good).unwrap();
        }
        for out in ["..", "/a", "a/../b", "../a", "a/..", "a\\..\\b"] {
            assert_eq!(*check_key(out).unwrap_err().kind(), ErrorKind::Denied, "{out}");
        }
        for wrong in ["", " ", "\u{a0}", ".", "a/./b", "a\nb", "a\0b"] {
            assert_eq!(*check_key(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        assert!(check_key(&"a".repeat(1025)).is_err());
        check_beginning("").unwrap();
    }

    const KEY: &str = "snap-01abcdefghijklmnopqrstuv01";

    #[test]
    fn a_prefix_without_a_slash_is_not_that_of_others() {
        for prefix in ["", "vm/", "a/b/"] {
            check_within(prefix, false, "-prod/x").unwrap();
        }
        for mine in [KEY.to_owned(), format!("{KEY}.meta")] {
            check_within("vm", false, &mine).unwrap();
            check_within("vm", true, &mine).unwrap();
        }
        let others = ["-prod/x", "ware", "", "snap-1", "/x", ".tidelock-prod", ".tidelock/x"].map(str::to_owned);
        let folders = ["-prod/", "-prod/e4/", "e4/e4/"].map(|folder| format!("{folder}{KEY}"));
        for key in others.into_iter().chain(folders).chain([format!("{KEY}/x"), format!("e4/{KEY}/x")]) {
            for without_slash in [false, true] {
                let error = check_within("vm", without_slash, &key).unwrap_err();
                assert_eq!(*error.kind(), ErrorKind::Denied, "{key}");
                assert!(error.advice().unwrap().contains("\"vm/\""), "{error:?}");
            }
        }
        let fanned = format!("e4/{KEY}");
        check_within("vm", true, &fanned).unwrap();
        let error = check_within("vm", false, &fanned).unwrap_err();
        assert!(error.advice().unwrap().contains("prefix_without_slash"), "{error:?}");
    }

    #[test]
    fn objects_of_stores_are_distinguished() {
        assert!(is_of_a_store(KEY) && is_of_a_store(&format!("a/b/{KEY}")) && is_of_a_store(&format!("{KEY}.delta")));
        for other in ["", "backup.img", "snap-1", "snap-", "snap-ü01abcdefghijklmnopqrstuv01", &KEY[..30]] {
            assert!(!is_of_a_store(other), "{other}");
        }
    }

    proptest! {
        /// Whatever a key holds, at its end too, there is an answer.
        #[test]
        fn any_key_is_answered(key in "\\PC{0,8}[\\x00-\\x1f\\x7f\\u{80}-\\u{a0}]{0,2}", prefix in "[a/]{0,3}") {
            let _ = (check_key(&key), check_within(&prefix, key.len() > 4, &key), is_of_a_store(&key));
        }

        /// A service that resolves dots would find every key that is taken below the prefix still.
        #[test]
        fn a_valid_key_stays_below_the_prefix(key in "[ab./]{1,10}") {
            if check_key(&key).is_ok() {
                let url = url::Url::parse(&format!("http://host/bucket/prefix/{key}")).unwrap();
                prop_assert!(url.path().starts_with("/bucket/prefix/"), "{key}");
            }
        }
    }
}
