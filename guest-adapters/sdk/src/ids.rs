//! Names: object ids, keys, and paths made of them.
//!
//! Whatever comes in is checked before an adapter sees it, although the host checks paths and keys again when it uses
//! them: an adapter that builds a URL out of an id has no second check.

use std::fmt;
use std::ops::Deref;

use crate::Error;

/// The longest object id, in bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// The longest key of a store hint, in bytes.
pub const MAX_KEY_BYTES: usize = 64;

/// A backend's own name for an object: 1 to 1024 bytes of UTF-8 without control characters.
///
/// That is all that it promises. An adapter whose ids are paths asks for more with [`ObjectId::as_path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(String);

impl ObjectId {
    /// Checks a name. `invalid` if it is empty, too long, or holds a control character.
    pub fn new(id: impl Into<String>) -> Result<Self, Error> {
        let id = id.into();
        if id.is_empty() {
            return Err(Error::invalid("an object id must not be empty"));
        }
        if id.len() > MAX_ID_BYTES {
            return Err(Error::invalid("an object id is at most 1024 bytes long"));
        }
        if id.chars().any(char::is_control) {
            return Err(Error::invalid("an object id holds no control characters"));
        }
        Ok(Self(id))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a relative path: see [`relative_path`].
    pub fn as_path(&self) -> Result<&str, Error> {
        relative_path(&self.0)
    }

    /// The name as text of its own.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for ObjectId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> String {
        id.0
    }
}

/// Gives `path` back if it stays below where it starts: `/`-separated, with no empty part, no `.` or `..`, no backslash,
/// no control character, and no part that begins with `.tmp` (the host's unfinished files). Otherwise `invalid`.
pub fn relative_path(path: &str) -> Result<&str, Error> {
    let refused = |part: &str| part.is_empty() || part == "." || part == ".." || part.starts_with(".tmp");
    if path.contains('\\') || path.chars().any(char::is_control) || path.split('/').any(refused) {
        return Err(Error::invalid(["`", path, "` is not a path below the backend's root"].concat()));
    }
    Ok(path)
}

/// Returns whether `name` is a key as the host gives them: 1 to 64 lower-case ASCII letters, digits and `-`.
pub fn is_key(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_KEY_BYTES && is_plain(name)
}

/// Returns whether `name` can be the name of a label: lower-case ASCII letters, digits and `-`, and not empty.
pub fn is_label_name(name: &str) -> bool {
    !name.is_empty() && is_plain(name)
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_bounded_and_printable() {
        assert!(ObjectId::new("ab/cd/key").is_ok());
        assert!(ObjectId::new("").is_err());
        assert!(ObjectId::new("a\nb").is_err());
        assert!(ObjectId::new("a\u{85}b").is_err());
        assert!(ObjectId::new("x".repeat(1024)).is_ok());
        assert!(ObjectId::new("x".repeat(1025)).is_err());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for bad in
            ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", ".tmp", "a/.tmp1", "a\\..\\b", "a\0"]
        {
            assert!(relative_path(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b", "...", "a/..b", "tmp", ".base"] {
            assert_eq!(relative_path(good).unwrap(), good);
        }
    }

    #[test]
    fn keys_are_what_the_host_promises() {
        assert!(is_key("0a-z9") && is_key(&"k".repeat(64)));
        for bad in ["", "A", "a.base", "a/b", "é", &"k".repeat(65)] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }

    proptest! {
        /// What is accepted, resolved the way a file system would, never leaves the root and never names it.
        #[test]
        fn accepted_paths_stay_below(path in "[a/.\\\\-]{0,12}") {
            if relative_path(&path).is_ok() {
                let mut depth = 0i32;
                for part in path.split('/') {
                    depth += match part { "" | "." => 0, ".." => -1, _ => 1 };
                    prop_assert!(depth > 0);
                }
            }
        }
    }
}
