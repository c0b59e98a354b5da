//! Tidelock: a storage connector for schedulers of agents and virtual machines. Its backends are sandboxed WebAssembly
//! components that can be swapped while the process runs; its host is native Rust.
//!
//! > The adapter steers, the host hauls.
//!
//! A [`Host`] stores images and returns them. An adapter in the sandbox decides which requests its backend gets; the host
//! does sockets, files, credentials, hashing and verification.
//!
//! ```no_run
//! use tidelock::{Host, NoSecrets, Source, StoreOptions, config::Config};
//!
//! # async fn run() -> tidelock::Result<()> {
//! let host = Host::start(&Config::embedded_default("tidelock-data"), &NoSecrets).await?;
//! let first = host.store(Source::open("vm.img").await?, StoreOptions::default()).await?;
//! // ... the machine runs on and its image changes ...
//! let second = host.update(first.id, Source::open("vm.img").await?, StoreOptions::default()).await?;
//! let image = host.open(second.id).await?;
//! let mut boot_sector = [0; 512];
//! image.read_at(0, &mut boot_sector).await?;
//! let whole = image.stream(None).await?;
//! println!("{} bytes come from {}", whole.size, whole.source);
//! host.swap("local", std::fs::read("fs.wasm").expect("a component")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The library has no globals, reads no environment variables and starts no runtime: call it from any Tokio runtime that
//! has I/O and time. Credentials come through [`Secrets`]. Several hosts can live in one process.
//!
//! The modules, lowest first (a module imports only lower ones; `docs/ARCHITECTURE.md` has the reasons): [`types`], then
//! [`snapshot`], [`catalogue`] and [`config`], then [`capabilities`] and [`backend`], then [`runtime`], [`hot`] and [`sealed`], then
//! [`connector`], whose public interface is re-exported here. The crate `tidelock-server` serves it over HTTP.

pub mod builtin;
pub mod catalogue;
pub mod config;
pub mod connector;
pub mod hot;
pub mod sealed;
pub mod snapshot;

pub use tidelock_backend as backend;
pub use tidelock_capabilities as capabilities;
pub use tidelock_runtime as runtime;
pub use tidelock_types as types;

pub use connector::{
    AdapterDir, AdapterDirEvent, AdapterDirOutcome, AdapterInfo, BadPlacement, ChainStat, ColdPlacement, ColdStorage,
    CopiedOut, Delta, FailedBackend, GcOptions, GcProgress, GcReport, GcStep, GrantPreflight, Host, HostOptions,
    HotStats, Image, ImportOptions, ImportProgress, ImportStep, Imported, ImportedSnapshot, JobCounts, JobOutcome,
    JobOverview, JobPage, JobReport, LeftAlone, LeftBehind, LeftState, LimitPreflight, MOST_LISTED, MadeObject,
    NeedPreflight, NoSecrets, PlacementInfo, PlacementStat, Preflight, RebaseReport, Removed, RepairReport, Retrieved,
    Room, RunOptions, ScrubOptions, ScrubReport, Secrets, SnapshotStat, StoreBase, StoreOptions, Stored, Verification,
    inspect, preflights,
};
pub use snapshot::{Extent, ExtentKind, Source};
pub use types::{Body, ByteRange, Error, ErrorKind, Result, SnapshotId};
