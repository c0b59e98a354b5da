//! The container of a backend: whether it is the one that snapshots were stored into.

use super::Host;
use crate::types::{Error, Result};

/// What it means that a backend does not have an object.
#[expect(dead_code, reason = "identities of containers follow")]
pub(super) enum Absence {
    /// The object is missing.
    Object,
    /// The container is another one, or cannot be asked. Says nothing about the object.
    Container(Error),
    /// Nothing is known of the container.
    Unknown,
}

impl Host {
    /// Finds out what it means that a backend does not have an object.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn absence(&self, _backend: &str) -> Result<Absence> {
        Ok(Absence::Unknown)
    }
}
