//! How much a catalogue holds.

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots.
    pub snapshots: u64,
    /// The sum of their logical bytes.
    pub logical_bytes: u64,
    /// Stores under way, or left by a crash.
    pub intents: u64,
    /// What each backend holds, by name.
    pub backends: Vec<BackendStats>,
}

/// How much one backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendStats {
    /// The backend.
    pub backend: String,
    /// Objects in any state.
    pub placements: u64,
    /// Objects that were found to be missing or damaged.
    pub bad: u64,
    /// Objects that may be missing or damaged.
    pub suspect: u64,
    /// The sum of their bytes.
    pub stored_bytes: u64,
}
