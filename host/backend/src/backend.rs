//! The trait [`Backend`].

use futures::future::BoxFuture;

use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Features, Health, InventoryPage, ObjectId, ObjectStat, Receipt, Result,
};

use crate::Upload;

/// A place that stores objects: sequences of bytes that never change, each under a name that the backend chooses.
///
/// Guarantees of every implementation:
/// - An object is visible whole or not at all, and durable when [`put`](Self::put) returns.
/// - A body that ends without an error is complete. Whatever cuts it short ends it in an error.
/// - Every operation but `put` may be called again at any time, and has the same effect once or often.
/// - Dropping a future or a body gives the operation up. A put that was given up may still have stored its object.
///
/// Errors that a backend caused carry its name ([`tidelock_types::Error::backend`]). Those without a name come from the
/// caller's side, for example from the source of an upload, and no other backend would do better.
///
/// Futures are boxed, since only so can a backend be a trait object; each layer costs one allocation and about a
/// microsecond for an operation, which is far below the cost of any request.
pub trait Backend: Send + Sync {
    /// The name that the configuration gives it.
    fn name(&self) -> &str;

    /// Returns the features that it has now. They may change between operations when its adapter is replaced.
    fn info(&self) -> BackendInfo;

    /// Stores an object. Returns when it is durable and visible.
    ///
    /// Opens an attempt of the upload with [`Upload::attempt`], and another one only if the first has failed and the
    /// upload [is replayable](Upload::is_replayable).
    ///
    /// # Errors
    /// Those of the source of the bytes; what the backend says; its limits and deadlines. The object may have been stored
    /// all the same unless the kind of the error rules that out.
    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>>;

    /// Reads an object, or the part of it that lies within `range`. Whole objects are read if there is no range, which
    /// notices one that is longer than it should be. An empty range is answered without asking.
    ///
    /// The body has the bytes as they are stored: the caller checks them, and calls [`report`](Self::report) if they are
    /// not what was stored. It survives a replacement of the adapter, at the byte where that interrupted it.
    ///
    /// # Errors
    /// `not-found`; `archived` for an object in cold storage; `invalid` for a range that begins past the end; what the
    /// backend says. The body may end in any of them.
    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>>;

    /// Describes an object without reading it.
    ///
    /// # Errors
    /// `not-found`; what the backend says.
    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>>;

    /// Deletes an object. Succeeds if there is none.
    ///
    /// # Errors
    /// What the backend says.
    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>>;

    /// Lists at most `limit` objects, from the beginning or from the `next` of an earlier page on. A page may be empty
    /// although there are more.
    ///
    /// # Errors
    /// `unsupported` if it [has no inventory](BackendInfo::inventory); what the backend says.
    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>>;

    /// Asks that an object in cold storage become readable for `days` days. May cost money.
    ///
    /// # Errors
    /// `unsupported` if it [has no archive](BackendInfo::archive); what the backend says.
    fn restore<'a>(&'a self, id: &'a ObjectId, days: u32) -> BoxFuture<'a, Result<ArchiveState>>;

    /// Asks whether it would serve now.
    ///
    /// # Errors
    /// What the backend says.
    fn health(&self) -> BoxFuture<'_, Result<Health>>;

    /// Returns the balances of its account.
    ///
    /// # Errors
    /// `unsupported` if it [has no account](BackendInfo::account); what the backend says.
    fn balance(&self) -> BoxFuture<'_, Result<AccountState>>;

    /// Opens an object that is a file of this machine, to be read in place: as [`get`](Self::get), its bytes are unproven.
    /// Returns `None` if it is none, or cannot be opened now. Blocks for a moment.
    fn local_file(&self, id: &ObjectId) -> Option<std::fs::File> {
        let _ = id;
        None
    }

    /// Takes note that the bytes of a [`get`](Self::get) were not what was stored, as only the caller can find out.
    /// Returns at once.
    fn report(&self, id: &ObjectId, error: &tidelock_types::Error);
}

/// The optional features of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its features for objects: ranges, lineage, labels.
    pub features: Features,
    /// Whether it can list its objects.
    pub inventory: bool,
    /// Whether it can restore objects from cold storage.
    pub archive: bool,
    /// Whether it has an account with a balance.
    pub account: bool,
}

/// An operation of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Backend::put`].
    Put,
    /// [`Backend::get`].
    Get,
    /// [`Backend::stat`].
    Stat,
    /// [`Backend::delete`].
    Delete,
    /// [`Backend::list`].
    List,
    /// [`Backend::restore`].
    Restore,
    /// [`Backend::health`].
    Health,
    /// [`Backend::balance`].
    Balance,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Put, Self::Get, Self::Stat, Self::Delete, Self::List, Self::Restore, Self::Health, Self::Balance];

    /// Its name in traces and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Stat => "stat",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Restore => "restore",
            Self::Health => "health",
            Self::Balance => "balance",
        }
    }
}
