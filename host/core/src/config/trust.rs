//! The table `trust`: public keys for `signed_by` of backends, and requirements for components.

use std::collections::BTreeMap;

use super::read::{Item, join, list, map, nearest, switch};
use crate::types::{PublicKey, Result};

/// Whose components may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The public keys that a backend's `signed_by` may name.
    pub keys: BTreeMap<String, PublicKey>,
    /// Whether a component without a manifest is rejected. Otherwise it is treated as asking for its imports.
    pub require_manifest: bool,
}

pub(super) fn trust(item: &Item<'_>) -> Result<Trust> {
    let table = item.table(&["keys", "require_manifest"])?;
    let keys = table.get("keys").map_or(Ok(BTreeMap::new()), |item| map(&item, |key| key.parsed(str::parse)))?;
    Ok(Trust { keys, require_manifest: switch(&table, "require_manifest")? })
}

pub(super) fn signed_by(item: &Item<'_>, trust: &Trust) -> Result<Vec<String>> {
    let known: Vec<&str> = trust.keys.keys().map(String::as_str).collect();
    let named = |item: &Item<'_>| {
        let name = item.text()?;
        if trust.keys.contains_key(name) {
            return Ok(name.to_owned());
        }
        let near = nearest(name, &known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let hint = match known.is_empty() {
            true => format!("add a table [trust.keys] with {} = \"ed25519:…\"", join("", name)),
            false => format!("use one of the keys {} of [trust.keys]", list(&known)),
        };
        Err(item.wrong(format_args!("names `{name}`, which is not a key of [trust.keys]{near}")).hint(hint))
    };
    item.array()?.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const RELEASE: &str = "release = 'ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='";
    const WEAK: &str = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    /// Each wrong text with the error that it gets.
    #[test]
    fn errors_say_where_and_what() {
        let one = "[backends.a]\nadapter = 'fs'\n";
        for (text, expected) in [
            (
                "signed_by = ['release']".to_owned(),
                "line 3, column 14: `backends.a.signed_by[0]` names `release`, which is not a key of [trust.keys]",
            ),
            (
                format!("signed_by = ['relaese']\n[trust.keys]\n{RELEASE}"),
                "line 3, column 14: `backends.a.signed_by[0]` names `relaese`, which is not a key of [trust.keys]; did you mean `release`?",
            ),
            (
                "[trust.keys]\na = 'ed25519:xyz'".to_owned(),
                "line 4, column 5: `trust.keys.a` is wrong: not a public key",
            ),
            (format!("[trust.keys]\na = '{WEAK}'"), "line 4, column 5: `trust.keys.a` is wrong: it is a weak key"),
            (
                "[trust]\nrequire_manifest = 1".to_owned(),
                "line 4, column 20: `trust.require_manifest` must be `true` or `false`, not an integer",
            ),
        ] {
            let error = Config::parse(&[one, &text].concat(), Path::new("")).expect_err(&text);
            assert_eq!(error.to_string(), expected, "for:\n{text}");
        }
    }
}
