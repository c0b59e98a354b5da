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
    if let Some(what) = in_its_way(&place, data_dir, backends) {
        let item = given.as_ref().unwrap_or(item);
        return Err(item.wrong(what).hint("give the hot tier a folder of its own"));
    }
    match (backends.iter().find(|(_, backend)| used(backend)), &given) {
        (Some((name, _)), given) => Err(given
            .as_ref()
            .unwrap_or(item)
            .wrong(format_args!("is the folder of the backend `{name}`"))
            .hint("give the hot tier a folder of its own")),
        (None, _) => Ok(Hot { capacity: bytes, path: place, at_risk }),
    }
}

/// What the data directory has in folders of its own, beside the hot tier's.
const OTHERS: [&str; 8] =
    ["run", "adapters", "tmp", "objects", "compiled", "catalogue.mark", "page-digests", "sketches"];

/// Why the hot tier cannot be there: what makes room in it must not meet anything else.
fn in_its_way(place: &Path, data_dir: &Path, backends: &BTreeMap<String, BackendConfig>) -> Option<String> {
    let (place, data_dir) = (real(place), real(data_dir));
    if data_dir.starts_with(&place) {
        return Some("holds the data directory".to_owned());
    }
    if OTHERS.iter().any(|name| place.starts_with(data_dir.join(name))) {
        return Some("is in a folder that the data directory has for something else".to_owned());
    }
    let below = |outer: &Path, inner: &Path| inner != outer && inner.starts_with(outer);
    for (name, backend) in backends {
        for grant in backend.grants.directory.values() {
            let DirectoryGrant::Path(path) = grant else { continue };
            let folder = real(path);
            if below(&place, &folder) {
                return Some(format!("holds the folder of the backend `{name}`"));
            }
            if below(&folder, &place) && !data_dir.starts_with(&folder) {
                return Some(format!("is in the folder of the backend `{name}`"));
            }
        }
    }
    None
}

fn is_same(one: &Path, other: &Path) -> bool {
    real(one) == real(other)
}

/// Where a path leads. What is not there yet is taken as it is written, below what is.
fn real(path: &Path) -> PathBuf {
    let absent = |above: &Path| match (path.file_name(), real(above)) {
        (Some(name), above) => above.join(name),
        // It ends in `..`.
        (None, above) => above.parent().map(Path::to_path_buf).unwrap_or(above),
    };
    let found = path.canonicalize().ok();
    found.or_else(|| path.parent().map(absent)).unwrap_or_else(|| path.components().collect())
}
