//! What a document may hold, counted while its bytes arrive: before the SDK makes objects of them.
//!
//! An empty element of 11 bytes becomes an object of 300 in memory, and an attribute of 5 one of 80. So a listing has no
//! more entries than were asked for, each with a bounded number of elements, and a tag has a bounded length. Every element
//! begins with `<`, which stands nowhere else in well-formed text but in comments and CDATA; those are counted as if they
//! were elements.

/// The most `<` of an entry: its own, and 31 elements in it. Amazon's entries have at most 13.
const MARKS_OF_AN_ENTRY: u64 = 64;
/// The most `<` of a document beside its entries.
const MARKS: u64 = 512;
/// The longest tag, in bytes.
const LONGEST_TAG: usize = 4096;
/// The names of elements of which there is one for each entry of a page.
const ENTRIES: [&[u8]; 3] = [b"Contents", b"Upload", b"CommonPrefixes"];
/// The bytes of the longest of these names, and one more.
const NAME: usize = 15;

/// Counts the tags of a document.
#[derive(Debug)]
pub(super) struct Scan {
    entries_left: u64,
    marks_left: u64,
    tag: Option<Tag>,
}

/// A tag that has begun and not ended.
#[derive(Debug, Default)]
struct Tag {
    len: usize,
    /// The name so far, without its namespace, and whether it has ended.
    name: Vec<u8>,
    named: bool,
    /// The quote in which we are.
    quote: Option<u8>,
}

impl Scan {
    /// For a document of at most so many entries.
    pub(super) fn of(entries: u64) -> Self {
        let marks_left = entries.saturating_mul(MARKS_OF_AN_ENTRY).saturating_add(MARKS);
        Self { entries_left: entries, marks_left, tag: None }
    }

    /// Scans further bytes. Returns `None` once they are more than a document may hold.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Option<()> {
        for &byte in bytes {
            if byte == b'<' {
                self.marks_left = self.marks_left.checked_sub(1)?;
                self.tag = Some(Tag::default());
            } else if let Some(tag) = &mut self.tag
                && !tag.takes(byte)?
            {
                if ENTRIES.contains(&tag.name.as_slice()) {
                    self.entries_left = self.entries_left.checked_sub(1)?;
                }
                self.tag = None;
            }
        }
        Some(())
    }
}

impl Tag {
    /// Returns whether the tag goes on behind this byte. `None` if it is too long.
    fn takes(&mut self, byte: u8) -> Option<bool> {
        self.len += 1;
        match (byte, self.quote) {
            _ if self.len > LONGEST_TAG => return None,
            (b'>', None) => return Some(false),
            (_, Some(quote)) if byte == quote => self.quote = None,
            (_, Some(_)) => {}
            (b'"' | b'\'', None) => (self.quote, self.named) = (Some(byte), true),
            (b':', None) if !self.named => self.name.truncate(usize::from(self.name.first() == Some(&b'/'))),
            _ if self.named => {}
            // `/` behind a name ends it; in front of one it is that of an end, which is no further entry.
            (b' ' | b'\t' | b'\r' | b'\n', None) => self.named = true,
            (b'/', None) if !self.name.is_empty() => self.named = true,
            _ if self.name.len() < NAME => self.name.push(byte),
            _ => {}
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(document: &str, entries: u64) -> bool {
        let (mut whole, mut bits) = (Scan::of(entries), Scan::of(entries));
        let whole = whole.pass(document.as_bytes()).is_some();
        assert_eq!(document.as_bytes().chunks(1).all(|bit| bits.pass(bit).is_some()), whole, "in pieces");
        whole
    }

    #[test]
    fn entries_are_counted_however_they_are_written() {
        for entry in [
            "<Contents/>",
            "<Contents />",
            "<Contents\n a='>'/>",
            "<a:Contents>x</a:Contents>",
            "<Upload><Key>Upload</Key></Upload>",
            "<CommonPrefixes><Prefix/></CommonPrefixes>",
            "<a-very-long-name-of-a-namespace:Contents/>",
        ] {
            assert!(passes(&format!("<?xml version='1.0'?>\n<L>{}</L>", entry.repeat(5)), 5), "{entry}");
            assert!(!passes(&format!("<L>{}</L>", entry.repeat(6)), 5), "{entry}");
        }
        assert!(passes(&"<ContentsX/><XContents/><a Contents=''/>Contents".repeat(20), 0));
    }

    #[test]
    fn tags_are_bounded_in_number_and_length() {
        assert!(passes(&"<a>".repeat(500), 0) && !passes(&"<a>".repeat(513), 0));
        assert!(!passes(&format!("<Contents>{}", "<ChecksumAlgorithm/>".repeat(1000)), 1));
        assert!(
            passes(&format!("<a {}>", "b='' ".repeat(800)), 1) && !passes(&format!("<a {}>", "b='' ".repeat(900)), 1)
        );
        // A `>` in quotes ends nothing.
        assert!(!passes(&format!("<a {}>", "b='>' ".repeat(900)), 1));
        assert!(passes(&"white space and text > with ' quotes".repeat(10_000), 0));
    }
}
