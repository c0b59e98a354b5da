//! The configuration that holds without a file, and the file that `tidelock init` writes, which says the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{
    Ack, AdapterSource, BackendConfig, Config, Cost, DEFAULT_ROUTE, DirectoryGrant, Grants, Listen, RESTORE_DAYS,
    Route, Service, Swap, Tier, Trust,
};
use crate::types::LimitOverrides;

/// The text of a configuration that means [`Config::embedded_default`] and documents every key.
///
/// Comments for people begin with `# `; a `#` that touches the next character hides an example that can be used as it
/// stands.
pub fn commented_default() -> &'static str {
    include_str!("default.toml")
}

pub(super) fn embedded(data_dir: PathBuf) -> Config {
    let name = "local".to_owned();
    let objects = DirectoryGrant::Path(data_dir.join("objects"));
    let backend = BackendConfig {
        adapter: AdapterSource::BuiltIn("fs".to_owned()),
        digest: None,
        signed_by: Vec::new(),
        tier: Tier::Warm,
        settings: BTreeMap::new(),
        grants: Grants { directory: BTreeMap::from([("objects".to_owned(), objects)]), ..Grants::default() },
        limits: LimitOverrides::default(),
        cost: Cost::default(),
        swap: Swap::default(),
        restore_days: RESTORE_DAYS,
    };
    let route = Route { backends: vec![name.clone()], copies: 1, ack: Ack::Remote };
    Config {
        backends: BTreeMap::from([(name, backend)]),
        routes: BTreeMap::from([(DEFAULT_ROUTE.to_owned(), route)]),
        trust: Trust::default(),
        service: Service::on(Listen::Unix("tidelock.sock".into())),
        adapters_dir: None,
        data_dir,
    }
}
