//! The side file: base and labels of an object.
//!
//! `KEY.base` lies beside the object `KEY` if that has a base or labels. It is text, a line for each fact, so that it can
//! be read with `cat` and written by hand when a catalogue has to be rebuilt:
//!
//! ```text
//! tidelock-side 1
//! base ab/cd/0k3z
//! label agent crawler%0A7
//! end
//! ```
//!
//! The first line names the format and its version. `base` (at most one) gives the id of the base. `label` gives a name,
//! a space and the value to the end of the line. In values and ids `%`, control characters and everything outside ASCII
//! is percent-encoded. `end` tells a whole file from a damaged one. Nothing else is allowed: a reader that skipped what
//! it does not know would give back less than was stored.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tidelock_sdk::ids::is_label_name;
use tidelock_sdk::{Error, Label, ObjectId};

const HEAD: &str = "tidelock-side 1";

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The most bytes that a side file may have.
pub const MAX_BYTES: usize = 64 << 10;

/// The base and the labels of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The id of the object that it is a change against.
    pub base: Option<String>,
    /// Names and values.
    pub labels: Vec<Label>,
}

impl Side {
    /// Returns whether there is neither base nor label, and so no file.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.labels.is_empty()
    }

    /// Returns the contents of the file. Fails with `invalid` if it would be longer than [`MAX_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = String::from(HEAD);
        out.push('\n');
        if let Some(base) = &self.base {
            line(&mut out, &["base ", &escape(base)]);
        }
        for (name, value) in &self.labels {
            line(&mut out, &["label ", name, " ", &escape(value)]);
        }
        out.push_str("end\n");
        if out.len() > MAX_BYTES {
            return Err(Error::invalid("the labels of an object must fit into 64 KiB"));
        }
        Ok(out.into_bytes())
    }

    /// Parses a side file. Fails with `corrupt`, with the reason, if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let body = text.strip_suffix("end\n").ok_or_else(|| damaged("its end is missing"))?;
        let mut lines = body.split_terminator('\n');
        if lines.next() != Some(HEAD) {
            return Err(damaged("it does not begin with `tidelock-side 1`"));
        }
        let mut side = Self::default();
        for line in lines {
            match line.split_once(' ') {
                Some(("base", id)) if side.base.is_none() => {
                    let id = ObjectId::new(unescape(id)?).map_err(|_| damaged("its base is not an id"))?;
                    side.base = Some(id.into_string());
                }
                Some(("label", rest)) => side.labels.push(label(rest)?),
                _ => return Err(damaged("it has a line that is neither a base nor a label")),
            }
        }
        Ok(side)
    }
}

fn line(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}

fn label(rest: &str) -> Result<Label, Error> {
    match rest.split_once(' ') {
        Some((name, value)) if is_label_name(name) => Ok((name.into(), unescape(value)?)),
        _ => Err(damaged("it has a label without a name")),
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).collect()
}

fn unescape(text: &str) -> Result<String, Error> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| damaged("it has a value that is not text"))
}

fn damaged(why: &str) -> Error {
    Error::corrupt(["the side file is damaged: ", why].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_form() {
        let side = Side { base: Some("ab/cd/0k3z".into()), labels: vec![("agent".into(), "crawler\n7".into())] };
        let file = b"tidelock-side 1\nbase ab/cd/0k3z\nlabel agent crawler%0A7\nend\n";
        assert_eq!(side.encode().unwrap(), file);
        assert_eq!(Side::decode(file).unwrap(), side);
    }

    #[test]
    fn damage_is_seen() {
        let bad: &[&[u8]] = &[
            b"",
            b"end\n",
            b"tidelock-side 1\nbase x",
            b"tidelock-side 1\nbase x\n",
            b"tidelock-side 2\nend\n",
            b"tidelock-side 1\nbase x\nbase y\nend\n",
            b"tidelock-side 1\nbase \nend\n",
            b"tidelock-side 1\nbase a%00b\nend\n",
            b"tidelock-side 1\nlabel n\nend\n",
            b"tidelock-side 1\nlabel N v\nend\n",
            b"tidelock-side 1\nlabel n %ff\nend\n",
            b"tidelock-side 1\n\nend\n",
            b"tidelock-side 1\nsize 5\nend\n",
            b"tidelock-side 1\nend\n\xff",
        ];
        for file in bad {
            assert!(matches!(Side::decode(file), Err(Error::Corrupt(_))), "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn too_many_labels_are_refused_before_anything_is_written() {
        let side = Side { base: None, labels: vec![("n".into(), "\n".repeat(MAX_BYTES / 3))] };
        assert!(matches!(side.encode(), Err(Error::Invalid(_))));
    }

    fn any_side() -> impl Strategy<Value = Side> {
        let base = prop::option::of("[^\\p{Cc}]{1,40}");
        let labels = prop::collection::vec(("[a-z0-9-]{1,12}", any::<String>()), 0..5);
        (base, labels).prop_map(|(base, labels)| Side { base, labels })
    }

    proptest! {
        #[test]
        fn an_encoded_file_is_decoded(side in any_side()) {
            let file = side.encode().unwrap();
            prop_assert!(file.is_ascii());
            prop_assert_eq!(Side::decode(&file).unwrap(), side);
        }

        /// No beginning of a file passes for the whole.
        #[test]
        fn a_torn_file_is_not_believed(side in any_side(), cut in any::<prop::sample::Index>()) {
            let file = side.encode().unwrap();
            prop_assert!(Side::decode(&file[..cut.index(file.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Side::decode(&bytes);
        }
    }
}
