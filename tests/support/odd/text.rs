//! Keys in URLs and in XML.

pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = (byte == b'%').then(|| behind.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => (bytes.push(decoded), rest = &behind[2..]).1,
            None => (bytes.push(byte), rest = behind).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As `encoding-type=url` asks for.
pub(super) fn encode(key: &str) -> String {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    key.bytes().map(|b| if is_unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(super) fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('\r', "&#13;").replace('\n', "&#10;").replace('\t', "&#9;")
}
