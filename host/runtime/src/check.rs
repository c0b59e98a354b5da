//! Checks of a component before it may run: its imports, exports and settings.

use std::collections::BTreeMap;

use super::engine::{EngineOptions, INSTANCES};
use super::manifest::{Manifest, RequestedGrant};
use super::wit;
use tidelock_capabilities::GrantNames;
use tidelock_types::{Description, Error, Limits, Result, SettingKind, SettingValue, format_bytes};

/// The capabilities that need a grant, as the last part of an import's name. Each has a form in synchronous functions too.
pub(super) const GRANTED: [&str; 3] = ["http", "bucket", "directory"];

/// The suffix of interfaces of synchronous functions.
const SYNC_SUFFIX: &str = "-sync";

/// The interfaces that every adapter may import.
const FREE: &[&str] = &[
    "types",
    "bodies",
    "digest",
    "digest-stream",
    "piece-digests",
    "log",
    "settings",
    "clock",
    "entropy",
    "grants",
    "timer",
];

/// Compares a component's imports and exports with the host's interfaces, the backend's grants and, if there is one, the
/// manifest's requests.
pub(super) fn surface(
    imports: &[String],
    exports: &[String],
    granted: &GrantNames,
    manifest: Option<&Manifest>,
) -> Result<()> {
    if !exports.iter().any(|name| wit::is_adapter_export(name)) {
        let hint = "build it with the SDK, or against the world `storage-adapter` or `storage-adapter-sync` of tidelock:storage@0.1";
        let what = format!("the component exports neither `{}` nor its synchronous form", wit::REQUIRED_EXPORT);
        return Err(Error::invalid(what).hint(hint));
    }
    let asked = manifest.map(Manifest::grants);
    for import in imports {
        let name = interface(import);
        if name.starts_with("wasi:") {
            continue;
        }
        let ours = name.strip_prefix("tidelock:storage/").unwrap_or("");
        if let Some(ours) = granted_kind(ours) {
            if let Some(asked) = &asked {
                let mut of_kind = asked.iter().filter(|grant| grant.kind == ours).peekable();
                if of_kind.peek().is_none() {
                    return Err(Error::denied(format!(
                        "the adapter imports `{ours}`, but its manifest requests no grant of that kind"
                    ))
                    .hint(format!("ask the adapter's author to add asks.{ours}.NAME to adapter.toml")));
                }
                // An optional grant may be missing.
                if of_kind.all(|grant| grant.optional) {
                    continue;
                }
            }
            if !granted.iter().any(|(kind, _)| *kind == ours) {
                return Err(Error::denied(format!(
                    "the adapter imports `{ours}`, but no grant of that kind is configured"
                ))
                .hint(format!("add `grants.{ours}.NAME` to the backend, or use another adapter")));
            }
        } else if !FREE.contains(&ours) {
            return Err(Error::denied(format!("the adapter imports `{import}`, which this host does not provide"))
                .hint("import only tidelock:storage@0.1 and WASI 0.2"));
        }
    }
    Ok(())
}

/// Compares a manifest's requests with the backend's grants.
pub(super) fn asked(manifest: &Manifest, granted: &GrantNames) -> Result<()> {
    manifest.check_interface()?;
    for RequestedGrant { kind, name, optional, why } in manifest.grants() {
        if !optional && !granted.contains(&(kind, name.to_owned())) {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let what = format!(
                "the adapter `{}` requests the {kind} grant `{name}`{why}, which it does not have",
                manifest.name
            );
            return Err(Error::denied(what).hint(format!("add `grants.{kind}.{name}` to the backend's configuration")));
        }
    }
    Ok(())
}

/// The kind of grant that an interface uses: `http` for `http` and for `http-sync`.
pub(super) fn granted_kind(interface: &str) -> Option<&'static str> {
    let kind = interface.strip_suffix(SYNC_SUFFIX).unwrap_or(interface);
    GRANTED.into_iter().find(|granted| *granted == kind)
}

