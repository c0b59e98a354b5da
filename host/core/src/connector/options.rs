//! The options of a store.

use crate::snapshot::Progress;

/// How to store.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// The route; the default one if there is none here.
    pub route: Option<String>,
    /// A name for people, by which the snapshot can be found. A later snapshot of the same name takes it over.
    pub name: Option<String>,
    /// Store the bytes as they are, so that the object is of use to others too. Snapshots are stored so in any case
    /// as yet.
    pub raw: bool,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
}
