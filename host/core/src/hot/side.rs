//! The labels of an object, in the form that the adapter `fs` gives them (`docs/formats.md`).

const FIRST: &str = "tidelock-side 1";
const LAST: &str = "end";

/// The text of a file of labels.
pub(super) fn text(labels: &[(String, String)]) -> String {
    let mut text = format!("{FIRST}\n");
    for (name, value) in labels {
        text += &format!("label {} {}\n", encoded(name).replace(' ', "%20"), encoded(value));
    }
    text + LAST + "\n"
}

/// The labels of such a text. What is not understood is left out: labels only describe.
pub(super) fn parse(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let labels = text.lines().filter_map(|line| line.strip_prefix("label ")?.split_once(' '));
    labels.filter_map(|(name, value)| Some((decoded(name)?, decoded(value)?))).collect()
}

/// Control characters, what is not ASCII, and `%` as `%` and two digits.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'%' => out += "%25",
            b' '..=b'~' => out.push(char::from(byte)),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_come_back(labels in prop::collection::vec((".{1,20}", ".{0,40}"), 0..5)) {
            prop_assert_eq!(parse(text(&labels).as_bytes()), labels);
        }

        #[test]
        fn any_bytes_are_some_labels(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"label a%".to_vec();
            text.extend(bytes);
            parse(&text);
        }
    }
}
