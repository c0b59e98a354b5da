//! Preflight: whether each backend of a configuration would accept a component, and which grants it would get.
//!
//! Nothing is run, opened or connected to, and no credential is resolved: the configuration is compared with the
//! component's declarations. Checks that need it to run (its settings, its probe) are left out.

use serde::Serialize;

use super::slot;
use crate::capabilities::GrantNames;
use crate::capabilities::requested::OriginPattern;
use crate::config::{BackendConfig, Config, DirectoryGrant};
use crate::runtime::{Component, Engine, EngineOptions, Inspection, Limits, Manifest, Needs, refusals};
use crate::types::{Error, Result, blocking, format_bytes};

/// The verdict of one backend on a component.
#[derive(Debug, Clone, Serialize)]
pub struct Preflight {
    /// The backend.
    pub backend: String,
    /// Why it would not load the component; empty if it would.
    pub refusals: Vec<String>,
    /// The name of the demanded key that has signed it, where one is demanded.
    pub signed_by: Option<String>,
    /// Every grant that is requested or granted.
    pub grants: Vec<GrantPreflight>,
    /// The limits that the component requests, with those that it would get.
    pub limits: Vec<LimitPreflight>,
    /// Its needs at the start, with the limits.
    pub needs: Vec<NeedPreflight>,
}

/// The verdict on one grant.
#[derive(Debug, Clone, Serialize)]
pub struct GrantPreflight {
    /// `http`, `bucket` or `directory`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Whether the component requests it: by its manifest or, without one, by its imports.
    pub asked: bool,
    /// Whether it works without.
    pub optional: bool,
    /// Whether the configuration grants it.
    pub granted: bool,
    /// Everything it could reach: origins, a folder, a bucket and prefix. Empty unless requested and granted.
    pub reaches: Vec<String>,
    /// Origins that are granted but not requested, so out of reach.
    pub withheld: Vec<String>,
}

/// The verdict on one limit, in texts that a configuration accepts too.
#[derive(Debug, Clone, Serialize)]
pub struct LimitPreflight {
    /// Its key in `limits`.
    pub name: &'static str,
    /// The value in the manifest.
    pub asks: String,
    /// The value that the configuration allows.
    pub allowed: String,
    /// The smaller of the two.
    pub gets: String,
}

/// A need of a component at the start, beside this backend's limit.
#[derive(Debug, Clone, Serialize)]
pub struct NeedPreflight {
    /// The key in `limits`.
    pub name: &'static str,
    /// The amount before its code runs.
    pub needs: String,
    /// The most that it may take.
    pub gets: String,
    /// Whether that is enough.
    pub fits: bool,
}

/// Inspects a component without loading it as an adapter: its digest and signatures, imports and exports, requests and
/// needs.
///
/// # Errors
/// `invalid` if it is not a component.
pub async fn inspect(component: impl Into<Component>) -> Result<Inspection> {
    let component = component.into();
    blocking(move || {
        // Also one that no configured limit allows is described.
        let engine = Engine::new(EngineOptions { operations: 1, largest_memory: 1 << 30, ..Default::default() })?;
        crate::runtime::inspect(&engine, &component)
    })
    .await
}

/// Compares a component with a configuration. Adds the names of the keys of its signatures, and returns the verdict of
/// each backend, or of the named one.
///
/// # Errors
/// `invalid` for a backend that is not there.
pub fn preflights(
    found: &mut Inspection,
    component: &Component,
    config: &Config,
    backend: Option<&str>,
) -> Result<Vec<Preflight>> {
    for signature in &mut found.signatures {
        let known = config.trust.keys.iter().find(|(_, key)| key.to_string() == signature.key);
        signature.name = known.map(|(name, _)| name.clone());
    }
    if let Some(unknown) = backend.filter(|name| !config.backends.contains_key(*name)) {
        let known: Vec<&str> = config.backends.keys().map(String::as_str).collect();
        return Err(Error::invalid(format!("no backend `{unknown}`")).hint(format!("use one of {}", known.join(", "))));
    }
    let wanted = config.backends.iter().filter(|(name, _)| backend.is_none_or(|only| only == *name));
    wanted.map(|(name, backend)| preflight(found, component, config, name, backend)).collect()
}

fn preflight(
    found: &Inspection,
    component: &Component,
    config: &Config,
    name: &str,
    backend: &BackendConfig,
) -> Result<Preflight> {
    let trust = slot::trust(backend, &config.trust)?;
    let granted = granted(backend);
    let signed_by = trust.signer(component.digest(), &component.signatures).map(str::to_owned);
    let manifest = found.manifest.as_ref();
    let allowed = backend.limits.apply_to(&Limits::DEFAULT);
    let refusals = refusals(found, component, &trust, &granted, &allowed);
    Ok(Preflight {
        backend: name.to_owned(),
        refusals: refusals.iter().map(|error| error.message().to_owned()).collect(),
        signed_by,
        grants: grants(found, backend, &granted),
        limits: manifest.map_or(Vec::new(), |manifest| limits(manifest, &allowed)),
        needs: found.needs.map_or(Vec::new(), |taken| {
            needs(&taken, &manifest.map_or_else(|| allowed.clone(), |manifest| manifest.limits(&allowed)))
        }),
    })
}

