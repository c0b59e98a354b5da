//! The SDK for storage adapters of Tidelock.
//!
//! An adapter is one type that implements [`Adapter`], exported by [`export_adapter!`]. It decides what to ask
//! of which backend; the host holds the sockets, the keys and the bytes.
//!
//! ```
//! use tidelock_sdk::directory::{Directory, WriteOptions};
//! use tidelock_sdk::*;
//!
//! const OBJECTS: Directory = Directory::granted("objects");
//!
//! struct Plain;
//!
//! impl Adapter for Plain {
//!     fn describe() -> Description {
//!         Description::new("plain", env!("CARGO_PKG_VERSION"), "Keeps objects as files.")
//!             .with_features(Features::RANGES | Features::UNSIZED_INPUT)
//!     }
//!
//!     async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
//!         let options = WriteOptions { size: hint.size, if_absent: true };
//!         let size = OBJECTS.write(&hint.key, data.forward(), options).await?;
//!         Ok(Receipt { id: hint.key, size })
//!     }
//!
//!     async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
//!         let (_, body) = OBJECTS.read(id.as_path()?, range).await?;
//!         Ok(body)
//!     }
//!
//!     async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
//!         let info = OBJECTS.stat(id.as_path()?).await?;
//!         Ok(ObjectStat { modified: info.modified, ..ObjectStat::of_size(info.size) })
//!     }
//!
//!     async fn remove(id: ObjectId) -> Result<(), Error> {
//!         OBJECTS.remove(id.as_path()?).await
//!     }
//!
//!     async fn probe() -> Result<Health, Error> {
//!         OBJECTS.list("", None, 1).await?;
//!         Ok(Health::ready("the directory answers"))
//!     }
//! }
//!
//! export_adapter!(Plain);
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`adapter`] | the traits, and their connection to the component's exports |
//! | [`body`] | streams of bytes, and their results |
//! | [`error`] | errors, and the mapping of HTTP replies |
//! | [`ids`] | checks of ids, keys and paths |
//! | [`metadata`] | base and labels in headers that a store keeps beside an object |
//! | [`settings`](mod@settings) | settings, declared and read in one place |
//! | [`directory`] [`bucket`] [`http`] [`digest`] [`digest_stream`] [`log`] [`clock`] [`entropy`] [`grants`] [`timer`] [`piece_digests`] | the capabilities |
//!
//! The crate is built for `wasm32-unknown-unknown`. It also compiles for the machine's own target, where the
//! capabilities are absent (calling one panics), so that what an adapter computes can be tested by `cargo test`.

pub mod adapter;
pub mod bindings;
pub mod body;
mod capabilities;
pub mod error;
pub mod ids;
pub mod metadata;
pub mod settings;
pub mod upcoming;

pub use adapter::{Account, Adapter, Archive, Exported, Inventory};
pub use bindings::accounting::exports::tidelock::storage::account::AccountState;
pub use bindings::listing::exports::tidelock::storage::inventory::{Entry as InventoryEntry, Page as InventoryPage};
pub use bindings::tidelock::storage::types::{
    ArchiveState, ByteRange, Description, Features, Health, Label, ObjectStat, PaymentDue, RateLimit, Receipt,
    StoreHint,
};
pub use body::{Body, BodyWriter, Data};
pub use capabilities::{
    bucket, clock, digest, digest_stream, directory, entropy, grants, http, log, piece_digests, timer,
};
pub use error::Error;
pub use ids::ObjectId;

impl Description {
    /// A description without features and settings. `name` is lower-case letters, digits and `-`; `summary` one line.
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            summary: summary.into(),
            features: Features::empty(),
            settings: Vec::new(),
        }
    }

    /// The same with these features.
    #[must_use]
    pub fn with_features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// The same with these settings: the `specs()` of what [`settings!`] declared.
    #[must_use]
    pub fn with_settings(self, settings: Vec<settings::SettingSpec>) -> Self {
        Self { settings, ..self }
    }
}

impl ObjectStat {
    /// What is said of an object of which only the size, in bytes, is known.
    pub fn of_size(size: u64) -> Self {
        Self { size, base: None, archive: None, modified: None, labels: Vec::new() }
    }
}

impl Health {
    /// A backend that would serve now.
    pub fn ready(detail: &str) -> Self {
        Self { ready: true, detail: detail.into() }
    }

    /// A backend that answers, but would not serve now.
    pub fn not_ready(detail: &str) -> Self {
        Self { ready: false, detail: detail.into() }
    }
}
