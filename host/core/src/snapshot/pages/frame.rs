//! One frame, from pages to stored bytes.

use bytes::Bytes;

use super::PAGE;
use super::decode::{digest_at, page_len};
use super::frames::Coding;
use super::hash::content_hash;
use super::image::Image;
use super::pool::Worker;
use super::zst;
use crate::snapshot::SegmentDigest;
use crate::types::{Error, Result};

/// Pages of a snapshot: the first, and how many.
pub(super) type PageRun = (u32, u32);

/// Where the pages of a frame come from.
pub(super) enum Pages<'a> {
    /// From pieces that are in memory, in order.
    Held(Vec<Bytes>),
    /// From an image, which is read again; with the hashes that they had before, as far as these are known.
    Read(&'a dyn Image, Vec<Option<u64>>),
}

/// What becomes a frame.
pub(super) struct Draft<'a> {
    pub(super) pages: Pages<'a>,
    /// The same pages, by number, in order.
    pub(super) homes: Vec<PageRun>,
    /// The size of the snapshot, if each page is to have its digest before the payload.
    pub(super) digests: Option<u64>,
    /// An image and its pages that are the prefix.
    pub(super) prefix: Option<(&'a dyn Image, Vec<PageRun>)>,
    pub(super) level: i32,
}

/// A frame as it is stored.
pub(super) struct StoredFrame {
    pub(super) pages: u32,
    pub(super) coding: Coding,
    pub(super) digest: SegmentDigest,
    pub(super) bytes: Bytes,
}

/// Appends a run.
pub(super) fn push(runs: &mut Vec<PageRun>, page: u32, len: u32) {
    match runs.last_mut() {
        Some((first, before)) if *first + *before == page => *before += len,
        _ => runs.push((page, len)),
    }
}

/// The bytes of pages of an image, each of 4096 bytes.
pub(super) fn read(image: &dyn Image, runs: &[PageRun]) -> Result<Vec<u8>> {
    let pages: usize = runs.iter().map(|(_, len)| *len as usize).sum();
    let mut bytes = vec![0; pages * PAGE];
    let mut at = 0;
    for &(first, len) in runs {
        let start = u64::from(first) * PAGE as u64;
        let wanted = len as usize * PAGE;
        let found = image.size().saturating_sub(start).min(wanted as u64) as usize;
        image.read_at(&mut bytes[at..at + found], start)?;
        at += wanted;
    }
    Ok(bytes)
}

impl Draft<'_> {
    /// Compresses it, or leaves it as it is where that does not help.
    pub(super) fn store(self, worker: &mut Worker) -> Result<StoredFrame> {
        let pages = match &self.pages {
            Pages::Held(pieces) => pieces.concat(),
            Pages::Read(image, hashes) => {
                let bytes = read(*image, &self.homes)?;
                let same = |(page, hash): (&[u8], &Option<u64>)| hash.is_none_or(|hash| hash == content_hash(page));
                if !bytes.chunks(PAGE).zip(hashes).all(same) {
                    return Err(Error::conflict("the image changed while it was being read"));
                }
                bytes
            }
        };
        let (coding, payload) = self.payload(worker, &pages)?;
        let count = (pages.len() / PAGE) as u32;
        let bytes = match self.page_digests(&pages) {
            None => payload.unwrap_or(pages),
            Some(mut stored) => {
                stored.extend_from_slice(payload.as_deref().unwrap_or(&pages));
                stored
            }
        };
        let digest = *blake3::hash(&bytes).as_bytes();
        Ok(StoredFrame { pages: count, coding, digest, bytes: bytes.into() })
    }

    fn payload(&self, worker: &mut Worker, pages: &[u8]) -> Result<(Coding, Option<Vec<u8>>)> {
        if self.level == 0 {
            return Ok((Coding::Raw, None));
        }
        let (coding, compressed) = match &self.prefix {
            Some((image, runs)) if !runs.is_empty() => {
                let prefix = read(*image, runs)?;
                (Coding::Prefixed, zst::compress_with(&prefix, pages, self.level)?)
            }
            _ => (Coding::Zstd, worker.compressor()?.compress(pages, self.level)?),
        };
        Ok(if compressed.len() < pages.len() { (coding, Some(compressed)) } else { (Coding::Raw, None) })
    }

    /// The page digests that come before the payload, if the profile has them.
    fn page_digests(&self, pages: &[u8]) -> Option<Vec<u8>> {
        let size = self.digests?;
        let homes = self.homes.iter().flat_map(|(first, len)| *first..first + len);
        let digest = |(home, page): (u32, &[u8])| digest_at(size, home, &page[..page_len(size, home)]);
        Some(homes.zip(pages.chunks(PAGE)).flat_map(digest).collect())
    }
}
