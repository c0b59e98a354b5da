//! Owners of stores that are under way, their leases, and the intents that they leave.
//!
//! A store belongs to an *owner*: a running host that holds a lease. The lease expires unless it is renewed. Expiry alone
//! changes nothing; it gives others the right to end the lease ([`Catalogue::stale_intents`](super::Catalogue::stale_intents)
//! does). A lease that was ended never comes back: the owner takes a new one, with a greater token, and whatever still
//! carries the old token is refused ("fenced"). Ending and refusing are transactions of one database, so an owner that
//! stood still for any length of time, and does not know it, can record nothing that was cleaned up behind its back.

use std::fmt;

/// The fencing token of a lease: a number that only grows, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerToken(pub u64);

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease that has expired and was not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredOwner {
    /// The lease.
    pub token: OwnerToken,
    /// The name of its owner.
    pub name: String,
    /// When it expired (seconds since 1970-01-01 UTC). Another time is a renewal.
    pub expires: u64,
}

/// A store that was begun and neither committed nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The key under which the object was announced to the backend.
    pub key: String,
    /// On which backend.
    pub backend: String,
    /// The name of the owner that began it.
    pub owner: String,
    /// The lease under which it was begun. `None` for one that a version without leases wrote: whether its owner lives
    /// is then known by the owner's lock file alone.
    pub token: Option<OwnerToken>,
    /// When (seconds since 1970-01-01 UTC).
    pub started: u64,
}

impl Intent {
    /// Returns whether its owner has given it up, and lives as far as is known ([`Catalogue::abandon_intents`]).
    ///
    /// [`Catalogue::abandon_intents`]: super::Catalogue::abandon_intents
    pub fn is_given_up(&self) -> bool {
        // The token that no owner has.
        self.token == Some(OwnerToken(0))
    }
}