/// `tidelock:storage/http@0.1.0` without its version.
pub(super) fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// Checks that the engine can hold what the limits allow, and that something can run within them.
pub(super) fn limits(most: &EngineOptions, limits: &Limits) -> Result<()> {
    let wrong = |what: String| Err(Error::invalid(what));
    if limits.memory > most.largest_memory {
        return wrong(format!(
            "limits.memory {} is more than the {} that the sandbox reserves for one operation",
            format_bytes(limits.memory),
            format_bytes(most.largest_memory)
        ));
    }
    let counts = [
        ("table_elements", limits.table_elements, most.largest_table),
        ("instances", limits.instances as u64, INSTANCES as u64),
    ];
    for (name, limit, most) in counts {
        if limit > most {
            return wrong(format!("limits.{name} {limit} is more than the {most} that the sandbox can hold"));
        }
    }
    for (name, time) in [("deadline", limits.deadline), ("idle", limits.idle), ("cpu", limits.cpu)] {
        if time.is_zero() {
            return wrong(format!("limits.{name} must not be zero"));
        }
    }
    Ok(())
}

/// Compares the configured settings with those that the adapter declares.
pub(super) fn settings(description: &Description, given: &BTreeMap<String, SettingValue>) -> Result<()> {
    for (name, value) in given {
        let Some(spec) = description.settings.iter().find(|spec| spec.name == *name) else {
            return Err(unknown(name, description));
        };
        if spec.kind != value.kind() {
            return Err(Error::invalid(format!(
                "settings.{name} takes {}, not {}",
                kind(spec.kind),
                kind(value.kind())
            ))
            .hint(spec.summary.clone()));
        }
    }
    match description.settings.iter().find(|spec| spec.required && !given.contains_key(&spec.name)) {
        Some(spec) => Err(Error::invalid(format!(
            "the adapter `{}` requires settings.{} ({})",
            description.name,
            spec.name,
            kind(spec.kind)
        ))
        .hint(spec.summary.clone())),
        None => Ok(()),
    }
}

fn unknown(name: &str, description: &Description) -> Error {
    let error = Error::invalid(format!("the adapter `{}` has no setting `{name}`", description.name));
    let nearest = description
        .settings
        .iter()
        .map(|spec| (strsim::osa_distance(&spec.name, name), &spec.name))
        .filter(|(distance, _)| *distance <= 3)
        .min();
    let names: Vec<_> = description.settings.iter().map(|spec| spec.name.as_str()).collect();
    match (nearest, names.is_empty()) {
        (Some((_, near)), _) => error.hint(format!("did you mean `{near}`?")),
        (None, false) => error.hint(format!("it has {}", names.join(", "))),
        (None, true) => error.hint("remove the key: the adapter has no settings"),
    }
}

fn kind(kind: SettingKind) -> &'static str {
    match kind {
        SettingKind::Text => "a string",
        SettingKind::Integer => "an integer",
        SettingKind::Boolean => "true or false",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock_types::SettingSpec;

    fn description() -> Description {
        let spec = |name: &str, kind, required| SettingSpec {
            name: name.into(),
            kind,
            required,
            summary: "what it means".into(),
        };
        Description {
            name: "x".into(),
            version: "1".into(),
            summary: String::new(),
            features: Default::default(),
            settings: vec![spec("prefix", SettingKind::Text, false), spec("days", SettingKind::Integer, true)],
        }
    }

    #[test]
    fn settings_are_what_the_adapter_declares() {
        let check = |given: &[(&str, SettingValue)]| {
            settings(&description(), &given.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
        };
        let days = ("days", SettingValue::Integer(3));
        check(std::slice::from_ref(&days)).unwrap();
        assert!(check(&[]).unwrap_err().to_string().contains("requires settings.days"));
        let typo = check(&[days.clone(), ("prefxi", SettingValue::Text("a".into()))]).unwrap_err();
        assert_eq!(typo.advice(), Some("did you mean `prefix`?"));
        let wrong = check(&[("days", SettingValue::Text("3".into()))]).unwrap_err();
        assert!(wrong.to_string().contains("takes an integer, not a string"));
    }
}
