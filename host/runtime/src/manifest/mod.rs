//! Manifests: an adapter's declared requirements, as its author wrote them in `adapter.toml`.
//!
//! An adapter can do only what its manifest asks for *and* the operator grants. The manifest is part of the
//! component (`section.rs`), so that the digest and every signature cover it, and is read without running anything. A
//! file beside the component could be changed by anyone with write access, and is ignored.
//!
//! | the manifest | the operator | the adapter |
//! | --- | --- | --- |
//! | asks | grants | has it |
//! | asks | does not grant | is not loaded, unless the manifest says `optional` |
//! | does not ask | grants | does not have it; using it is `denied` and says so |
//! | is absent | grants | has what it imports, unless the configuration requires manifests |
//!
//! A manifest is untrusted text: its size, the number and length of its entries, and its characters are bounded,
//! and unknown keys are rejected, since their requests could not be assessed.

mod section;
mod text;

pub use section::{embed_manifest, find_manifest};

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tidelock_capabilities::requested::{OriginPattern, RequestedGrants};
use tidelock_types::{Description, Error, Limits, Result, SettingKind};

/// The most bytes that a manifest may have.
pub const MAX_MANIFEST_BYTES: usize = 64 << 10;

/// The version of the interface that this host serves, without the patch number, which only ever adds.
const SERVED: &str = "tidelock:storage@0.1.";

/// An adapter's declarations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The adapter's name, as in `describe`.
    pub name: String,
    /// Its version, as in `describe`.
    pub version: String,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// The interface that it is built against, for example `tidelock:storage@0.1.0`.
    pub interface: String,
    /// The grants that it requests.
    #[serde(default)]
    pub asks: Asks,
    /// Its needs; the operator's limits apply all the same.
    #[serde(default)]
    pub limits: Needs,
    /// Its settings, if it declares them here: then all of them, as `describe` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, Setting>>,
}

/// Requested grants, by kind and by the names that the adapter uses. Capabilities without a grant (digests,
/// log, settings, clock, entropy) are not requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asks {
    /// HTTP.
    #[serde(default)]
    pub http: BTreeMap<String, AsksHttp>,
    /// Buckets.
    #[serde(default)]
    pub bucket: BTreeMap<String, AsksGrant>,
    /// Directories.
    #[serde(default)]
    pub directory: BTreeMap<String, AsksGrant>,
}

/// Asks to send requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsksHttp {
    /// To where; at least one.
    pub origins: Vec<OriginPattern>,
    /// The purpose.
    #[serde(default)]
    pub why: String,
    /// Whether the adapter works without.
    #[serde(default)]
    pub optional: bool,
}

/// Asks for a bucket or a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsksGrant {
    /// The purpose.
    #[serde(default)]
    pub why: String,
    /// Whether the adapter works without.
    #[serde(default)]
    pub optional: bool,
}

/// One grant that a manifest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedGrant<'m> {
    /// `http`, `bucket` or `directory`.
    pub kind: &'static str,
    /// The name under which the adapter uses it.
    pub name: &'m str,
    /// Whether the adapter works without.
    pub optional: bool,
    /// The purpose; may be empty.
    pub why: &'m str,
}

/// Needs of one operation. Missing values are up to the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Bytes of linear memory.
    #[serde(default, deserialize_with = "text::bytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Elements of tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_elements: Option<u64>,
    /// Time on a CPU.
    #[serde(default, deserialize_with = "text::duration", serialize_with = "text::seconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
    /// Concurrent host calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<usize>,
}

/// A setting of the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The kind of value: `text`, `integer`, `boolean`.
    #[serde(deserialize_with = "text::setting_kind")]
    pub kind: SettingKind,
    /// Whether the adapter cannot work without it.
    #[serde(default)]
    pub required: bool,
    /// Its meaning.
    #[serde(default)]
    pub summary: String,
}

