//! Conversion of the tree to [`Config`], with the checks across its parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeValue;
use url::Url;

use super::encryption::encryption;
use super::hot::hot;
use super::jobs::{jobs, rebase, scrub};
use super::limits::limits;
use super::read::{Item, TomlTable, check_name, document, map, path, switch};
use super::routes::{default_route, route};
use super::service::service;
use super::swap::swap;
use super::trust::{signed_by, trust};
use super::{
    AdapterSource, BackendConfig, BucketGrant, Config, Cost, CredentialRef, DEFAULT_DATA_DIR, DEFAULT_ROUTE,
    DirectoryGrant, Grants, HttpCredentials, HttpGrant, Jobs, MAX_RESTORE_DAYS, Proxy, RESTORE_DAYS, Rebase, Scrub,
    Swap, Tier, Trust,
};
use crate::types::{Error, LimitOverrides, Result, SettingValue};

pub(super) fn parse(text: &str, directory: &Path) -> Result<Config> {
    document(text, |root| {
        Reader { directory }.config(root.only(&[
            "data_dir",
            "adapters_dir",
            "backends",
            "routes",
            "hot",
            "trust",
            "service",
            "jobs",
            "scrub",
            "encryption",
            "rebase",
        ])?)
    })
}

struct Reader<'d> {
    directory: &'d Path,
}

