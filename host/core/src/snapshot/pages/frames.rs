//! The frames of a pack: consecutive stored pages that are compressed and proven together.

use super::columns::{Columns, put};
use super::layout::{HEADER, damaged};
use super::{PAGE, Profile};
use crate::snapshot::{SEGMENT, SegmentDigest};
use crate::types::Result;

/// How the pages of a frame are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Raw,
    /// Compressed.
    Zstd,
    /// Compressed with other pages as prefix, without which they cannot be decoded.
    Prefixed,
}

impl Coding {
    fn number(self) -> u64 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::Prefixed => 2,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Raw,
            1 => Self::Zstd,
            _ => Self::Prefixed,
        }
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The first stored page.
    pub first: u32,
    /// The number of stored pages: at least 1.
    pub pages: u32,
    /// Where its stored bytes begin in the pack.
    pub offset: u64,
    /// The number of stored bytes.
    pub stored: u32,
    /// How the pages are stored.
    pub coding: Coding,
    /// BLAKE3 of the stored bytes.
    pub digest: SegmentDigest,
    /// The number of pages in the frames before it whose coding is [`Coding::Prefixed`]: where its part of the prefixes
    /// begins.
    pub(super) prefix_first: u32,
}

impl Frame {
    /// Bytes of its pages.
    pub(super) fn decoded(&self) -> usize {
        self.pages as usize * PAGE
    }
}

/// All frames of a pack, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frames {
    list: Vec<Frame>,
    pages: u32,
    prefixed: u32,
    stored: u64,
}

impl Frames {
    /// The frames.
    pub fn as_slice(&self) -> &[Frame] {
        &self.list
    }

    /// The number of stored pages.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The number of stored pages in frames with a prefix.
    pub(super) fn prefixed(&self) -> u32 {
        self.prefixed
    }

    /// Where the frames end in the pack.
    pub fn end(&self) -> u64 {
        HEADER as u64 + self.stored
    }

    /// The number of the frame that has a stored page.
    pub fn of_page(&self, page: u32) -> Option<usize> {
        (page < self.pages).then(|| self.list.partition_point(|frame| frame.first <= page) - 1)
    }

    /// Appends a frame. The caller keeps the number of pages below `u32::MAX`.
    pub(super) fn push(&mut self, pages: u32, stored: u32, coding: Coding, digest: SegmentDigest) {
        let (first, offset, prefix_first) = (self.pages, self.end(), self.prefixed);
        self.list.push(Frame { first, pages, offset, stored, coding, digest, prefix_first });
        self.pages += pages;
        self.stored += u64::from(stored);
        if coding == Coding::Prefixed {
            self.prefixed += pages;
        }
    }

    /// Appends the columns.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, self.list.len() as u64);
        for frame in &self.list {
            put(out, u64::from(frame.pages));
        }
        for frame in &self.list {
            put(out, u64::from(frame.stored));
        }
        for frame in &self.list {
            put(out, frame.coding.number());
        }
    }

    /// Those of an object that holds a snapshot of `size` bytes as it is: one for each segment.
    pub(super) fn raw(size: u64, segments: &[SegmentDigest]) -> Self {
        let mut frames = Self::default();
        for (number, digest) in (0u64..).zip(segments) {
            let offset = number * SEGMENT as u64;
            let stored = size.saturating_sub(offset).min(SEGMENT as u64) as u32;
            frames.push(stored.div_ceil(PAGE as u32), stored, Coding::Raw, *digest);
            if let Some(frame) = frames.list.last_mut() {
                frame.offset = offset;
            }
        }
        frames
    }

    /// Reads the columns of at most `pages` stored pages; digests come from elsewhere, one by one.
    pub(super) fn read(
        columns: &mut Columns<'_>,
        profile: Profile,
        pages: u32,
        items: &mut u32,
        mut digest: impl FnMut() -> Result<SegmentDigest>,
    ) -> Result<Self> {
        let count = columns.items(u64::from(pages), items)?;
        let most = profile.most_frame_pages();
        let each = columns.list(count, most)?;
        let stored = columns.list(count, most * (PAGE as u32 + 32))?;
        let codings = columns.list(count, if profile == Profile::Random { 1 } else { 2 })?;
        let mut frames = Self { list: Vec::with_capacity(count), ..Self::default() };
        for ((each, stored), coding) in each.into_iter().zip(stored).zip(codings) {
            let coding = Coding::from_number(coding);
            let payload = u64::from(stored).checked_sub(u64::from(each) * profile.bytes_of_digest());
            let decoded = u64::from(each) * PAGE as u64;
            let fits = match coding {
                Coding::Raw => payload == Some(decoded),
                Coding::Zstd | Coding::Prefixed => payload.is_some_and(|payload| payload > 0 && payload < decoded),
            };
            if each == 0 || each > pages - frames.pages || !fits {
                return Err(damaged("a frame of the pack has a size that is wrong"));
            }
            frames.push(each, stored, coding, digest()?);
        }
        Ok(frames)
    }
}
