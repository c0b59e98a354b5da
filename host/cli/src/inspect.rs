//! `tidelock adapter inspect`: shows a component before it is trusted. None of its code runs.

use serde::Serialize;

use super::arguments::Inspect;
use super::failure::Failure;
use super::input;
use super::output::{self, Facts};
use super::session::Session;
use tidelock::runtime::{Inspection, Manifest, Needs};
use tidelock::types::format_bytes;
use tidelock::{GrantPreflight, NeedPreflight, Preflight};

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    found: Inspection,
    /// The verdict of each backend of the configuration.
    backends: Vec<Preflight>,
}

pub(super) async fn run(arguments: &Inspect, session: &Session) -> Result<(), Failure> {
    let config = session.config()?;
    let component = input::component(&arguments.component.file).await?;
    let mut found = tidelock::inspect(component.clone()).await?;
    let backends = tidelock::preflights(&mut found, &component, &config, arguments.backend.as_deref())?;
    if session.json {
        return output::object(&Inspected { found, backends });
    }
    output::text(&format!("{}{}", describe(&found), backends.iter().map(preflight).collect::<String>()))
}

fn describe(found: &Inspection) -> String {
    let mut facts = Facts::default();
    facts.add("adapter", if found.is_adapter { "yes" } else { "no: does not export tidelock:storage/adapter" });
    facts.add("digest", &found.digest);
    if found.signatures.is_empty() {
        facts.add("signed by", "none");
    }
    for one in &found.signatures {
        let name = one.name.as_deref().unwrap_or("an unknown key");
        let valid = if one.valid { "" } else { ": NOT VALID for this component" };
        facts.add("signed by", format!("{name} ({}){valid}", one.key));
    }
    facts.add("size", format_bytes(found.bytes));
    if let Some(needs) = &found.needs {
        takes(&mut facts, needs);
    }
    let mut list = |what: &str, names: &[String]| {
        for (at, name) in names.iter().enumerate() {
            facts.add(if at == 0 { what } else { "" }, name);
        }
    };
    list("exports", &found.exports);
    list("imports", &found.imports);
    match &found.manifest {
        Some(manifest) => asks(&mut facts, manifest),
        None => {
            let needs =
                if found.needs_grants.is_empty() { "nothing".to_owned() } else { found.needs_grants.join(", ") };
            facts.add("manifest", "none: treated as asking for its imports");
            facts.add("needs grants of", needs);
        }
    }
    facts.to_string()
}

/// Its parts, and their sizes before its code runs.
fn takes(facts: &mut Facts, needs: &Needs) {
    let Needs { components, core_instances, memories, tables, .. } = needs;
    let parts = if *components == 1 { String::new() } else { format!(" in {components} components") };
    facts.add("core instances", format!("{core_instances}{parts}"));
    let (largest, all) = (format_bytes(needs.memory_bytes), format_bytes(needs.all_memory_bytes));
    facts.add("memories", format!("{memories}, the largest {largest} and all {all} at the start"));
    let (largest, all) = (needs.table_elements, needs.all_table_elements);
    facts.add("tables", format!("{tables}, the largest {largest} and all {all} elements at the start"));
}

fn asks(facts: &mut Facts, manifest: &Manifest) {
    let Manifest { name, version, summary, interface, limits, .. } = manifest;
    facts.add("manifest", format!("{name} {version}: {summary}"));
    facts.add("built for", interface);
    for grant in manifest.grants() {
        let origins = manifest.asks.http.get(grant.name).filter(|_| grant.kind == "http").map(|asks| {
            let origins: Vec<String> = asks.origins.iter().map(ToString::to_string).collect();
            format!(" to {}", origins.join(", "))
        });
        let optional = if grant.optional { ", if granted" } else { "" };
        let why = if grant.why.is_empty() { String::new() } else { format!(": {}", grant.why) };
        facts.add("asks for", format!("{} {}{}{optional}{why}", grant.kind, grant.name, origins.unwrap_or_default()));
    }
    let needs = [
        limits.memory.map(|bytes| format!("memory {}", format_bytes(bytes))),
        limits.table_elements.map(|count| format!("table_elements {count}")),
        limits.cpu.map(|time| format!("cpu {time:?}")),
        limits.calls_in_flight.map(|count| format!("calls_in_flight {count}")),
    ];
    for need in needs.into_iter().flatten() {
        facts.add("needs", need);
    }
    for (name, setting) in manifest.settings.iter().flatten() {
        let required = if setting.required { ", required" } else { "" };
        let kind = format!("{:?}", setting.kind).to_lowercase();
        facts.add("setting", format!("{name} ({kind}{required}): {}", setting.summary));
    }
}

fn preflight(preflight: &Preflight) -> String {
    let mut facts = Facts::default();
    let loads = preflight.refusals.is_empty();
    let verdict = if loads { "would load" } else { "would reject" };
    facts.add("backend", format!("{}: {verdict}", preflight.backend));
    for why in &preflight.refusals {
        facts.add("  because", why);
    }
    if let Some(name) = &preflight.signed_by {
        facts.add("  signed by", name);
    }
    for grant in &preflight.grants {
        facts.add("  grant", format!("{} {}: {}", grant.kind, grant.name, outlook(grant)));
    }
    for need in &preflight.needs {
        let NeedPreflight { name, needs, gets, fits } = need;
        let verdict = if *fits { "" } else { ": TOO LITTLE" };
        facts.add("  takes", format!("{name} {needs} at the start, of {gets}{verdict}"));
    }
    for limit in &preflight.limits {
        facts.add("  limit", format!("{} {} (asks {}, allowed {})", limit.name, limit.gets, limit.asks, limit.allowed));
    }
    format!("\n{facts}")
}

fn outlook(grant: &GrantPreflight) -> String {
    match (grant.asked, grant.granted) {
        (true, true) => {
            let withheld = match grant.withheld.as_slice() {
                [] => String::new(),
                some => format!("; not requested, so withheld: {}", some.join(", ")),
            };
            format!("yes, {}{withheld}", grant.reaches.join(", "))
        }
        (true, false) if grant.optional => "requested if granted, not granted".to_owned(),
        (true, false) => "requested, not granted".to_owned(),
        _ => "granted, not requested, so withheld".to_owned(),
    }
}