impl Reader<'_> {
    fn config(&self, root: TomlTable<'_>) -> Result<Config> {
        let data_dir = match root.get("data_dir") {
            Some(item) => self.path(&item)?,
            None => self.directory.join(DEFAULT_DATA_DIR),
        };
        let adapters_dir = root.get("adapters_dir").map(|item| self.path(&item)).transpose()?;
        let example = "a table such as [backends.local] with `adapter = \"fs\"`";
        let named = root.need("backends", example)?;
        let trust = root.get("trust").map_or(Ok(Trust::default()), |item| trust(&item))?;
        let backends = map(&named, |item| self.backend(item, &trust))?;
        if backends.is_empty() {
            return Err(named.wrong("must hold at least one backend").hint(format!("write {example}")));
        }
        let has_hot = root.get("hot").is_some();
        let mut routes = match root.get("routes") {
            Some(item) => map(&item, |item| route(item, &backends, has_hot))?,
            None => BTreeMap::new(),
        };
        if !routes.contains_key(DEFAULT_ROUTE) {
            routes.insert(DEFAULT_ROUTE.to_owned(), default_route(&named, &backends)?);
        }
        let hot = root.get("hot").map(|item| hot(&item, self.directory, &data_dir, &backends)).transpose()?;
        let service = service(root.get("service"), self.directory)?;
        let jobs = root.get("jobs").map_or(Ok(Jobs::default()), |item| jobs(&item))?;
        let scrub = root.get("scrub").map_or(Ok(Scrub::default()), |item| scrub(&item))?;
        let rebase = root.get("rebase").map_or(Ok(Rebase::default()), |item| rebase(&item))?;
        let encryption = root
            .get("encryption")
            .map(|item| encryption(&item, |item, table| self.credential(item, table)))
            .transpose()?;
        let sealed = backends.iter().find(|(_, backend)| backend.encrypted == Some(true));
        if let (None, Some((name, _))) = (&encryption, sealed) {
            return Err(named
                .wrong(format_args!("asks for encryption in `{name}`, and there is no table `encryption`"))
                .hint("add `[encryption]` with `key = { file = \"tidelock.key\" }`"));
        }
        Ok(Config { data_dir, adapters_dir, backends, routes, hot, trust, service, jobs, scrub, rebase, encryption })
    }

    fn backend(&self, item: &Item<'_>, trust: &Trust) -> Result<BackendConfig> {
        let table = item.table(&[
            "adapter",
            "digest",
            "signed_by",
            "tier",
            "settings",
            "grants",
            "limits",
            "cost",
            "swap",
            "restore_days",
            "encrypted",
        ])?;
        let adapter = table.need("adapter", "`adapter = \"fs\"`, or the path of a component")?;
        let settings = match table.get("settings") {
            Some(item) => settings(&item)?,
            None => BTreeMap::new(),
        };
        Ok(BackendConfig {
            adapter: self.adapter(&adapter)?,
            digest: table.get("digest").map(|item| item.parsed(sha256)).transpose()?,
            signed_by: table.get("signed_by").map_or(Ok(Vec::new()), |item| signed_by(&item, trust))?,
            tier: table.get("tier").map_or(Ok(Tier::Warm), |item| tier(&item))?,
            settings,
            grants: table.get("grants").map_or(Ok(Grants::default()), |item| self.grants(&item))?,
            limits: table.get("limits").map_or(Ok(LimitOverrides::default()), |item| limits(&item))?,
            cost: table.get("cost").map_or(Ok(Cost::default()), |item| cost(&item))?,
            swap: table.get("swap").map_or(Ok(Swap::default()), |item| swap(&item))?,
            restore_days: table.get("restore_days").map_or(Ok(RESTORE_DAYS), |item| item.count(MAX_RESTORE_DAYS))?,
            encrypted: flag(&table, "encrypted")?,
        })
    }

    /// A name, or a path if it has a slash or ends in `.wasm`.
    fn adapter(&self, item: &Item<'_>) -> Result<AdapterSource> {
        let text = item.text()?;
        if text.contains('/') || text.ends_with(".wasm") {
            return Ok(AdapterSource::File(self.path(item)?));
        }
        item.parsed(|text| check_name(text).map(|()| AdapterSource::BuiltIn(text.to_owned())))
    }

    fn grants(&self, item: &Item<'_>) -> Result<Grants> {
        let table = item.table(&["directory", "bucket", "http"])?;
        Ok(Grants {
            directory: table.get("directory").map_or(Ok(BTreeMap::new()), |i| map(&i, |i| self.directory(i)))?,
            bucket: table.get("bucket").map_or(Ok(BTreeMap::new()), |i| map(&i, |i| self.bucket(i)))?,
            http: table.get("http").map_or(Ok(BTreeMap::new()), |i| map(&i, |i| self.http(i)))?,
        })
    }

    fn directory(&self, item: &Item<'_>) -> Result<DirectoryGrant> {
        let table = item.table(&["path", "nfs", "mount_port"])?;
        match (table.get("path"), table.get("nfs"), table.get("mount_port")) {
            (Some(path), None, None) => Ok(DirectoryGrant::Path(self.path(&path)?)),
            (None, Some(nfs), port) => Ok(DirectoryGrant::Nfs {
                url: nfs.parsed(|text| nfs_url(text).map(|()| text.to_owned()))?,
                mount_port: port.map(|item| item.count(u16::MAX.into())).transpose()?.map(|port| port as u16),
            }),
            _ => Err(item
                .wrong("must have either `path`, or `nfs` and optionally `mount_port`")
                .hint("write { path = \"objects\" } or { nfs = \"nfs://host/export\" }")),
        }
    }

    fn bucket(&self, item: &Item<'_>) -> Result<BucketGrant> {
        let table = item.table(&[
            "endpoint",
            "region",
            "bucket",
            "prefix",
            "prefix_without_slash",
            "path_style",
            "credentials",
            "conditional_writes",
            "checksums",
            "largest_part",
            "private_addresses",
            "proxy",
            "ca_file",
        ])?;
        let name = table.need("bucket", "`bucket = \"its-name\"`")?;
        if name.text()?.is_empty() || name.text()?.contains('/') {
            return Err(name
                .wrong("must be the bucket's name only")
                .hint("put the part after the slash into `prefix`"));
        }
        let text = |key| table.get(key).map(|item: Item<'_>| item.text().map(str::to_owned)).transpose();
        Ok(BucketGrant {
            endpoint: table.get("endpoint").map(|item| item.parsed(endpoint)).transpose()?,
            region: text("region")?.unwrap_or_else(|| "us-east-1".to_owned()),
            bucket: name.text()?.to_owned(),
            prefix: text("prefix")?.unwrap_or_default(),
            prefix_without_slash: switch(&table, "prefix_without_slash")?,
            path_style: switch(&table, "path_style")?,
            credentials: match table.get("credentials") {
                Some(item) => Some(self.credential(&item, &item.table(&["env", "file"])?)?),
                None => None,
            },
            conditional_writes: flag(&table, "conditional_writes")?,
            checksums: flag(&table, "checksums")?,
            largest_part: table.get("largest_part").map(|item| part(&item)).transpose()?,
            private_addresses: flag(&table, "private_addresses")?.unwrap_or(true),
            proxy: table.get("proxy").map_or(Ok(Proxy::default()), |item| proxy(&item))?,
            ca_file: table.get("ca_file").map(|item| self.path(&item)).transpose()?,
        })
    }

    fn http(&self, item: &Item<'_>) -> Result<HttpGrant> {
        let table = item.table(&["origins", "private_addresses", "credentials", "proxy", "ca_file"])?;
        let origins = table.need("origins", "`origins = [\"https://api.example\"]`")?.array()?;
        Ok(HttpGrant {
            origins: origins.iter().map(|item| item.parsed(origin)).collect::<Result<_>>()?,
            private_addresses: switch(&table, "private_addresses")?,
            credentials: match table.get("credentials") {
                Some(item) => {
                    let table = item.table(&["header", "env", "file"])?;
                    let header = table.need("header", "`header = \"authorization\"`")?;
                    Some(HttpCredentials {
                        header: header.parsed(header_name)?,
                        value: self.credential(&item, &table)?,
                    })
                }
                None => None,
            },
            proxy: table.get("proxy").map_or(Ok(Proxy::default()), |item| proxy(&item))?,
            ca_file: table.get("ca_file").map(|item| self.path(&item)).transpose()?,
        })
    }

    fn credential(&self, item: &Item<'_>, table: &TomlTable<'_>) -> Result<CredentialRef> {
        match (table.get("env"), table.get("file")) {
            (Some(env), None) => Ok(CredentialRef::Env(env.parsed(variable)?)),
            (None, Some(file)) => Ok(CredentialRef::File(self.path(&file)?)),
            _ => Err(item
                .wrong("must have either `env` or `file`")
                .hint("name the environment variable or the file that contains the secret, not the secret itself")),
        }
    }

    fn path(&self, item: &Item<'_>) -> Result<PathBuf> {
        path(item, self.directory)
    }
}

