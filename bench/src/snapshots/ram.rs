//! Images like the memory of a machine, and what a running machine makes of them.
//!
//! 40 % of the pages are zeros, 30 % compress (text, and words that look like pointers and counters), 30 % are random. Each
//! kind comes in runs of 32 pages. Everything follows from a seed, so that two runs measure the same bytes.
//!
//! Pages become dirty in small groups. Some get a few small writes, some other content, and many get content that other
//! dirty pages used to hold: a machine moves what it works on, and what it moves becomes dirty at both ends.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The bytes of a page.
pub const PAGE: usize = 4096;
/// Pages of one kind that follow each other.
const RUN: u64 = 32;
/// The longest group of pages that become dirty together.
const GROUP: u64 = 8;
/// Dirty pages that lie near each other exchange content more often than others.
const NEAR: u64 = 1024;

const WORDS: [&str; 32] = [
    "the",
    "page",
    "request",
    "kernel",
    "=",
    "value",
    "of",
    "status",
    "200",
    "/usr/lib/",
    "error",
    "in",
    "session",
    ";\n",
    "connection",
    "user",
    "\"id\":",
    "return",
    "0x7f",
    "time",
    "module",
    "and",
    "buffer",
    "null,",
    "GET",
    "index",
    "for",
    "config",
    "true",
    "thread",
    "queue",
    "to",
];

/// Numbers that look random and follow from a seed.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one: SplitMix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`, or 0 below 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw().checked_rem(limit).unwrap_or(0)
    }

    /// Fills a buffer with noise.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            word.copy_from_slice(&self.draw().to_le_bytes()[..word.len()]);
        }
    }

    /// Fills a buffer with words of a text.
    pub fn text(&mut self, buffer: &mut [u8]) {
        let mut at = 0;
        while at < buffer.len() {
            // The lesser of two numbers: some words are much more frequent than others.
            let word = WORDS[self.below(32).min(self.below(32)) as usize].as_bytes();
            let len = word.len().min(buffer.len() - at);
            buffer[at..at + len].copy_from_slice(&word[..len]);
            at += len;
            if let Some(byte) = buffer.get_mut(at) {
                *byte = b' ';
                at += 1;
            }
        }
    }

    /// Fills a buffer with pointers, counters and flags.
    pub fn words(&mut self, buffer: &mut [u8]) {
        let heap = 0x0000_7f3a_0000_0000 | (self.below(1 << 12) << 20);
        for (at, word) in buffer.chunks_mut(8).enumerate() {
            let value = match self.below(8) {
                0..3 => heap | self.below(1 << 12) << 4,
                3 => at as u64,
                4 => self.below(256),
                _ => 0,
            };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
    }
}

/// What a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zeros,
    Text,
    Words,
    Noise,
}

/// Of ten runs in a row, four, three and three have each kind.
fn kind(seed: u64, page: u64) -> Kind {
    let run = page / RUN;
    let turn = Numbers::new(seed ^ (run / 10)).below(10);
    match (run * 7 + turn) % 10 {
        0..4 => Kind::Zeros,
        4 => Kind::Text,
        5..7 => Kind::Words,
        _ => Kind::Noise,
    }
}

/// Fills a page of an image.
fn fill(seed: u64, page: u64, buffer: &mut [u8]) {
    let mut numbers = Numbers::new(seed.wrapping_mul(31) ^ page.wrapping_mul(0xd6e8_feb8_6659_fd93));
    match kind(seed, page) {
        Kind::Zeros => buffer.fill(0),
        Kind::Text => numbers.text(buffer),
        Kind::Words => numbers.words(buffer),
        Kind::Noise => numbers.fill(buffer),
    }
}

/// Writes an image of so many bytes, without holes.
pub fn write(path: &Path, len: u64, seed: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut writer = BufWriter::with_capacity(1 << 20, &file);
    let mut buffer = [0; PAGE];
    for page in 0..len / PAGE as u64 {
        fill(seed, page, &mut buffer);
        writer.write_all(&buffer).with_context(|| format!("cannot fill {}", path.display()))?;
    }
    writer.flush()?;
    drop(writer);
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))
}

/// A sparse image: pieces of data at equal distances, holes between them.
#[derive(Debug, Clone, Copy)]
pub struct Sparse {
    /// Its size in bytes.
    pub len: u64,
    /// The bytes of data in it.
    pub data: u64,
}

/// The pages of a piece of data.
const PIECE: u64 = 512;

impl Sparse {
    /// Where the page of data of this number lies.
    pub fn page(&self, number: u64) -> u64 {
        let pieces = (self.data / PAGE as u64).div_ceil(PIECE).max(1);
        let distance = self.len / PAGE as u64 / pieces;
        number / PIECE * distance + number % PIECE
    }

