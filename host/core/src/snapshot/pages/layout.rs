//! Header and footer of a pack: fixed sizes, exact values.

use std::ops::Range;

use super::{MAX_PAGES, Profile};
use crate::types::{Error, PackId, Result, SnapshotId};

/// Bytes of the header.
pub(super) const HEADER: usize = 32;

/// Bytes of the footer.
pub(super) const FOOTER: usize = 128;

const VERSION: u16 = 1;
const FIRST: &[u8; 8] = b"TdLkPage";
const LAST: &[u8; 8] = b"TdLkLast";

/// The context string of the pack id. It names the format; another layout gets another string.
const ID_CONTEXT: &str = "tidelock 2026-11 pack v1";

/// Bytes at the end of an object by which a pack is known, see [`looks_like_pack`].
pub const LAST_BYTES: usize = FOOTER;

/// Returns whether an object that begins and ends with these bytes (the last ones are [`LAST_BYTES`]) was written as a
/// pack, also if it is torn or damaged at one of its ends. An image can hold the same bytes.
pub fn looks_like_pack(first: &[u8], last: &[u8]) -> bool {
    let is_footer =
        |last: &[u8; FOOTER]| last[120..] == LAST[..] && blake3::hash(&last[..96]).as_bytes()[..24] == last[96..120];
    first.starts_with(FIRST) || last.last_chunk::<FOOTER>().is_some_and(is_footer)
}

/// The header of every pack of a profile.
pub(super) fn header(profile: Profile) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(FIRST);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10] = profile.number();
    bytes
}

/// What a footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) size: u64,
    pub(super) snapshot: SnapshotId,
    /// Where the digests begin, which is where the frames end.
    pub(super) digests_at: u64,
    pub(super) digests_len: u32,
    pub(super) columns_stored: u32,
    pub(super) columns_len: u32,
    pub(super) profile: Profile,
    pub(super) id: PackId,
}

impl Footer {
    /// The bytes that the pack id covers.
    fn head(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..40].copy_from_slice(self.snapshot.as_bytes());
        bytes[40..48].copy_from_slice(&self.digests_at.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.digests_len.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.columns_stored.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.columns_len.to_le_bytes());
        bytes[60..62].copy_from_slice(&VERSION.to_le_bytes());
        bytes[62] = self.profile.number();
        bytes
    }

    /// The id of a pack with this footer, whatever `id` says, and this metadata: digests and columns as stored.
    pub(super) fn pack_id(&self, metadata: &[u8]) -> PackId {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(&header(self.profile));
        hasher.update(metadata);
        hasher.update(&self.head());
        PackId::from_bytes(*hasher.finalize().as_bytes())
    }

    pub(super) fn to_bytes(&self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..64].copy_from_slice(&self.head());
        bytes[64..96].copy_from_slice(self.id.as_bytes());
        let check = blake3::hash(&bytes[..96]);
        bytes[96..120].copy_from_slice(&check.as_bytes()[..24]);
        bytes[120..].copy_from_slice(LAST);
        bytes
    }

    /// The footer at the end of an object of `object` bytes.
    ///
    /// # Errors
    /// `corrupt` for a torn or damaged object; `unsupported` for a later version and an encrypted pack.
    pub(super) fn parse(bytes: &[u8; FOOTER], object: u64) -> Result<Self> {
        if bytes[120..] != LAST[..] {
            return Err(damaged("the pack has no footer: it was not written to its end"));
        }
        if blake3::hash(&bytes[..96]).as_bytes()[..24] != bytes[96..120] {
            return Err(damaged("the footer of the pack is damaged"));
        }
        let version = u16::from_le_bytes(array(bytes, 60));
        if version != VERSION {
            return Err(Error::unsupported(format!("the pack has format {version}"))
                .hint("use a newer version of tidelock, which wrote it"));
        }
        let (Some(profile), 0) = (Profile::from_number(bytes[62]), bytes[63]) else {
            return Err(Error::unsupported("the pack is of a kind that this version does not know")
                .hint("use a newer version of tidelock, which wrote it"));
        };
        let footer = Self {
            size: u64::from_le_bytes(array(bytes, 0)),
            snapshot: SnapshotId::from_bytes(array(bytes, 8)),
            digests_at: u64::from_le_bytes(array(bytes, 40)),
            digests_len: u32::from_le_bytes(array(bytes, 48)),
            columns_stored: u32::from_le_bytes(array(bytes, 52)),
            columns_len: u32::from_le_bytes(array(bytes, 56)),
            profile,
            id: PackId::from_bytes(array(bytes, 64)),
        };
        let pages = footer.size.div_ceil(super::PAGE as u64);
        if pages > u64::from(MAX_PAGES) {
            return Err(damaged("the pack says that its snapshot is larger than any"));
        }
        if !footer.digests_len.is_multiple_of(32) || u64::from(footer.columns_len) > most_columns(pages) {
            return Err(damaged("the pack has more metadata than its snapshot can need"));
        }
        // What zstd makes of that many bytes at the most.
        if u64::from(footer.columns_stored) > u64::from(footer.columns_len) + u64::from(footer.columns_len >> 8) + 1024
        {
            return Err(damaged("the pack has more metadata than its snapshot can need"));
        }
        let end = footer.digests_at.checked_add(footer.metadata_len()).and_then(|end| end.checked_add(FOOTER as u64));
        if footer.digests_at < HEADER as u64 || end != Some(object) {
            return Err(damaged(format!("the object has {object} bytes, and its footer says otherwise")));
        }
        Ok(footer)
    }

    /// Bytes of digests and columns, as stored.
    pub(super) fn metadata_len(&self) -> u64 {
        u64::from(self.digests_len) + u64::from(self.columns_stored)
    }

    /// Where digests and columns lie in the object.
    pub(super) fn metadata(&self) -> Range<u64> {
        self.digests_at..self.digests_at + self.metadata_len()
    }
}

