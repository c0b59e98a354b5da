//! Base and labels as user metadata of an object.
//!
//! The base is the label `tidelock-base` (`x-amz-meta-tidelock-base` on the wire), so that it can be read with any S3
//! tool and travels with the object when that is copied. Metadata are HTTP headers: values are percent-encoded where
//! a header would not carry them unchanged, which is everything outside ASCII, control characters, `%`, and blanks at
//! either end. A value of nothing is `%`, which no other one becomes: services drop headers that are empty. Metadata
//! that others have put there and that decode to no text are given back as they are.

use crate::{Error, Label, ObjectId};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The label that holds the base.
pub const BASE: &str = "tidelock-base";

/// What stands for a value of nothing.
const NOTHING: &str = "%";

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The labels that an object is put with. `invalid` if one has the name that belongs to the base.
pub fn encode(base: Option<&str>, labels: &[Label]) -> Result<Vec<Label>, Error> {
    if labels.iter().any(|(name, _)| name == BASE) {
        return Err(Error::invalid("the label `tidelock-base` is the adapter's own"));
    }
    let base = base.map(|id| (BASE, id));
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(base.into_iter().chain(labels).map(|(name, value)| (name.into(), escape(value))).collect())
}

/// The base and the labels of an object that has these. A base that is not an id is a label like any other: the bytes of
/// the object are none the worse for it.
pub fn decode(labels: Vec<Label>) -> (Option<String>, Vec<Label>) {
    let (mut base, mut others) = (None, Vec::new());
    for (name, value) in labels {
        let value = match value.as_str() {
            NOTHING => String::new(),
            _ => percent_decode_str(&value).decode_utf8().map(Into::into).unwrap_or(value),
        };
        match ObjectId::new(value.as_str()) {
            Ok(id) if name == BASE => base = Some(id.into_string()),
            _ => others.push((name, value)),
        }
    }
    (base, others)
}

fn escape(value: &str) -> String {
    if value.is_empty() {
        return NOTHING.into();
    }
    let inner = value.trim_matches(' ');
    let before = value.len() - value.trim_start_matches(' ').len();
    let after = value.len() - before - inner.len();
    let encoded: String = utf8_percent_encode(inner, ESCAPED).collect();
    ["%20".repeat(before), encoded, "%20".repeat(after)].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(name: &str, value: &str) -> Label {
        (name.into(), value.into())
    }

    #[test]
    fn on_the_wire() {
        let labels = [label("agent", " crawler 7 "), label("note", "50 % grün\n"), label("empty", "")];
        let wire = encode(Some("4f/k1"), &labels).unwrap();
        assert_eq!(
            wire,
            [
                label(BASE, "4f/k1"),
                label("agent", "%20crawler 7%20"),
                label("note", "50 %25 gr%C3%BCn%0A"),
                label("empty", "%")
            ]
        );
        assert_eq!(decode(wire), (Some("4f/k1".into()), labels.to_vec()));
    }

    #[test]
    fn the_name_of_the_base_is_taken() {
        assert!(matches!(encode(None, &[label(BASE, "x")]), Err(Error::Invalid(_))));
    }

    #[test]
    fn foreign_labels_are_left_alone() {
        assert_eq!(decode(vec![label("x", "100%"), label("y", "%ff")]).1, [label("x", "100%"), label("y", "%ff")]);
        for bad in ["", "a%00b", &"x".repeat(1025)] {
            assert_eq!(decode(vec![label(BASE, bad)]).0, None, "{bad:?}");
        }
    }

    proptest! {
        /// Whatever is stored comes back, over a wire that trims blanks and carries printable ASCII alone.
        #[test]
        fn labels_survive_http(
            base in prop::option::of("[^\\p{Cc}]{1,40}"),
            labels in prop::collection::vec(("[a-z]{1,9}", any::<String>()), 0..5),
        ) {
            let wire = encode(base.as_deref(), &labels).unwrap();
            for (_, value) in &wire {
                prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)));
                prop_assert_eq!(value.trim(), value);
                prop_assert!(!value.is_empty());
            }
            prop_assert_eq!(decode(wire), (base, labels));
        }
    }
}
