//! The tables `routes`: which backends take what is stored, and when it is acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use super::packs::{encoding, profile};
use super::read::{Item, list, nearest};
use super::{
    Ack, BackendConfig, BucketGrant, DEFAULT_ENCODING, DEFAULT_ROUTE, DirectoryGrant, Grants, PackProfile, Route,
};
use crate::types::Result;

/// A table of `routes`.
pub(super) fn route(item: &Item<'_>, known: &BTreeMap<String, BackendConfig>, has_hot: bool) -> Result<Route> {
    let table = item.table(&["backends", "copies", "ack", "encoding", "profile"])?;
    let mut backends: Vec<String> = Vec::new();
    for item in table.need("backends", "`backends = [\"local\"]`")?.array()? {
        let name = item.text()?;
        if !known.contains_key(name) {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let near = nearest(name, &names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(item
                .wrong(format_args!("names `{name}`, which is not a backend{near}"))
                .hint(format!("use one of the backends {}", list(&names))));
        }
        if backends.iter().any(|other| other == name) {
            return Err(item.wrong(format_args!("names `{name}` twice")));
        }
        backends.push(name.to_owned());
    }
    let most = u32::try_from(backends.len()).unwrap_or(u32::MAX);
    let copies = table.get("copies").map_or(Ok(1), |item| {
        item.count(most).map_err(|error| error.hint("cannot be more than the route's backends"))
    })?;
    if copies > 1
        && let Some((one, other)) = same_container(&backends, known)
    {
        return Err(item
            .wrong(format_args!("has {copies} copies, but `{one}` and `{other}` store into the same place"))
            .hint("give each backend of the route a place of its own"));
    }
    let ack = table.get("ack").map_or(Ok(Ack::Remote), |item| ack(&item, copies, has_hot))?;
    let encoding = table.get("encoding").map_or(Ok(DEFAULT_ENCODING), |item| encoding(&item))?;
    let profile = table.get("profile").map_or(Ok(PackProfile::default()), |item| profile(&item))?;
    Ok(Route { backends, copies, ack, encoding, profile })
}

/// Two backends whose grants lead to one place: what is lost there is lost to both, so that two copies would be one.
fn same_container<'a>(
    backends: &'a [String],
    known: &BTreeMap<String, BackendConfig>,
) -> Option<(&'a String, &'a String)> {
    let places = |name: &String| known.get(name).map(|backend| places(&backend.grants)).unwrap_or_default();
    let pairs =
        backends.iter().enumerate().flat_map(|(at, one)| backends[at + 1..].iter().map(move |other| (one, other)));
    pairs.into_iter().find(|(one, other)| places(one).intersection(&places(other)).next().is_some())
}

/// The folders, exports and parts of buckets that grants lead to. An origin is none: several stores lie behind one.
fn places(grants: &Grants) -> BTreeSet<String> {
    let directories = grants.directory.values().map(|directory| match directory {
        // Where it is not there yet, it is compared as it is written.
        DirectoryGrant::Path(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.components().collect());
            format!("directory {}", path.display())
        }
        DirectoryGrant::Nfs { url, .. } => format!("export {}", url.trim_end_matches('/')),
    });
    let buckets = grants.bucket.values().map(|BucketGrant { endpoint, bucket, prefix, .. }| {
        let endpoint = endpoint.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("bucket {endpoint} {bucket} {}", prefix.trim_end_matches('/'))
    });
    directories.chain(buckets).collect()
}

/// When a store is done.
fn ack(item: &Item<'_>, copies: u32, has_hot: bool) -> Result<Ack> {
    Ok(match item.value() {
        DeValue::String(text) if text == "local" && !has_hot => {
            let error = item.wrong("cannot be \"local\": there is no local tier");
            return Err(error.hint("add a table [hot] with its `capacity`"));
        }
        DeValue::String(text) if text == "local" => Ack::Local,
        DeValue::String(text) if text == "remote" => Ack::Remote,
        DeValue::Integer(_) => {
            Ack::Copies(item.count(copies).map_err(|error| error.hint("cannot be more than `copies`"))?)
        }
        _ => return Err(item.wrong("must be \"local\", \"remote\" or a number of copies")),
    })
}

/// The route of a configuration that has none.
pub(super) fn default_route(named: &Item<'_>, backends: &BTreeMap<String, BackendConfig>) -> Result<Route> {
    let names: Vec<&str> = backends.keys().map(String::as_str).collect();
    if let [only] = names[..] {
        return Ok(Route {
            backends: vec![only.to_owned()],
            copies: 1,
            ack: Ack::Remote,
            encoding: DEFAULT_ENCODING,
            profile: PackProfile::default(),
        });
    }
    let quoted = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let error = named.wrong(format_args!("has {} entries, but [routes.{DEFAULT_ROUTE}] is missing", names.len()));
    Err(error.hint(format!("list them, the primary first: [routes.{DEFAULT_ROUTE}] and, below, backends = [{quoted}]")))
}