/// The most bytes that the columns of a snapshot of so many pages can have.
pub(super) fn most_columns(pages: u64) -> u64 {
    8192 + 40 * pages
}

pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt(what)
}

/// `N` bytes of a footer from `at`.
fn array<const N: usize>(bytes: &[u8; FOOTER], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            size: 12345,
            snapshot: SnapshotId::from_bytes([3; 32]),
            digests_at: 1032,
            digests_len: 64,
            columns_stored: 20,
            columns_len: 70,
            profile: Profile::Random,
            id: PackId::from_bytes([9; 32]),
        }
    }

    #[test]
    fn every_bit_of_a_footer_counts() {
        let good = footer().to_bytes();
        let object = 1032 + 84 + 128;
        assert_eq!(Footer::parse(&good, object).unwrap(), footer());
        assert!(Footer::parse(&good, object + 1).is_err());
        for bit in 0..FOOTER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = Footer::parse(&bad, object).unwrap_err();
            assert_eq!(error.kind().name(), "corrupt", "{bit}");
        }
    }

    #[test]
    fn footers_that_are_whole_and_wrong_are_refused() {
        let wrong = |change: fn(&mut Footer)| {
            let mut footer = footer();
            change(&mut footer);
            let end = footer.digests_at.wrapping_add(footer.metadata_len()).wrapping_add(128);
            Footer::parse(&footer.to_bytes(), end).unwrap_err()
        };
        assert_eq!(wrong(|footer| footer.size = u64::MAX).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.size = 4096 * (1 << 32)).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.digests_at = 31).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.digests_at = u64::MAX - 10).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.digests_len = 33).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.columns_len = u32::MAX).kind().name(), "corrupt");
        assert_eq!(wrong(|footer| footer.columns_stored = 700 << 20).kind().name(), "corrupt");
    }

    #[test]
    fn the_id_covers_everything_but_itself() {
        let footer = footer();
        let id = footer.pack_id(b"metadata");
        assert_ne!(id, footer.pack_id(b"metadatb"));
        assert_eq!(id, Footer { id: PackId::from_bytes([1; 32]), ..footer.clone() }.pack_id(b"metadata"));
        assert_ne!(id, Footer { size: 1, ..footer.clone() }.pack_id(b"metadata"));
        assert_ne!(id, Footer { profile: Profile::Compact, ..footer.clone() }.pack_id(b"metadata"));
        assert_ne!(id, Footer { columns_len: 71, ..footer }.pack_id(b"metadata"));
    }
}
