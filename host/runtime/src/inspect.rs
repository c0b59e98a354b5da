//! Inspecting a component without running it: its digest, signatures, requests and needs.

use serde::Serialize;

use super::component::Component;
use super::digest::ComponentDigest;
use super::engine::Engine;
use super::manifest::Manifest;
use super::needs::{self, Needs};
use super::signature::Signature;
use super::trust::Trust;
use super::{check, wit};
use tidelock_capabilities::GrantNames;
use tidelock_types::{Error, Limits, Result};

/// A component's properties and requests.
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
    /// Its manifest, if it has one.
    pub manifest: Option<Manifest>,
    /// The signatures that came with it.
    pub signatures: Vec<SignatureInfo>,
    /// Its needs at the start, if they can be determined.
    pub needs: Option<Needs>,
    /// Whether this host can load it as an adapter.
    pub is_adapter: bool,
}

/// One signature of a component.
#[derive(Debug, Clone, Serialize)]
pub struct SignatureInfo {
    /// The key that it names.
    pub key: String,
    /// The name that the configuration gives this key; `null` if it has none.
    pub name: Option<String>,
    /// Whether that key has signed these bytes.
    pub valid: bool,
}

/// Inspects a component. Blocks while it is compiled.
///
/// # Errors
/// `invalid` if it is not a component, and for an invalid manifest.
pub fn inspect(engine: &Engine, component: &Component) -> Result<Inspection> {
    let Component { bytes, signatures } = component;
    let (compiled, _) = engine.compile(bytes)?;
    let (imports, exports) = wit::surface(&compiled, engine.wasmtime());
    let kinds: Vec<_> = imports
        .iter()
        .filter_map(|import| check::granted_kind(check::interface(import).strip_prefix("tidelock:storage/")?))
        .collect();
    let digest = ComponentDigest::of(bytes);
    let signature =
        |one: &Signature| SignatureInfo { key: one.key.to_string(), name: None, valid: one.verifies(digest) };
    Ok(Inspection {
        digest: digest.to_string(),
        bytes: bytes.len() as u64,
        needs_grants: check::GRANTED.into_iter().filter(|kind| kinds.contains(kind)).map(str::to_owned).collect(),
        manifest: Manifest::of_component(bytes)?,
        signatures: signatures.iter().map(signature).collect(),
        needs: needs::of_component(bytes)?,
        is_adapter: exports.iter().any(|name| wit::is_adapter_export(name)),
        imports,
        exports,
    })
}

/// Why a backend with these demands, grants and limits would not load a component. Empty if nothing is known against it
/// before it runs.
pub fn refusals(
    found: &Inspection,
    component: &Component,
    trust: &Trust,
    granted: &GrantNames,
    limits: &Limits,
) -> Vec<Error> {
    let manifest = found.manifest.as_ref();
    let limits = manifest.map_or_else(|| limits.clone(), |manifest| manifest.limits(limits));
    let checks = [
        trust.check(component).map(drop),
        trust.check_manifest(manifest),
        check::surface(&found.imports, &found.exports, granted, manifest),
        manifest.map_or(Ok(()), |manifest| check::asked(manifest, granted)),
        needs::check(found.needs.as_ref(), &limits),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}
