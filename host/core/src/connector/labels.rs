//! Metadata that a host stores with an object, so that a catalogue can be rebuilt from backends alone: the key in its
//! name, on backends where the writer chooses names, and labels.
//!
//! | label | value |
//! | --- | --- |
//! | `tidelock-name` | the name of the snapshot when it was stored |
//! | `tidelock-base-snapshot` | the id of the base snapshot |
//! | `tidelock-encoding` | `pages` for a pack; objects without it hold the bytes as they are |
//!
//! A base is also kept in the backend's own terms (`incremental-update`), which takes precedence over the label: the label
//! names the snapshot if its object is on another backend, or gone. Only its bytes identify an image; labels do
//! not.

use crate::types::{Encoding, Error, Platform, Result, SnapshotId, drives_terminal};

/// The label that holds the name.
const NAME: &str = "tidelock-name";
/// The label that holds the base.
const BASE: &str = "tidelock-base-snapshot";

/// The label that holds the encoding, unless it is `raw`.
const ENCODING: &str = Encoding::LABEL;

/// The prefix of keys.
const KEY_PREFIX: &str = "snap-";
/// The characters of a key: the prefix, and 128 bits in base32.
const KEY_LEN: usize = KEY_PREFIX.len() + 26;

/// The prefix of the keys of identity objects (`container.rs`).
pub(super) const CONTAINER_PREFIX: &str = "tidelock-container-";
/// The digits after it.
const CONTAINER_DIGITS: usize = 32;

/// The labels that an object is stored with.
pub(super) fn labels(base: Option<SnapshotId>, name: Option<&str>, encoding: Encoding) -> Vec<(String, String)> {
    let base = base.map(|id| (BASE.to_owned(), id.to_string()));
    let name = name.map(|name| (NAME.to_owned(), name.to_owned()));
    let encoding = (encoding != Encoding::Raw).then(|| (ENCODING.to_owned(), encoding.name().to_owned()));
    base.into_iter().chain(name).chain(encoding).collect()
}

/// Returns the encoding from the labels of an object.
///
/// # Errors
/// `unsupported` for one that this version does not know.
pub(super) fn encoding_in(labels: &[(String, String)]) -> Result<Encoding> {
    let label = labels.iter().find(|(name, _)| name == ENCODING);
    label.map_or(Ok(Encoding::Raw), |(_, name)| Encoding::from_name(name))
}

/// Returns the base and the name from the labels of an object. Invalid labels are ignored.
pub(super) fn read_labels(labels: &[(String, String)]) -> (Option<SnapshotId>, Option<String>) {
    let value = |wanted: &str| labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let base = value(BASE).and_then(|text| text.parse().ok());
    (base, value(NAME).filter(|name| check_name(name).is_ok()).map(str::to_owned))
}

/// Checks a snapshot's name. It must not look like an id.
pub(super) fn check_name(name: &str) -> Result<()> {
    let wrong = |why| Err(Error::invalid(format!("{name:?} is not a valid snapshot name: {why}")));
    if name.is_empty() || name.len() > 255 {
        return wrong("it must have 1 to 255 bytes");
    }
    if name.chars().any(drives_terminal) {
        return wrong("it has control characters");
    }
    if name.starts_with("tl1") {
        return wrong("it looks like an id");
    }
    Ok(())
}

/// A name that no other store has: the time, so that listings are in order, and 80 random bits.
pub(super) fn fresh_key(platform: &Platform) -> Result<String> {
    let mut bytes = [0u8; 16];
    let millis = u64::try_from(platform.since_epoch().as_millis()).unwrap_or(u64::MAX);
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    platform.fill(&mut bytes[6..])?;
    Ok(format!("{KEY_PREFIX}{}", data_encoding::BASE32_DNSSEC.encode(&bytes)))
}

/// A key for the identity object of a container: 128 random bits.
pub(super) fn container_key(platform: &Platform) -> Result<String> {
    let mut bytes = [0u8; CONTAINER_DIGITS / 2];
    platform.fill(&mut bytes)?;
    Ok(format!("{CONTAINER_PREFIX}{}", data_encoding::HEXLOWER.encode(&bytes)))
}

/// The keys in the name of an object: texts in it that a host could have made.
pub(super) fn keys_in(object: &str) -> impl Iterator<Item = &str> {
    keys_of(object, KEY_PREFIX, KEY_LEN - KEY_PREFIX.len(), |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'v'))
}

