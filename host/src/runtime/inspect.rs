//! What a component is, found out without running it.

use serde::Serialize;

use super::engine::{Digest, Engine};
use super::wit;
use crate::types::Result;

/// What a component is and asks for.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The SHA-256 of its bytes, as configuration pins it.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The capabilities for which the operator has to grant something: `http`, `bucket`, `directory`.
    pub needs_grants: Vec<String>,
    /// Linear memories, if that can be told.
    pub memories: Option<u32>,
    /// Elements of its tables at the start, if that can be told.
    pub table_elements: Option<u64>,
    /// Whether this host can load it as an adapter.
    pub is_adapter: bool,
}

/// Inspects a component. Blocks while it is compiled.
///
/// # Errors
/// `invalid` for what is not a component.
pub(crate) fn inspect(engine: &Engine, bytes: &[u8]) -> Result<Inspection> {
    let (component, _) = engine.compile(bytes)?;
    let (imports, exports) = wit::surface(&component, engine.wasmtime());
    let needs = component.resources_required();
    let named = |capability: &str| imports.iter().any(|i| i.starts_with(&format!("tidelock:storage/{capability}@")));
    Ok(Inspection {
        digest: Digest::of(bytes).to_string(),
        bytes: bytes.len() as u64,
        needs_grants: ["http", "bucket", "directory"].into_iter().filter(|c| named(c)).map(str::to_owned).collect(),
        memories: needs.as_ref().map(|needs| needs.num_memories),
        table_elements: needs.as_ref().and_then(|needs| needs.max_initial_table_size),
        is_adapter: exports.iter().any(|name| wit::is_adapter_export(name)),
        imports,
        exports,
    })
}
