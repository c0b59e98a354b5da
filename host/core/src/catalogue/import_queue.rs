//! The list of objects that an import works through, in the order in which they were stored. It may be longer than memory.
//!
//! A queue belongs to one import and is gone when it is dropped, however the process ends. Nothing in it is worth a sync:
//! an import that was cut short lists its backend again.

use futures::future::BoxFuture;

use crate::types::{InventoryEntry, ObjectId, Result};

/// One object of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportItem {
    /// Its place in the order, from 1.
    pub number: u64,
    /// The backend's name for it.
    pub object: ObjectId,
    /// Its bytes, if it was listed and not named.
    pub size: Option<u64>,
    /// Time of the store (seconds since 1970-01-01 UTC), if the backend reports it.
    pub modified: Option<u64>,
}

/// The work of one import. Either [`add`](Self::add) what is listed and then [`sort`](Self::sort), or
/// [`name`](Self::name) objects; then read pages.
///
/// Every operation fails with what its database says, most often that its disk is full; drop the queue then.
pub trait ImportQueue: Send + Sync {
    /// Adds objects that were listed; one that is there already stays as it is. Returns how many are new.
    fn add(&self, entries: Vec<InventoryEntry>) -> BoxFuture<'_, Result<usize>>;

    /// Puts what was listed into order: oldest first, what says no time before all. Among objects of one second the last
    /// part of the name decides, since hosts put their keys there, which begin with the time.
    fn sort(&self) -> BoxFuture<'_, Result<()>>;

    /// Those of some objects that were not listed. For a list that was [sorted](Self::sort).
    fn lacks(&self, objects: Vec<ObjectId>) -> BoxFuture<'_, Result<Vec<ObjectId>>>;

    /// Adds objects that the caller named, in the caller's order.
    fn name(&self, objects: Vec<ObjectId>) -> BoxFuture<'_, Result<()>>;

    /// How many items there are.
    fn count(&self) -> BoxFuture<'_, Result<u64>>;

    /// At most `limit` items after the one of this number, in order.
    fn page(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<ImportItem>>>;

    /// Notes that the base of an item is known by its backend's name alone.
    fn defer_bases(&self, bases: Vec<(u64, ObjectId)>) -> BoxFuture<'_, Result<()>>;

    /// At most `limit` of the items for which that was noted, after the one of this number: number, object and base.
    fn deferred_bases(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<(u64, ObjectId, ObjectId)>>>;
}
