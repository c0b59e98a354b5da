//! The table `hot`: images that are kept ready on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::read::{Item, path};
use super::{AdapterSource, BackendConfig, Cost, DirectoryGrant, Grants, RESTORE_DAYS, Swap, Tier};
use crate::types::{LimitOverrides, Result};

/// The name of the hot tier as a backend.
pub const HOT: &str = "hot";

/// The hot tier: a directory of this machine in which images lie ready to be read and compared, beside their other copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hot {
    /// The most bytes of the file system that it takes. Images that were used longest ago make room for others.
    pub capacity: u64,
    /// The directory; by default `hot` in the data directory.
    pub path: PathBuf,
    /// The most bytes of images that may be acknowledged and on this machine alone; by default half of the capacity.
    pub at_risk: u64,
}

impl BackendConfig {
    /// That of the hot tier, which has no adapter.
    pub(crate) fn hot() -> Self {
        Self {
            adapter: AdapterSource::BuiltIn(HOT.to_owned()),
            digest: None,
            signed_by: Vec::new(),
            tier: Tier::Hot,
            settings: BTreeMap::new(),
            grants: Grants::default(),
            limits: LimitOverrides::default(),
            cost: Cost::default(),
            swap: Swap::default(),
            restore_days: RESTORE_DAYS,
            encrypted: Some(false),
        }
    }
}

/// Reads the table; a relative path in it belongs to `directory`.
pub(super) fn hot(
    item: &Item<'_>,
    directory: &Path,
    data_dir: &Path,
    backends: &BTreeMap<String, BackendConfig>,
) -> Result<Hot> {
    let table = item.table(&["capacity", "path", "at_risk"])?;
    let capacity = table.need("capacity", "`capacity = \"50 GiB\"`")?;
    let bytes = capacity.bytes()?;
    if bytes == 0 {
        return Err(capacity.wrong("must be more than zero").hint("leave the table `hot` out to have no hot tier"));
    }
    let at_risk = match table.get("at_risk") {
        None => bytes / 2,
        Some(item) => match item.bytes()? {
            at_risk if at_risk > bytes => return Err(item.wrong("must not be more than the capacity")),
            at_risk => at_risk,
        },
    };
    if backends.contains_key(HOT) {
        return Err(item
            .misnamed("is the hot tier, and there is a backend of that name")
            .hint("give the backend another name; its snapshots are found under it by `tidelock import`"));
    }
    let given = table.get("path");
    let place = given.as_ref().map(|item| path(item, directory)).transpose()?;
    let place = place.unwrap_or_else(|| data_dir.join(HOT));
    let used = |backend: &&BackendConfig| {
        let same = |grant: &DirectoryGrant| matches!(grant, DirectoryGrant::Path(path) if is_same(path, &place));
        backend.grants.directory.values().any(same)
    };
    match (backends.iter().find(|(_, backend)| used(backend)), &given) {
        (Some((name, _)), given) => Err(given
            .as_ref()
            .unwrap_or(item)
            .wrong(format_args!("is the folder of the backend `{name}`"))
            .hint("give the hot tier a folder of its own")),
        (None, _) => Ok(Hot { capacity: bytes, path: place, at_risk }),
    }
}

/// Where one is not there yet, the two are compared as they are written.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.components().collect());
    real(one) == real(other)
}
