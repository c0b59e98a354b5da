//! Where an object lies below the grant, and how its id says so.
//!
//! The id of an object *is* its path. An id therefore stays valid when the settings change: they say where the next
//! object goes, not where the old ones are.
//!
//! `fan-out` puts the object `KEY` at `ab/cd/KEY`, where `ab` and `cd` are bytes of a hash of the key, in hex. 65,536
//! directories keep a directory at some 15 objects when there are 1,000,000 of them, so that creating and listing stay
//! fast on any file system. `flat` puts it at `KEY`, for few objects, or to be read by people.
//!
//! Beside an object there may be its side file `KEY.base` (see `side.rs`). A key has no dot, so the two
//! cannot be confused, and no id ends in `.base`.

use tidelock_sdk::ids::{is_key, relative_path};
use tidelock_sdk::{Error, ObjectId, choice, settings};

choice! {
    /// How objects are spread over directories.
    pub enum Layout {
        /// Two levels of directories.
        FanOut = "fan-out",
        /// None.
        Flat = "flat",
    }
}

settings! {
    /// The settings of the adapter.
    pub struct Settings {
        /// A directory below the grant in which new objects go, for example `vm/images`. Without it: the grant itself.
        prefix: String = String::new(),
        /// `fan-out` (without it) spreads objects over two levels of directories; `flat` keeps them in one.
        layout: Layout = Layout::FanOut,
    }
}

/// The suffix of a side file.
const SIDE: &str = ".base";

/// The longest prefix, so that every id stays within its 1024 bytes.
const MAX_PREFIX_BYTES: usize = 900;

impl Settings {
    /// Validates the settings. Fails with `invalid` if the prefix is not a path below the grant.
    pub fn checked(self) -> Result<Self, Error> {
        if self.prefix.len() > MAX_PREFIX_BYTES {
            return Err(Error::invalid("setting `prefix` must be at most 900 bytes long"));
        }
        if !self.prefix.is_empty() && relative_path(&self.prefix).is_err() {
            return Err(Error::invalid("setting `prefix` must be a relative path without `..`, as in `vm/images`"));
        }
        Ok(self)
    }

    /// The path, and so the id, of a new object.
    pub fn path(&self, key: &str) -> String {
        match self.layout {
            Layout::FanOut => {
                let [outer, inner] = fan(key);
                below(&self.prefix, &[&outer, "/", &inner, "/", key].concat())
            }
            Layout::Flat => below(&self.prefix, key),
        }
    }
}

/// `path` below `prefix`; either may be empty.
pub fn below(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.into(),
        (prefix, "") => prefix.into(),
        (prefix, path) => [prefix, "/", path].concat(),
    }
}

/// The path of an object from its id; `invalid` if no object can be there.
pub fn object_path(id: &ObjectId) -> Result<&str, Error> {
    let path = id.as_path()?;
    if path.ends_with(SIDE) {
        return Err(Error::invalid(["`", path, "` is a side file, not an object"].concat()));
    }
    Ok(path)
}

/// The side file of an object.
pub fn side_path(object: &str) -> String {
    [object, SIDE].concat()
}

/// Returns whether a file of that name is an object that this adapter wrote.
pub fn is_object(name: &str) -> bool {
    is_key(name)
}

/// Returns whether a directory of that name is one of the fan-out.
pub fn is_fan(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The two directories of a key: FNV-1a (64 bits) of it, folded to 16, since its low bits alone mix badly.
/// It need not resist attacks, since the host makes the keys.
fn fan(key: &str) -> [String; 2] {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let folded = hash ^ (hash >> 32);
    let folded = folded ^ (folded >> 16);
    [hex(folded as u8), hex((folded >> 8) as u8)]
}

fn hex(byte: u8) -> String {
    [byte >> 4, byte & 15].iter().filter_map(|&digit| char::from_digit(u32::from(digit), 16)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn settings(prefix: &str, layout: Layout) -> Settings {
        Settings { prefix: prefix.into(), layout }
    }

    #[test]
    fn layouts() {
        // Fixed: changing the hash would not lose an object, but would scatter what belongs together.
        assert_eq!(settings("", Layout::FanOut).path("k1"), "1a/96/k1");
        assert_eq!(settings("vm/images", Layout::FanOut).path("k1"), "vm/images/1a/96/k1");
        assert_eq!(settings("", Layout::Flat).path("k1"), "k1");
        assert_eq!(settings("vm", Layout::Flat).path("k1"), "vm/k1");
    }

    #[test]
    fn prefixes_stay_below_the_grant() {
        for bad in ["/", "/vm", "vm/", "../vm", "vm/../..", ".tmp/x", &"p".repeat(901)] {
            assert!(matches!(settings(bad, Layout::Flat).checked(), Err(Error::Invalid(_))), "{bad}");
        }
        assert!(settings("", Layout::Flat).checked().is_ok());
        assert!(settings(&"p".repeat(900), Layout::FanOut).checked().is_ok());
    }

    #[test]
    fn a_side_file_is_no_object() {
        assert!(object_path(&ObjectId::new("ab/cd/k1.base").unwrap()).is_err());
        assert!(object_path(&ObjectId::new("ab/../k1").unwrap()).is_err());
        assert!(!is_object("k1.base") && is_object("k1"));
    }

    /// Keys that count up, as a host's may, are spread as evenly as random ones would be.
    #[test]
    fn the_fan_out_spreads() {
        let mut leaves = HashMap::<_, u32>::new();
        for n in 0..200_000 {
            *leaves.entry(fan(&format!("snapshot-{n:08}"))).or_default() += 1;
        }
        // 3.05 a leaf. Of random keys 95 % of the leaves have one, and none has 30.
        assert!(leaves.len() > 60_000, "{} leaves", leaves.len());
        assert!(leaves.values().all(|&n| n < 30), "{:?}", leaves.values().max());
    }

    proptest! {
        /// Whatever the settings accept gives ids that the adapter takes back, in directories that the inventory visits.
        #[test]
        fn ids_are_taken_back(prefix in "([a-z]{1,9}(/[a-z0-9.]{1,9}){0,3})?", key in "[a-z0-9-]{1,64}", flat: bool) {
            let layout = if flat { Layout::Flat } else { Layout::FanOut };
            if let Ok(settings) = settings(&prefix, layout).checked() {
                let path = settings.path(&key);
                let id = ObjectId::new(path.clone()).unwrap();
                prop_assert_eq!(object_path(&id).unwrap(), &path);
                prop_assert!(relative_path(&side_path(&path)).is_ok());
                let mut parts: Vec<_> = path.rsplit('/').collect();
                prop_assert!(is_object(parts.remove(0)));
                if !flat {
                    prop_assert!(is_fan(parts[0]) && is_fan(parts[1]));
                }
            }
        }
    }
}