/// The keys of identity objects in the name of an object.
pub(super) fn container_keys_in(object: &str) -> impl Iterator<Item = &str> {
    keys_of(object, CONTAINER_PREFIX, CONTAINER_DIGITS, |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether the name of an object has the key that a host stored it under.
pub(super) fn names_its_key(object: &str) -> bool {
    keys_in(object).next().is_some() || container_keys_in(object).next().is_some()
}

/// Returns whether an object of this name identifies a container.
pub(super) fn is_identity_name(object: &str) -> bool {
    container_keys_in(object).next().is_some() && keys_in(object).next().is_none()
}

fn keys_of<'a>(
    object: &'a str,
    prefix: &'static str,
    digits: usize,
    is_digit: fn(u8) -> bool,
) -> impl Iterator<Item = &'a str> {
    object.match_indices(prefix).filter_map(move |(at, _)| {
        let key = object.get(at..at + prefix.len() + digits)?;
        key.bytes().skip(prefix.len()).all(is_digit).then_some(key)
    })
}

/// The fewest characters of a name that may be a digest: 128 bits in hexadecimal digits. CIDs and BagIDs are longer.
const SHORTEST_DIGEST: usize = 32;

/// Returns whether a host may have stored an object of this name: it holds a key, or is long enough for a digest, by
/// which backends call objects that do not let the writer choose.
pub(super) fn may_be_ours(object: &str) -> bool {
    let part = |part: &str| part.len() >= SHORTEST_DIGEST;
    keys_in(object).next().is_some() || object.split(|c: char| !c.is_ascii_alphanumeric()).any(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_short_plain_and_in_order() {
        let keys: Vec<_> = (0..100).map(|_| fresh_key(&Platform::system()).unwrap()).collect();
        for key in &keys {
            assert!(key.len() <= 64 && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
        assert!(keys[0][..12] <= keys[99][..12]);
    }

    #[test]
    fn a_key_is_found_at_any_place_of_a_name() {
        let key = fresh_key(&Platform::system()).unwrap();
        for name in [key.clone(), format!("vm/ab/cd/{key}"), format!("snap-{key}.img")] {
            assert!(keys_in(&name).any(|found| found == key), "{name}");
            assert!(may_be_ours(&name));
        }
        for foreign in ["vm.img", "base-image-of-all-machines-in-this-house", "snap-1", &key[..KEY_LEN - 1], "ü/snap-ü"]
        {
            assert!(!may_be_ours(foreign), "{foreign}");
        }
        let cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        let bag = "fdce766a62d2299420794298bb7515284a9ba40e52a6dcfa16d5559f7acf4be1";
        assert!(may_be_ours(cid) && may_be_ours(bag) && may_be_ours(&format!("ipfs/{cid}")));
    }

    #[test]
    fn the_name_of_an_identity_is_recognised() {
        let key = container_key(&Platform::system()).unwrap();
        assert!(key.len() <= 64 && is_identity_name(&key) && is_identity_name(&format!("a/b/{key}")));
        let snapshot = fresh_key(&Platform::system()).unwrap();
        for other in [&snapshot, &format!("{key}/{snapshot}"), &key[1..], &key[..key.len() - 1]] {
            assert!(!is_identity_name(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn labels_come_back(root: Option<[u8; 32]>, name in prop::option::of("[^\\p{Cc}t][^\\p{Cc}]{0,40}")) {
            prop_assume!(name.as_deref().is_none_or(|name| check_name(name).is_ok()));
            let base = root.map(SnapshotId::from_bytes);
            for encoding in [Encoding::Raw, Encoding::Pages] {
                let labels = labels(base, name.as_deref(), encoding);
                prop_assert_eq!(read_labels(&labels), (base, name.clone()));
                prop_assert_eq!(encoding_in(&labels).unwrap(), encoding);
            }
        }

        #[test]
        fn any_labels_are_answered(name in "(tidelock-name|tidelock-base-snapshot)", value: String) {
            let (base, name) = read_labels(&[(name, value)]);
            prop_assert!(base.is_none() || name.is_none());
            prop_assert!(name.is_none_or(|name| check_name(&name).is_ok()));
        }
    }
}
