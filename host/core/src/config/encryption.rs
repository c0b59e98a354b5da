//! The table `encryption`: the keys that objects are sealed with.

use super::CredentialRef;
use super::read::{Item, TomlTable};
use crate::types::Result;

/// The keys that objects are sealed with before an adapter sees a byte of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Where the key of new objects is.
    pub key: CredentialRef,
    /// Where earlier keys are, which objects were sealed with.
    pub old_keys: Vec<CredentialRef>,
}

/// Reads the table; `credential` reads where one key is.
pub(super) fn encryption<'a>(
    item: &Item<'a>,
    credential: impl Fn(&Item<'a>, &TomlTable<'a>) -> Result<CredentialRef>,
) -> Result<Encryption> {
    let table = item.table(&["key", "old_keys"])?;
    let credential = |item: &Item<'a>| credential(item, &item.table(&["env", "file"])?);
    let key = credential(&table.need("key", "`key = { file = \"tidelock.key\" }`")?)?;
    let old_keys = match table.get("old_keys") {
        Some(item) => item.array()?.iter().map(credential).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    Ok(Encryption { key, old_keys })
}
