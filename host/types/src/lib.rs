//! The vocabulary of the other crates: ids, ranges, bodies, receipts, errors. Depends on no other crate of the host.
//!
//! These are plain values. Nothing here opens a file or a socket or depends on WebAssembly: the bindings of an interface
//! version convert between these types and their own (`wit` of the runtime).

mod account;
mod blocking;
mod body;
pub mod durable;
mod encoding;
mod error;
pub mod files;
pub mod gather;
pub mod holes;
mod ids;
mod key;
pub mod limits;
mod object;
mod owned;
pub mod path;
mod platform;
mod range;
mod units;

pub use account::{Account, Charge, Unlimited};
pub use blocking::{Job, Stop, blocking, job, start_job};
pub use body::{Body, Passing, Stage};
pub use encoding::Encoding;
pub use error::{
    ArchiveState, Effect, Error, ErrorKind, Fault, Left, PaymentDue, Result, Retry, Subject, drives_terminal,
};
pub use ids::{InvalidId, ObjectId, PackId, SnapshotId};
pub use key::PublicKey;
pub use limits::{LimitExceeded, LimitOverrides, Limits};
pub use object::{
    AccountState, Description, Features, Health, InventoryEntry, InventoryPage, ObjectStat, Receipt, SettingKind,
    SettingSpec, SettingValue, StoreHint,
};
pub use owned::{owned_if_sparse, owned_if_sparse_of_http};
pub use platform::{Clock, Entropy, Platform};
pub use range::ByteRange;
pub use units::{format_bytes, format_duration, parse_bytes, parse_duration, position};
