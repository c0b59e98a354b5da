//! A streaming parser for the list of pins, which may be larger than memory.
//!
//! ```text
//! {"Keys":{"bafk…":{"Type":"recursive","Name":"tidelock/snap-1"}, …}}
//! ```
//!
//! Without pins it is `{}`. The document is split at the commas of its inner object; `serde_json` parses each entry.

use serde_json::Value;

use crate::Parsed;

/// The longest entry: a name has at most 255 bytes, and a CID 300.
const MAX_ENTRY: usize = 4096;

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The CID, as the daemon writes it.
    pub cid: String,
    /// The name of the pin; empty if it has none.
    pub name: String,
}

/// The state of the parser.
#[derive(Debug, Default)]
pub struct Entries {
    depth: u32,
    in_text: bool,
    escaped: bool,
    begun: bool,
    /// The entry that is not complete yet.
    entry: Vec<u8>,
}

impl Entries {
    /// Parses further bytes, and calls `tell` with each complete entry.
    pub fn read(&mut self, bytes: &[u8], tell: &mut impl FnMut(Pin)) -> Parsed<()> {
        for &byte in bytes {
            let outer = self.depth;
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' if outer > 0 || !self.begun => (self.depth, self.begun) = (outer + 1, true),
                    b'}' if outer > 0 => self.depth -= 1,
                    _ if byte.is_ascii_whitespace() => continue,
                    _ if outer > 0 => {}
                    _ => return Err("it is not a JSON object"),
                }
            }
            if outer == 2 && !self.in_text && (byte == b',' || self.depth == 1) {
                self.end(tell)?;
            } else if outer >= 2 {
                self.entry.push(byte);
            }
            if self.depth > 3 || self.entry.len() > MAX_ENTRY {
                return Err("an entry is not what Kubo writes");
            }
        }
        Ok(())
    }

    fn end(&mut self, tell: &mut impl FnMut(Pin)) -> Parsed<()> {
        const OTHER: &str = "an entry is not what Kubo writes";
        let entry = [b"{", &self.entry[..], b"}"].concat();
        self.entry.clear();
        let entry: Value = serde_json::from_slice(&entry).map_err(|_| OTHER)?;
        for (cid, pin) in entry.as_object().into_iter().flatten() {
            let name = pin.get("Name").and_then(Value::as_str).unwrap_or_default();
            tell(Pin { cid: cid.clone(), name: name.to_owned() });
        }
        Ok(())
    }

    /// Returns whether the document is complete.
    pub fn whole(&self) -> bool {
        self.begun && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], piece: usize) -> Parsed<(Vec<Pin>, bool)> {
        let (mut entries, mut found) = (Entries::default(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            entries.read(piece, &mut |pin| found.push(pin))?;
        }
        Ok((found, entries.whole()))
    }

    #[test]
    fn a_list_without_pins_is_complete() {
        assert_eq!(read(b"{}\n", 1), Ok((Vec::new(), true)));
        assert_eq!(read(b"{\"Keys\":{}}", 1), Ok((Vec::new(), true)));
        for cut in [&b""[..], b"{", b"{\"Keys\":{"] {
            assert!(!read(cut, 1).unwrap().1);
        }
        for bad in [&b"[]"[..], b"{}{}", b"x", b"}", b"{\"Keys\":{\"a\"}}", b"{\"Keys\":{\"a\":{\"b\":{}}}}"] {
            assert!(read(bad, 1).is_err(), "{bad:?}");
        }
        assert!(read(&[b"{\"Keys\":{\"", &[b'a'; 5000][..]].concat(), 100).is_err());
    }

    proptest! {
        #[test]
        fn chunks_of_any_size(pins in prop::collection::vec(("[a-z0-9]{1,60}", "\\PC{0,40}"), 0..8), piece in 1usize..50) {
            let pins: std::collections::BTreeMap<_, _> = pins.into_iter().collect();
            let keys: serde_json::Map<_, _> = pins
                .iter()
                .map(|(cid, name)| (cid.clone(), serde_json::json!({ "Type": "recursive", "Name": name })))
                .collect();
            let text = serde_json::json!({ "Keys": keys }).to_string();
            let (found, whole) = read(text.as_bytes(), piece).unwrap();
            prop_assert!(whole);
            let expected: Vec<_> = pins.into_iter().map(|(cid, name)| Pin { cid, name }).collect();
            prop_assert_eq!(found, expected);
            for cut in 0..text.len() {
                prop_assert!(read(&text.as_bytes()[..cut], piece).map_or(true, |(_, whole)| !whole));
            }
        }

        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>, json in "[{}\":,\\\\a ]{0,60}") {
            let _ = read(&bytes, 7);
            let _ = read(json.as_bytes(), 7);
        }
    }
}
