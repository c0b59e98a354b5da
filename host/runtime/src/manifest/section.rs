//! The location of a manifest in a component: the custom section `tidelock:manifest` at the component's top level.
//!
//! Only there: a core module inside may have sections of the same name from a library that it was linked with, which
//! are not about the component. Nested sections are skipped by their length, so that the cost of finding the manifest
//! depends on the number of sections and not on their size.

use std::ops::Range;

use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{Chunk, Encoding, Parser, Payload};

use super::{MAX_MANIFEST_BYTES, Manifest};
use tidelock_types::{Error, Result, format_bytes};

/// The section's name.
const NAME: &str = "tidelock:manifest";

/// A manifest section: the range of the whole section, and that of its content.
struct Found {
    whole: Range<usize>,
    content: Range<usize>,
}

/// The text of the manifest that a component carries, if it carries one. Reads lengths, runs nothing.
///
/// # Errors
/// `invalid` if there is more than one, if it is too large, or if this is not a component.
pub fn find_manifest(component: &[u8]) -> Result<Option<&[u8]>> {
    let mut found = sections(component)?;
    let Some(section) = found.pop() else { return Ok(None) };
    if !found.is_empty() {
        return Err(Error::invalid("the component has more than one manifest"));
    }
    let content = component.get(section.content).unwrap_or_default();
    if content.len() > MAX_MANIFEST_BYTES {
        let (size, most) = (content.len() as u64, MAX_MANIFEST_BYTES as u64);
        let what = format!("the manifest has {}, more than {}", format_bytes(size), format_bytes(most));
        return Err(Error::invalid(what));
    }
    Ok(Some(content))
}

/// The component with this manifest, in place of those that it carried.
///
/// # Errors
/// `invalid` for a manifest that could not be read back, or if this is not a component.
pub fn embed_manifest(component: &[u8], manifest: &[u8]) -> Result<Vec<u8>> {
    Manifest::parse(manifest)?;
    let mut with = Vec::with_capacity(component.len() + manifest.len() + 32);
    let mut from = 0;
    for section in sections(component)? {
        with.extend_from_slice(component.get(from..section.whole.start).unwrap_or_default());
        from = section.whole.end;
    }
    with.extend_from_slice(component.get(from..).unwrap_or_default());
    CustomSection { name: NAME.into(), data: manifest.into() }.append_to_component(&mut with);
    Ok(with)
}

/// Every manifest section at the top level.
fn sections(component: &[u8]) -> Result<Vec<Found>> {
    let broken = |why: &str| Error::invalid(format!("this is not a WebAssembly component: {why}"));
    let (mut parser, mut at, mut found) = (Parser::new(0), 0, Vec::new());
    while let Some(rest) = component.get(at..) {
        let (consumed, payload) = match parser.parse(rest, true).map_err(|error| broken(error.message()))? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            Chunk::NeedMoreData(_) => return Err(broken("it is truncated")),
        };
        let whole = at..at + consumed;
        at += consumed;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => return Err(broken("it is a core module")),
            // Nested content follows the header that was just read. A missing one shows at the end of the file.
            Payload::ModuleSection { unchecked_range: inside, .. }
            | Payload::ComponentSection { unchecked_range: inside, .. } => {
                at = at.checked_add(inside.len()).ok_or_else(|| broken("it is truncated"))?;
            }
            Payload::CustomSection(section) if section.name() == NAME => {
                found.push(Found {
                    whole,
                    content: section.data_offset()..section.data_offset() + section.data().len(),
                });
            }
            Payload::End(_) => return Ok(found),
            _ => {}
        }
    }
    Err(broken("it is truncated"))
}