impl Manifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// `invalid`, with the line or the key that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self> {
        text::parse(text)
    }

    /// The manifest that a component carries, if it carries one.
    ///
    /// # Errors
    /// `invalid` for a manifest that cannot be read, and for more than one: it is not taken for none.
    pub fn of_component(component: &[u8]) -> Result<Option<Self>> {
        find_manifest(component)?.map(Self::parse).transpose()
    }

    /// Returns the requests in the types of the capabilities.
    pub fn asked(&self) -> RequestedGrants {
        let names = |asks: &BTreeMap<String, AsksGrant>| asks.keys().cloned().collect();
        let origins = self.asks.http.iter().map(|(name, asks)| (name.clone(), asks.origins.clone()));
        RequestedGrants {
            http: origins.collect(),
            bucket: names(&self.asks.bucket),
            directory: names(&self.asks.directory),
        }
    }

    /// Returns every requested grant, sorted by kind and name.
    pub fn grants(&self) -> Vec<RequestedGrant<'_>> {
        let http = self.asks.http.iter().map(|(name, asks)| ("http", name, asks.optional, &asks.why));
        let bucket = self.asks.bucket.iter().map(|(name, asks)| ("bucket", name, asks.optional, &asks.why));
        let directory = self.asks.directory.iter().map(|(name, asks)| ("directory", name, asks.optional, &asks.why));
        let all = http.chain(bucket).chain(directory);
        all.map(|(kind, name, optional, why)| RequestedGrant { kind, name, optional, why }).collect()
    }

    /// Returns the operator's limits, lowered to the adapter's needs. Never raised.
    pub fn limits(&self, operator: &Limits) -> Limits {
        fn least<T: Ord + Copy>(allowed: T, needed: Option<T>) -> T {
            needed.map_or(allowed, |needed| needed.min(allowed))
        }
        Limits {
            memory: least(operator.memory, self.limits.memory),
            table_elements: least(operator.table_elements, self.limits.table_elements),
            cpu: least(operator.cpu, self.limits.cpu),
            calls_in_flight: least(operator.calls_in_flight, self.limits.calls_in_flight),
            ..operator.clone()
        }
    }

    /// Checks that this host serves the interface that it is built against.
    ///
    /// # Errors
    /// `invalid` if not.
    pub fn check_interface(&self) -> Result<()> {
        if self.interface.strip_prefix(SERVED).is_some_and(|patch| patch.parse::<u32>().is_ok()) {
            return Ok(());
        }
        Err(Error::invalid(format!("the adapter is built for {}, but this host supports {SERVED}x", self.interface))
            .hint("use a version of the adapter built for a supported interface"))
    }

    /// Checks that the adapter describes itself as its manifest does, so that the reviewed version is the one that runs.
    ///
    /// # Errors
    /// `invalid`, with the first difference.
    pub fn agrees_with(&self, said: &Description) -> Result<()> {
        let differ = |what: &str, here: &str, there: &str| {
            Err(Error::invalid(format!("{what} is `{here}` in the manifest, but `{there}` in the adapter"))
                .hint("ask the adapter's author to make adapter.toml match the code"))
        };
        if self.name != said.name {
            return differ("the name", &self.name, &said.name);
        }
        if self.version != said.version {
            return differ("the version", &self.version, &said.version);
        }
        let Some(declared) = &self.settings else { return Ok(()) };
        let of = |kind, required| format!("{kind:?}{}", if required { ", required" } else { "" }).to_lowercase();
        for spec in &said.settings {
            match declared.get(&spec.name) {
                Some(here) if (here.kind, here.required) == (spec.kind, spec.required) => {}
                here => {
                    let here = here.map_or("absent".to_owned(), |here| of(here.kind, here.required));
                    return differ(&format!("the setting {}", spec.name), &here, &of(spec.kind, spec.required));
                }
            }
        }
        match declared.keys().find(|name| !said.settings.iter().any(|spec| spec.name == **name)) {
            Some(name) => differ(&format!("the setting {name}"), "there", "absent"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