    /// Writes it. Images of one seed have the same data, whatever their size.
    pub fn write(&self, path: &Path, seed: u64) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len(self.len)?;
        let mut buffer = [0; PAGE];
        for number in 0..self.data / PAGE as u64 {
            fill(seed, number, &mut buffer);
            file.write_all_at(&buffer, self.page(number) * PAGE as u64)?;
        }
        file.sync_all().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Picks `count` pages of an image with this seed and so many pages, in small groups, in order. Groups that begin in zeros
/// are a quarter as frequent as others: memory that nobody uses seldom changes.
pub fn pick(seed: u64, pages: u64, count: u64, numbers: &mut Numbers) -> Vec<u64> {
    let mut picked = std::collections::BTreeSet::new();
    while (picked.len() as u64) < count.min(pages) {
        let start = numbers.below(pages);
        if kind(seed, start) == Kind::Zeros && numbers.below(4) > 0 {
            continue;
        }
        let group = 1 + numbers.below(GROUP);
        let left = count - picked.len() as u64;
        picked.extend(start..(start + group.min(left)).min(pages));
    }
    picked.into_iter().collect()
}

/// Changes these pages of an image in place.
pub fn change(path: &Path, dirty: &[u64], numbers: &mut Numbers) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut old = vec![0; dirty.len() * PAGE];
    for (page, bytes) in dirty.iter().zip(old.chunks_mut(PAGE)) {
        file.read_exact_at(bytes, page * PAGE as u64)?;
    }
    let mut new = [0; PAGE];
    for (number, page) in dirty.iter().enumerate() {
        let own = range(number);
        new.copy_from_slice(&old[own.clone()]);
        match numbers.below(100) {
            // Whole pages move.
            0..8 => new.copy_from_slice(&old[range(other(number, dirty.len(), numbers))]),
            // A few small writes.
            8..35 => {
                for _ in 0..=numbers.below(16) {
                    let len = 8 + numbers.below(31) as usize * 8;
                    let at = numbers.below((PAGE - len) as u64 / 8) as usize * 8;
                    numbers.words(&mut new[at..at + len]);
                }
            }
            // What other pages used to hold, at other places, and something new in between.
            35..75 => {
                let mut at = 0;
                while at < PAGE {
                    let len = (128 + numbers.below(240) as usize * 8).min(PAGE - at);
                    let to = &mut new[at..at + len];
                    if numbers.below(6) == 0 {
                        numbers.words(to);
                    } else {
                        let from = range(other(number, dirty.len(), numbers)).start;
                        let from = from + numbers.below((PAGE - len) as u64 / 8 + 1) as usize * 8;
                        to.copy_from_slice(&old[from..from + len]);
                    }
                    at += len;
                }
            }
            75..88 => numbers.text(&mut new),
            _ => numbers.fill(&mut new),
        }
        if new == old[own] {
            // Dirty pages differ.
            new[..8].copy_from_slice(&(numbers.draw() | 1).to_le_bytes());
        }
        file.write_all_at(&new, page * PAGE as u64)?;
    }
    file.sync_all().with_context(|| format!("cannot change {}", path.display()))
}

/// Another dirty page: mostly one that is not far.
fn other(number: usize, count: usize, numbers: &mut Numbers) -> usize {
    let count = count as u64;
    if numbers.below(10) < 3 {
        return numbers.below(count) as usize;
    }
    let first = (number as u64).saturating_sub(NEAR / 2);
    (first + numbers.below(NEAR.min(count - first))) as usize
}

fn range(number: usize) -> Range<usize> {
    number * PAGE..(number + 1) * PAGE
}

/// A bit for each page of an image of so many bytes, as KVM's dirty log has them.
pub fn bitmap(dirty: &[u64], len: u64) -> Vec<u8> {
    let mut bits = vec![0; (len.div_ceil(PAGE as u64)).div_ceil(8) as usize];
    for page in dirty {
        if let Some(byte) = bits.get_mut((page / 8) as usize) {
            *byte |= 1 << (page % 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_shares_of_each_kind() {
        let pages = 100 * RUN;
        let count = |wanted: Kind| (0..pages).filter(|page| kind(1, *page) == wanted).count() as u64 * 100 / pages;
        assert_eq!([Kind::Zeros, Kind::Text, Kind::Words, Kind::Noise].map(count), [40, 10, 20, 30]);
    }

    #[test]
    fn the_picked_pages_change_and_no_others() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (base, next) = (dir.path().join("base"), dir.path().join("next"));
        let len = 4096 * PAGE as u64;
        write(&base, len, 7)?;
        std::fs::copy(&base, &next)?;
        let mut numbers = Numbers::new(8);
        let dirty = pick(7, 4096, 409, &mut numbers);
        assert_eq!(dirty.len(), 409);
        change(&next, &dirty, &mut numbers)?;
        let (base, next) = (std::fs::read(base)?, std::fs::read(next)?);
        let pages = base.chunks(PAGE).zip(next.chunks(PAGE));
        let differing: Vec<u64> = (0..).zip(pages).filter(|(_, (x, y))| x != y).map(|(page, _)| page).collect();
        assert_eq!(differing, dirty);
        Ok(())
    }

    #[test]
    fn sparse_images_have_the_same_data_at_other_places() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let data = 3 * PIECE * PAGE as u64;
        let mut images = Vec::new();
        for len in [4, 16].map(|times| times * data) {
            let path = dir.path().join(len.to_string());
            let sparse = Sparse { len, data };
            sparse.write(&path, 1)?;
            let file = File::open(&path)?;
            assert_eq!(file.metadata()?.len(), len);
            let mut bytes = vec![0; data as usize];
            for (number, page) in (0..).zip(bytes.chunks_mut(PAGE)) {
                file.read_exact_at(page, sparse.page(number) * PAGE as u64)?;
            }
            images.push(bytes);
        }
        assert_eq!(images[0], images[1]);
        Ok(())
    }

    #[test]
    fn a_bitmap_has_the_first_page_in_the_lowest_bit() {
        assert_eq!(bitmap(&[0, 9], 10 * PAGE as u64), [1, 2]);
    }
}
