//! Configuration: from the text of one TOML file to values with types.
//!
//! Nothing here reads files or the environment: the command line reads the file and passes its text and the directory
//! that relative paths belong to. A host that is embedded in another program makes a [`Config`] by hand, or starts from
//! [`Config::embedded_default`].
//!
//! Credentials never appear in the file: a grant names the environment variable or the file that holds them
//! ([`CredentialRef`]), and the embedding program resolves it.
//!
//! Unknown keys are errors, since a limit with a misspelt name is not a limit. Every error names line, column
//! and the path of the key. The tree is walked by hand (`read.rs`) rather than derived with serde, which loses positions
//! after parsing and cannot suggest the nearest key.

mod default;
mod encryption;
mod hot;
mod jobs;
mod limits;
mod packs;
mod parse;
mod read;
mod routes;
mod service;
mod swap;
mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::types::{Encoding, LimitOverrides, Result, SettingValue};

pub use default::commented_default;
pub use encryption::Encryption;
pub use hot::{HOT, Hot};
pub use jobs::{Jobs, Rebase, Scrub};
pub use service::{Listen, Service};
pub use swap::{Canary, Swap};
pub use trust::Trust;

/// The default data directory.
pub const DEFAULT_DATA_DIR: &str = "tidelock-data";

/// The route that is used if the caller names none.
pub const DEFAULT_ROUTE: &str = "default";
/// The default number of days that restored objects stay readable.
pub const RESTORE_DAYS: u32 = 3;
/// More than ten years is a slip of the hand, for which one would pay every day.
const MAX_RESTORE_DAYS: u32 = 3653;

/// The configuration of a host. Paths are absolute if the directory given to [`Config::parse`] was.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the catalogue, the cache and compiled components are.
    pub data_dir: PathBuf,
    /// A folder that the daemon watches for components; `None` watches none.
    pub adapters_dir: Option<PathBuf>,
    /// The backends by name; at least one.
    pub backends: BTreeMap<String, BackendConfig>,
    /// The routes by name; [`DEFAULT_ROUTE`] is always there, and all name backends that exist.
    pub routes: BTreeMap<String, Route>,
    /// The hot tier; `None`: there is none.
    pub hot: Option<Hot>,
    /// Whose components may be used.
    pub trust: Trust,
    /// The daemon.
    pub service: Service,
    /// How jobs are run.
    pub jobs: Jobs,
    /// How the daemon scrubs.
    pub scrub: Scrub,
    /// The keys that objects are sealed with; `None`: they are stored as they are.
    pub encryption: Option<Encryption>,
    /// How the daemon rebases.
    pub rebase: Rebase,
}

impl Config {
    /// Reads a configuration. Relative paths in it belong to `directory`.
    ///
    /// # Errors
    /// `invalid`, with line, column, the path of the key and a hint.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        parse::parse(text, directory)
    }

    /// Returns the configuration without a file: one backend `local`, which keeps objects in a folder of the data directory.
    pub fn embedded_default(data_dir: impl Into<PathBuf>) -> Self {
        default::embedded(data_dir.into())
    }
}

/// Where the component of an adapter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterSource {
    /// One that travels in the program, by name.
    BuiltIn(String),
    /// A file.
    File(PathBuf),
}

/// How warm a backend is. Shown, but without other effect yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Microseconds: the machine's own NVMe.
    Hot,
    /// Milliseconds to seconds.
    Warm,
    /// May have to be restored first, which takes hours.
    Cold,
}

/// A configured adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendConfig {
    /// The component.
    pub adapter: AdapterSource,
    /// The SHA-256 that the component must have.
    pub digest: Option<[u8; 32]>,
    /// The names of the keys of [`Trust::keys`] of which one must have signed the component, at the start and at every
    /// swap. Empty demands no signature.
    pub signed_by: Vec<String>,
    /// The tier; default `warm`.
    pub tier: Tier,
    /// The adapter's own settings; checked against its declaration when it is loaded.
    pub settings: BTreeMap<String, SettingValue>,
    /// Its grants.
    pub grants: Grants,
    /// What it may use.
    pub limits: LimitOverrides,
    /// What it costs.
    pub cost: Cost,
    /// How it changes its adapter.
    pub swap: Swap,
    /// For how many days objects that are restored from cold storage stay readable.
    pub restore_days: u32,
    /// Whether new objects are sealed; `None`: if [`Config::encryption`] is there.
    pub encrypted: Option<bool>,
}

/// The grants of one backend, by capability and by the name that the adapter uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories.
    pub directory: BTreeMap<String, DirectoryGrant>,
    /// Buckets.
    pub bucket: BTreeMap<String, BucketGrant>,
    /// Origins.
    pub http: BTreeMap<String, HttpGrant>,
}

