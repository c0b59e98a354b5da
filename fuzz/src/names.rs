//! Any text as each of the small things that are named by texts: it is refused, or printing it gives it back.

use tidelock::capabilities::egress::Origin;
use tidelock::capabilities::{bucket, directory};
use tidelock::runtime::parse_signatures;
use tidelock::types::{ObjectId, PublicKey, format_bytes, parse_bytes, parse_duration};
use tidelock::{ByteRange, SnapshotId};

use crate::one_line;

/// Reads the text as everything, and checks what is taken.
pub fn run(data: &[u8]) {
    signatures(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<SnapshotId>() {
        Ok(id) => assert_eq!(id.to_string(), text, "a second text for one id"),
        Err(error) => one_line::check(&error.to_string(), 1024),
    }
    if let Ok(key) = taken(text, text.parse::<PublicKey>()) {
        assert_eq!(key.to_string(), text, "a second text for one key");
    }
    if let Ok(origin) = taken(text, text.parse::<Origin>()) {
        assert_eq!(origin.to_string().parse::<Origin>().ok(), Some(origin), "an origin that changes in print");
    }
    if let Ok(range) = taken(text, text.parse()) {
        within(range);
    }
    if let Ok(bytes) = taken(text, parse_bytes(text)) {
        one_line::check(&format_bytes(bytes), 16);
    }
    let _ = taken(text, parse_duration(text));
    if let Ok(id) = taken(text, ObjectId::new(text)) {
        one_line::check(id.as_str(), ObjectId::MAX_LEN);
    }
    if taken(text, directory::check_path(text)).is_ok() {
        let mut parts = std::path::Path::new(text).components();
        assert!(parts.all(|part| matches!(part, std::path::Component::Normal(_))), "a path that leads elsewhere");
    }
    if taken(text, bucket::check_key(text)).is_ok() {
        assert!(!text.starts_with('/') && !text.split('/').any(|part| part == ".." || part == "."));
    }
}

/// What an error says of a text can be shown, and is not many times as long.
fn taken<T>(text: &str, result: tidelock::Result<T>) -> tidelock::Result<T> {
    if let Err(error) = &result {
        one_line::check_error(error, text.len() * 12 + 1024);
    }
    result
}

fn within(range: ByteRange) {
    assert_eq!(range.to_string().parse::<ByteRange>().ok(), Some(range), "a range that changes in print");
    let edges = [Some(0), Some(1), Some(range.start), range.end, Some(u64::MAX)].into_iter().flatten();
    for edge in edges {
        for size in [edge.saturating_sub(1), edge, edge.saturating_add(1)] {
            if let Ok((start, len)) = range.within(size) {
                assert_eq!(start, range.start);
                assert!(start.checked_add(len).is_some_and(|end| end <= size), "{range} in {size} bytes");
            }
        }
    }
}

fn signatures(file: &[u8]) {
    match parse_signatures(file) {
        Ok(signatures) => {
            let printed: String = signatures.iter().map(|signature| format!("{signature}\n")).collect();
            let again = parse_signatures(printed.as_bytes()).expect("what was printed can be read");
            assert!(again == signatures, "signatures that change in print");
        }
        Err(error) => one_line::check_error(&error, 1024),
    }
}
