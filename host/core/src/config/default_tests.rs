//! The commented default: what it means, and that it names every key.

use std::path::Path;

use super::*;

#[test]
fn the_commented_default_means_the_embedded_one() {
    let written = Config::parse(commented_default(), Path::new("")).unwrap();
    assert_eq!(written, Config::embedded_default(DEFAULT_DATA_DIR));
}

/// The text with the examples that are hidden by a `#` that touches them.
fn uncommented() -> String {
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    commented_default().lines().map(|line| shown(line) + "\n").collect()
}

#[test]
fn every_example_can_be_used() {
    let config = Config::parse(&uncommented(), Path::new("")).unwrap();
    assert_eq!(config.backends.keys().collect::<Vec<_>>(), ["cloud", "local", "pinning", "vault"]);
    assert_eq!(config.routes["offsite"].ack, Ack::Copies(1));
    assert!(config.backends["cloud"].grants.bucket["objects"].path_style);
    assert_eq!((config.backends["vault"].restore_days, config.backends["cloud"].restore_days), (7, 3));
}

/// Every key that is known anywhere is in the commented default, so that it documents all of them.
#[test]
fn every_key_is_documented() {
    let text = uncommented();
    let source = concat!(
        include_str!("parse.rs"),
        include_str!("routes.rs"),
        include_str!("swap.rs"),
        include_str!("trust.rs"),
        include_str!("encryption.rs")
    );
    for key in crate::types::limits::LIMITS {
        assert!(text.contains(&format!("\n{key} =")), "the limit `{key}` is not in the commented default");
    }
    let mut lists = 0;
    for list in source.split("table(&[").skip(1).map(|rest| &rest[..rest.find(']').unwrap()]) {
        lists += 1;
        for key in list.split(',').map(|key| key.trim().trim_matches('"')).filter(|key| !key.is_empty()) {
            let forms =
                [format!("{key} ="), format!(".{key}."), format!("[{key}"), format!(".{key}]"), format!("`{key}`")];
            assert!(forms.iter().any(|form| text.contains(form)), "`{key}` is not in the commented default");
        }
    }
    assert!(lists >= 9, "the lists of keys were not found: {lists}");
}
