//! Rows of the history of adapters. The catalogue does not know what the words in a row mean: it keeps their order and
//! gives generations their numbers.

/// One row of the history of a backend's adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapRow {
    /// What happened.
    pub event: String,
    /// The generation that serves from here on; `None` if nothing changed.
    pub generation: Option<u64>,
    /// The component's digest.
    pub digest: String,
    /// The adapter's name; empty if it is not known.
    pub adapter: String,
    /// The adapter's version.
    pub version: String,
    /// When (seconds since 1970-01-01 UTC).
    pub at: u64,
    /// Who did it.
    pub by: String,
    /// The digest that served before.
    pub previous: Option<String>,
    /// The stage that refused the component.
    pub stage: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// The digest of the component that the configuration named.
    pub configured: String,
}
