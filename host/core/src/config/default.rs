//! The configuration that is used without a file, and the equivalent file that `tidelock init` writes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{
    Ack, AdapterSource, BackendConfig, Config, Cost, DEFAULT_ENCODING, DEFAULT_ROUTE, DirectoryGrant, Grants, Jobs,
    Listen, PackProfile, RESTORE_DAYS, Rebase, Route, Scrub, Service, Swap, Tier, Trust,
};
use crate::types::LimitOverrides;

/// Returns the text of a configuration that is equivalent to [`Config::embedded_default`] and documents every key.
///
/// Comments begin with `# `; a `#` without a space after it hides an example that can be used unchanged.
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
        encrypted: None,
    };
    let route = Route {
        backends: vec![name.clone()],
        copies: 1,
        ack: Ack::Remote,
        encoding: DEFAULT_ENCODING,
        profile: PackProfile::default(),
    };
    Config {
        backends: BTreeMap::from([(name, backend)]),
        routes: BTreeMap::from([(DEFAULT_ROUTE.to_owned(), route)]),
        hot: None,
        trust: Trust::default(),
        service: Service::on(Listen::Unix("tidelock.sock".into())),
        jobs: Jobs::default(),
        scrub: Scrub::default(),
        encryption: None,
        rebase: Rebase::default(),
        adapters_dir: None,
        data_dir,
    }
}
