//! Any bytes as a manifest, or as a component that may carry one.
//!
//! An input that begins like WebAssembly (`\0asm`) is taken for a component, any other for the text of a manifest.

use tidelock::ErrorKind;
use tidelock::runtime::Limits;
use tidelock::runtime::manifest::{MAX_MANIFEST_BYTES, Manifest, embed_manifest, find_manifest};

use crate::one_line;

/// A component of nothing.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
/// A manifest that asks for nothing.
const PLAIN: &[u8] = b"name = 'a'\nversion = '1'\ninterface = 'tidelock:storage@0.1.0'\n";

/// Reads the input and checks what is taken.
pub fn run(data: &[u8]) {
    if data.starts_with(b"\0asm") { component(data) } else { text(data) }
}

fn refused(error: &tidelock::Error) {
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error:?}");
    one_line::check_error(error, 2048);
}

fn component(bytes: &[u8]) {
    let found = match find_manifest(bytes) {
        Ok(found) => found,
        Err(error) => return refused(&error),
    };
    assert!(found.is_none_or(|text| text.len() <= MAX_MANIFEST_BYTES));
    if let Err(error) = Manifest::of_component(bytes) {
        assert!(found.is_some(), "a manifest that is not there is wrong: {error:?}");
        refused(&error);
    }
    let with = embed_manifest(bytes, PLAIN).expect("a component that could be read");
    assert_eq!(find_manifest(&with).ok().flatten(), Some(PLAIN), "the manifest that was put in");
}

fn text(bytes: &[u8]) {
    let manifest = match Manifest::parse(bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(embed_manifest(EMPTY, bytes).is_err(), "a component with a manifest that cannot be read");
            return refused(&error);
        }
    };
    let component = embed_manifest(EMPTY, bytes).expect("a manifest that can be read");
    assert_eq!(Manifest::of_component(&component).ok().flatten().as_ref(), Some(&manifest), "another one comes out");
    for name in [&manifest.name, &manifest.version, &manifest.interface] {
        one_line::check(name, 64);
    }
    one_line::check(&manifest.summary, 2000);
    let asked = manifest.asked();
    for grant in manifest.grants() {
        one_line::check(grant.name, 64);
        one_line::check(grant.why, 2000);
        assert!(asked.has(grant.kind, grant.name), "a grant that is listed and not asked for");
    }
    let operator = Limits::default();
    let lowered = manifest.limits(&operator);
    assert!(lowered.memory <= operator.memory && lowered.cpu <= operator.cpu);
    assert!(lowered.table_elements <= operator.table_elements && lowered.calls_in_flight <= operator.calls_in_flight);
    if let Err(error) = manifest.check_interface() {
        refused(&error);
    }
    if let Err(error) = manifest.agrees_with(&tidelock::types::Description::default()) {
        refused(&error);
    }
}
