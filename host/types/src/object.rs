//! Objects as values: hints for a store, receipts, and descriptions of adapters.

use super::{ArchiveState, ObjectId};

/// Properties of bytes that are about to be stored.
#[derive(Debug, Clone, Default)]
pub struct StoreHint {
    /// A name that is unique in this host's life: lower-case letters, digits and `-`, at most 64 bytes.
    pub key: String,
    /// The exact number of bytes, if it is known.
    pub size: Option<u64>,
    /// Labels to keep with the object where the backend can.
    pub labels: Vec<(String, String)>,
}

/// Proof that an object is stored, durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its name from now on.
    pub id: ObjectId,
    /// Its bytes, as the backend counts them.
    pub size: u64,
}

/// Metadata of an object, obtained without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStat {
    /// Its bytes.
    pub size: u64,
    /// The object that it is a change against.
    pub base: Option<ObjectId>,
    /// Whether it can be read now; `None` means yes, for backends without archives.
    pub archive: Option<ArchiveState>,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
    /// The labels that were stored with it.
    pub labels: Vec<(String, String)>,
}

/// How a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it would serve requests now.
    pub ready: bool,
    /// For people.
    pub detail: String,
}

/// The balances of an account, in the smallest unit, as decimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// The wallet that pays, if there is one apart from the contract.
    pub wallet: Option<String>,
    /// The balance of the storage contract or the prepaid account.
    pub contract: Option<String>,
    /// The unit of both.
    pub unit: String,
    /// For how many seconds the contract pays at the present rate.
    pub runway_seconds: Option<u64>,
}

/// One object that a backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryEntry {
    /// Its name.
    pub id: ObjectId,
    /// Its bytes.
    pub size: u64,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
}

/// Some of the objects that a backend holds, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryPage {
    /// The objects.
    pub entries: Vec<InventoryEntry>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Features of an adapter beyond whole objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Features {
    /// Reads ranges.
    pub ranges: bool,
    /// Keeps the base of an object and returns it.
    pub lineage: bool,
    /// Stores bytes of unknown length.
    pub unsized_input: bool,
    /// Keeps labels and returns them.
    pub labels: bool,
}

/// The type of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingKind {
    /// A string.
    Text,
    /// A whole number that fits 64 bits with sign.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
}

impl SettingValue {
    /// The type of its value.
    pub fn kind(&self) -> SettingKind {
        match self {
            Self::Text(_) => SettingKind::Text,
            Self::Integer(_) => SettingKind::Integer,
            Self::Boolean(_) => SettingKind::Boolean,
        }
    }
}

/// A setting of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SettingSpec {
    /// Its name in the configuration.
    pub name: String,
    /// The kind of value.
    pub kind: SettingKind,
    /// Whether the adapter cannot work without it.
    pub required: bool,
    /// Its meaning and default.
    pub summary: String,
}

/// An adapter's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// Its name, for people.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// Its features.
    pub features: Features,
    /// Its settings.
    pub settings: Vec<SettingSpec>,
}
