//! Texts for people must not drive the terminal or the log that they end up in.

/// Panics unless a text is one line without control characters, and no longer than `most` bytes.
pub(crate) fn check(text: &str, most: usize) {
    assert!(!text.chars().any(char::is_control), "a text with control characters: {text:?}");
    assert!(text.len() <= most, "a text of {} bytes: {text:?}", text.len());
}

/// As [`check`], for all that an error says.
pub(crate) fn check_error(error: &tidelock::Error, most: usize) {
    check(error.message(), most);
    check(error.advice().unwrap_or_default(), most);
    assert!(!error.message().is_empty(), "an error without a message: {error:?}");
}
