//! How much two images have in common, from a few numbers of each: the least of their page digests (min-hash).
//!
//! Digests are as good as random, so the least ones of the pages of two images taken together are a sample of these, and the
//! share of the sample that is in both is that of the pages that are in both. Pages of zeros do not count. The digest of a page
//! depends on its offset in its segment, so equal pages are found where images change in place, or move by whole segments.
//!
//! A sketch is a guess at what may be a good base. Nothing follows from it but what is compared.

use std::collections::BTreeSet;

use super::PageDigests;
use super::pack::segments_of;
use crate::types::Result;

/// The numbers of a sketch.
const LEAST: usize = 64;

/// Some numbers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch(Vec<u64>);

impl Sketch {
    /// The bytes of a sketch as it is kept.
    pub const BYTES: usize = 8 * LEAST;
    /// What [`Self::common`] gives for equal images, unless they have few pages.
    pub const MOST: usize = LEAST;

    /// The sketch of the image that these are the page digests of. They are not proven.
    ///
    /// # Errors
    /// Errors of reading; `corrupt` if they are damaged.
    pub fn of(digests: &PageDigests) -> Result<Self> {
        let mut least = BTreeSet::new();
        for number in 0..segments_of(digests.identity().size()) {
            for digest in digests.kept(number)?.as_chunks::<32>().0 {
                let (first, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
                let value = u64::from_le_bytes(*first);
                if least.len() == LEAST && least.last().is_some_and(|most| value >= *most) {
                    continue;
                }
                least.insert(value);
                if least.len() > LEAST {
                    least.pop_last();
                }
            }
        }
        Ok(Self(least.into_iter().collect()))
    }

    /// Of the least numbers of two images taken together, those that are in both: of [`Self::MOST`], or of fewer for small images.
    pub fn common(&self, other: &Self) -> usize {
        let all: BTreeSet<u64> = self.0.iter().chain(&other.0).copied().collect();
        let both = |value: &u64| self.0.binary_search(value).is_ok() && other.0.binary_search(value).is_ok();
        all.iter().take(LEAST).filter(|value| both(value)).count()
    }

    /// The numbers as they are kept; those that are missing are the greatest there is.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0xff; Self::BYTES];
        for (place, value) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0) {
            *place = value.to_le_bytes();
        }
        bytes
    }

    /// What [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let values: BTreeSet<u64> = bytes.as_chunks::<8>().0.iter().map(|value| u64::from_le_bytes(*value)).collect();
        Self(values.into_iter().filter(|value| *value != u64::MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::PAGE;
    use crate::snapshot::pages::{FileImage, write_digests};

    fn image(bytes: &[u8]) -> FileImage {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
        FileImage::new(file, bytes.len() as u64, "image")
    }

    fn sketch(bytes: &[u8]) -> Sketch {
        let mut out = Vec::new();
        let identity = write_digests(&image(bytes), 1, &mut out).unwrap();
        Sketch::of(&PageDigests::open(Box::new(image(&out)), Arc::new(identity)).unwrap()).unwrap()
    }

    /// Pages that are all different, and some zeros.
    fn bytes(seed: u64, pages: usize) -> Vec<u8> {
        let mut bytes = vec![0; (pages + 8) * PAGE];
        for page in 0..pages {
            let filled = blake3::hash(&(seed << 32 | page as u64).to_le_bytes());
            bytes[page * PAGE..page * PAGE + 32].copy_from_slice(filled.as_bytes());
        }
        bytes
    }

    #[test]
    fn what_is_common_is_the_share_of_the_pages() {
        let first = bytes(1, 2000);
        let one = sketch(&first);
        assert_eq!(one.common(&one), Sketch::MOST);
        assert_eq!(one.common(&sketch(&bytes(2, 2000))), 0);
        let mut half = first.clone();
        half[..1000 * PAGE].copy_from_slice(&bytes(3, 2000)[..1000 * PAGE]);
        // A third of all pages of the two are in both.
        let common = one.common(&sketch(&half));
        assert!((8..40).contains(&common), "{common}");
        assert_eq!(Sketch::from_bytes(&one.to_bytes()), one);
        let few = sketch(&bytes(1, 5));
        assert!(few.common(&few) == 5 && Sketch::from_bytes(&few.to_bytes()) == few);
        assert_eq!(sketch(&vec![0; 100 * PAGE]), Sketch::default());
    }
}