fn flag(table: &TomlTable<'_>, key: &'static str) -> Result<Option<bool>> {
    table.get(key).map(|item| item.boolean()).transpose()
}

/// The parts that S3 takes.
fn part(item: &Item<'_>) -> Result<u64> {
    let bytes = item.bytes()?;
    match (5 << 20..=5 << 30).contains(&bytes) {
        true => Ok(bytes),
        false => Err(item.wrong("must be from 5 MiB to 5 GiB")),
    }
}

/// The URL of a proxy, or `none`. Secrets are not written here, so it has neither user nor password.
fn proxy(item: &Item<'_>) -> Result<Proxy> {
    let text = item.text()?;
    if text == "none" {
        return Ok(Proxy::Direct);
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let wrong = |what: &str| item.wrong(what).hint("write \"http://proxy.example:3128\", or \"none\" for no proxy");
    match url {
        None => Err(wrong("must be the URL of a proxy, with http:// or https://")),
        Some(url) if !url.username().is_empty() || url.password().is_some() => Err(item
            .wrong("must not contain a user or a password")
            .hint("put the URL with them into the environment variable HTTPS_PROXY")),
        Some(url) if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => {
            Err(wrong("must have no path"))
        }
        Some(_) => Ok(Proxy::Url(text.to_owned())),
    }
}

fn settings(item: &Item<'_>) -> Result<BTreeMap<String, SettingValue>> {
    let value = |item: &Item<'_>| match item.value() {
        DeValue::String(_) => Ok(SettingValue::Text(item.text()?.to_owned())),
        DeValue::Integer(_) => Ok(SettingValue::Integer(item.integer()?)),
        DeValue::Boolean(value) => Ok(SettingValue::Boolean(*value)),
        _ => Err(item.wrong("must be a string, an integer, `true` or `false`")),
    };
    item.names()?.entries().map(|(name, item)| Ok((name.to_owned(), value(&item)?))).collect()
}

fn tier(item: &Item<'_>) -> Result<Tier> {
    match item.text()? {
        "hot" => Ok(Tier::Hot),
        "warm" => Ok(Tier::Warm),
        "cold" => Ok(Tier::Cold),
        _ => Err(item.wrong("must be \"hot\", \"warm\" or \"cold\"")),
    }
}

fn cost(item: &Item<'_>) -> Result<Cost> {
    let table = item.table(&["storage_gb_month", "egress_gb"])?;
    Ok(Cost {
        storage_gb_month: table.get("storage_gb_month").map(|item| item.amount()).transpose()?,
        egress_gb: table.get("egress_gb").map(|item| item.amount()).transpose()?,
    })
}

fn sha256(text: &str) -> Result<[u8; 32]> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap_or_default();
    <[u8; 32]>::try_from(bytes)
        .map_err(|_| Error::invalid("it is not a SHA-256 digest").hint("write \"sha256:\" and 64 hexadecimal digits"))
}

fn web(text: &str) -> Result<Url> {
    let hint = "write scheme, host and port, as in \"https://api.example\" or \"http://127.0.0.1:9000\"";
    let url = Url::parse(text).map_err(|error| Error::invalid(format!("it is not a URL: {error}")).hint(hint))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Error::invalid("it is not an http or https URL").hint(hint));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid("it contains a user name or password").hint("use `credentials`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Error::invalid("it has a query or a fragment").hint(hint));
    }
    Ok(url)
}

fn origin(text: &str) -> Result<String> {
    let url = web(text)?;
    if url.path() != "/" {
        return Err(Error::invalid("it has a path").hint("an origin is scheme, host and port only"));
    }
    Ok(url.origin().ascii_serialization())
}

fn endpoint(text: &str) -> Result<String> {
    web(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
}

fn nfs_url(text: &str) -> Result<()> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "nfs" && url.has_host() && url.path().len() > 1 => Ok(()),
        _ => Err(Error::invalid("it is not an NFS URL").hint("write \"nfs://host:2049/export\"")),
    }
}

fn header_name(text: &str) -> Result<String> {
    http::HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| Error::invalid("it is not the name of a header").hint("write \"authorization\""))
}

fn variable(text: &str) -> Result<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits && !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(Error::invalid("it is not the name of an environment variable").hint("give the variable's name, not its value"))
}