fn needs(taken: &Needs, gets: &Limits) -> Vec<NeedPreflight> {
    let row = |name, needs: u64, gets: u64, text: fn(u64) -> String| NeedPreflight {
        name,
        needs: text(needs),
        gets: text(gets),
        fits: needs <= gets,
    };
    let count = |count: u64| count.to_string();
    vec![
        row("instances", taken.core_instances, gets.instances as u64, count),
        row("memory", taken.all_memory_bytes, gets.memory, format_bytes),
        row("table_elements", taken.all_table_elements, gets.table_elements, count),
    ]
}

fn granted(backend: &BackendConfig) -> GrantNames {
    let grants = &backend.grants;
    let http = grants.http.keys().map(|name| ("http", name.clone()));
    let bucket = grants.bucket.keys().map(|name| ("bucket", name.clone()));
    http.chain(bucket).chain(grants.directory.keys().map(|name| ("directory", name.clone()))).collect()
}

fn grants(found: &Inspection, backend: &BackendConfig, granted: &GrantNames) -> Vec<GrantPreflight> {
    let asks = found.manifest.as_ref().map(Manifest::grants).unwrap_or_default();
    let mut all = granted.clone();
    all.extend(asks.iter().map(|asked| (asked.kind, asked.name.to_owned())));
    let of = |(kind, name): (&'static str, String)| {
        let asked = asks.iter().find(|asked| (asked.kind, asked.name) == (kind, name.as_str()));
        // A component without a manifest requests its imports, under any name.
        let imports = found.manifest.is_none() && found.needs_grants.iter().any(|needed| needed == kind);
        let granted = granted.contains(&(kind, name.clone()));
        let mut preflight = GrantPreflight {
            kind,
            asked: asked.is_some() || imports,
            optional: asked.is_some_and(|asked| asked.optional),
            granted,
            reaches: Vec::new(),
            withheld: Vec::new(),
            name,
        };
        if preflight.asked && granted {
            reach(&mut preflight, found.manifest.as_ref(), backend);
        }
        preflight
    };
    all.into_iter().map(of).collect()
}

/// Returns what an adapter could reach through a grant that it requests and has.
fn reach(preflight: &mut GrantPreflight, manifest: Option<&Manifest>, backend: &BackendConfig) {
    let name = &preflight.name;
    if let Some(grant) = backend.grants.http.get(name).filter(|_| preflight.kind == "http") {
        let patterns = manifest.and_then(|manifest| manifest.asks.http.get(name)).map(|asks| asks.origins.as_slice());
        let fits = |text: &&String| {
            let pattern = patterns.unwrap_or(&[OriginPattern::Any]);
            text.parse().is_ok_and(|origin| pattern.iter().any(|pattern| pattern.fits(&origin)))
        };
        let (reaches, withheld): (Vec<&String>, Vec<&String>) = grant.origins.iter().partition(fits);
        preflight.reaches = reaches.into_iter().cloned().collect();
        preflight.withheld = withheld.into_iter().cloned().collect();
    }
    if let Some(grant) = backend.grants.bucket.get(name).filter(|_| preflight.kind == "bucket") {
        let service = grant.endpoint.clone().unwrap_or_else(|| format!("AWS {}", grant.region));
        preflight.reaches = vec![format!("{service} {}/{}", grant.bucket, grant.prefix)];
    }
    if let Some(grant) = backend.grants.directory.get(name).filter(|_| preflight.kind == "directory") {
        preflight.reaches = vec![match grant {
            DirectoryGrant::Path(path) => path.display().to_string(),
            DirectoryGrant::Nfs { url, .. } => url.clone(),
        }];
    }
}

fn limits(manifest: &Manifest, allowed: &Limits) -> Vec<LimitPreflight> {
    let (gets, needs) = (manifest.limits(allowed), &manifest.limits);
    fn row<T>(
        name: &'static str,
        asks: Option<T>,
        other: [T; 2],
        text: impl Fn(T) -> String,
    ) -> Option<LimitPreflight> {
        let [allowed, gets] = other.map(&text);
        Some(LimitPreflight { name, asks: text(asks?), allowed, gets })
    }
    let count = |count: u64| count.to_string();
    let calls = [allowed.calls_in_flight, gets.calls_in_flight].map(|calls| calls as u64);
    [
        row("memory", needs.memory, [allowed.memory, gets.memory], format_bytes),
        row("table_elements", needs.table_elements, [allowed.table_elements, gets.table_elements], count),
        row("cpu", needs.cpu, [allowed.cpu, gets.cpu], |time| format!("{time:?}")),
        row("calls_in_flight", needs.calls_in_flight.map(|calls| calls as u64), calls, count),
    ]
    .into_iter()
    .flatten()
    .collect()
}