/// A directory that an adapter may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryGrant {
    /// A folder of this machine.
    Path(PathBuf),
    /// An NFSv3 export.
    Nfs {
        /// `nfs://host[:port]/export`.
        url: String,
        /// The port of the mount protocol, if there is no port mapper.
        mount_port: Option<u16>,
    },
}

/// A bucket, or a part of one, that an adapter may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketGrant {
    /// Where the service is; `None` means AWS in `region`.
    pub endpoint: Option<String>,
    /// The region; default `us-east-1`.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix of all keys; may be empty.
    pub prefix: String,
    /// Whether objects in folders of two digits belong to a prefix that does not end in `/`; default false.
    pub prefix_without_slash: bool,
    /// Whether the bucket is named in the path rather than in the host name.
    pub path_style: bool,
    /// The signing keys; `None` sends requests unsigned.
    pub credentials: Option<CredentialRef>,
    /// Whether the service understands conditional writes; `None` finds out.
    pub conditional_writes: Option<bool>,
    /// Whether the service takes CRC-32C checksums; `None` finds out.
    pub checksums: Option<bool>,
    /// The largest part of an object whose size is not known in advance; `None` means 64 MiB.
    pub largest_part: Option<u64>,
    /// Whether the endpoint may be at an address that is not public; default true.
    pub private_addresses: bool,
    /// The proxy.
    pub proxy: Proxy,
    /// A file of certificates to trust instead of the operating system's.
    pub ca_file: Option<PathBuf>,
}

/// The proxy of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proxy {
    /// Whatever the environment of the program names, if it looks there ([`Secrets::proxies`](crate::Secrets::proxies)).
    #[default]
    Environment,
    /// None, whatever the environment has.
    Direct,
    /// This URL, for everything.
    Url(String),
}

/// Origins that an adapter may send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// Scheme, host and port, for example `https://api.example` or `http://127.0.0.1:5001`; at least one.
    pub origins: Vec<String>,
    /// Whether these may resolve to private, loopback and link-local addresses.
    pub private_addresses: bool,
    /// A header that the host adds to every request.
    pub credentials: Option<HttpCredentials>,
    /// The proxy.
    pub proxy: Proxy,
    /// A file of certificates to trust instead of the operating system's.
    pub ca_file: Option<PathBuf>,
}

/// A secret in a request header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCredentials {
    /// The name of the header, in lower case.
    pub header: String,
    /// Where its value is.
    pub value: CredentialRef,
}

/// Where a secret is. Never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialRef {
    /// In the environment. For a bucket, `CLOUD` means the variables `CLOUD_ACCESS_KEY_ID`, `CLOUD_SECRET_ACCESS_KEY` and,
    /// if there is one, `CLOUD_SESSION_TOKEN`; for a header, the variable itself.
    Env(String),
    /// In a file.
    File(PathBuf),
}

/// The cost of a backend, in one currency for all backends. Shown with the backend. Of several copies in cold storage, the
/// one that costs least to read is restored; so are copies read that no entry of the default route names.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Cost {
    /// For 1 GB (10^9 bytes) kept for a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_gb_month: Option<f64>,
    /// For 1 GB read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_gb: Option<f64>,
}

/// How images without a base are stored where a route does not say.
pub(crate) const DEFAULT_ENCODING: Encoding = Encoding::Raw;

/// Where snapshots go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The primary, then the secondaries; at least one, none twice.
    pub backends: Vec<String>,
    /// Copies of each snapshot: 1 to the number of backends.
    pub copies: u32,
    /// When a store is done.
    pub ack: Ack,
    /// How images without a base are stored: `pages`, compressed, on backends that take packs; or as they are.
    pub encoding: Encoding,
    /// What packs are made for.
    pub profile: PackProfile,
}

/// What packs are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PackProfile {
    /// Few bytes.
    #[default]
    Compact,
    /// Cheap reads of single pages.
    Random,
}

impl PackProfile {
    /// The text in a configuration and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Random => "random",
        }
    }
}

/// When a store is done. Copies that it does not wait for are made by jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Once it is durable in the hot tier; without one, as [`Self::Remote`]. The configuration refuses it without one.
    Local,
    /// Once every copy of the route is durable on its backend.
    Remote,
    /// Once this number of backends have it, at most the route's copies.
    Copies(u32),
}

impl Ack {
    /// How many of the copies of a route a store waits for.
    pub fn waits_for(self, copies: u32) -> u32 {
        match self {
            Self::Local | Self::Remote => copies,
            Self::Copies(count) => count.clamp(1, copies.max(1)),
        }
    }
}

#[cfg(test)]
mod default_tests;
#[cfg(test)]
mod grant_tests;
#[cfg(test)]
mod tests;
