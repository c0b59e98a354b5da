//! The container of a backend: the folder, bucket or account that its objects were stored into.
//!
//! An object in it, its *identity object*, shows that it is the same one as before: where that is missing too, a missing
//! object says nothing.

use crate::types::ObjectId;

/// The container of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The object that identifies it.
    pub object: ObjectId,
    /// When it was recorded (seconds since 1970-01-01 UTC).
    pub created: u64,
}
