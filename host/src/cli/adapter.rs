//! `tidelock adapter`: which adapters serve, and what a component is before it is trusted with anything.

use serde::Serialize;

use super::arguments::Component;
use super::failure::Failure;
use super::input;
use super::output::{self, Facts, Side, Table};
use super::session::Session;
use crate::AdapterInfo;
use crate::runtime::Inspection;
use crate::types::{Features, format_bytes};

/// Enough of a digest to tell two of them apart.
const SHORT: usize = "sha256:".len() + 12;

#[derive(Serialize)]
struct Listed {
    adapters: Vec<AdapterInfo>,
}

pub(super) async fn ls(session: &Session) -> Result<(), Failure> {
    let host = session.open().await?;
    for backend in host.backends() {
        host.open_backend(backend).await?;
    }
    let adapters = host.adapters();
    if session.json {
        return output::object(&Listed { adapters });
    }
    let short = output::is_terminal();
    let mut table = Table::new([
        ("BACKEND", Side::Left),
        ("ADAPTER", Side::Left),
        ("VERSION", Side::Left),
        ("TIER", Side::Left),
        ("CAN", Side::Left),
        ("DIGEST", Side::Left),
    ]);
    for info in adapters {
        let digest = if short { info.digest.chars().take(SHORT).collect() } else { info.digest };
        let can = abilities(&info.features, &info.optional);
        table.row([info.backend, info.adapter, info.version, info.tier.to_owned(), can, digest]);
    }
    output::text(&table.to_string())
}

fn abilities(features: &Features, optional: &[&str]) -> String {
    let known = [
        (features.ranges, "ranges"),
        (features.lineage, "lineage"),
        (features.unsized_input, "unsized-input"),
        (features.labels, "labels"),
    ];
    let features = known.into_iter().filter(|(can, _)| *can).map(|(_, name)| name);
    features.chain(optional.iter().copied()).collect::<Vec<_>>().join(",")
}

pub(super) async fn inspect(arguments: &Component, session: &Session) -> Result<(), Failure> {
    let component = input::component(&arguments.file).await?;
    let inspection = crate::inspect(component.bytes).await?;
    if session.json { output::object(&inspection) } else { output::text(&describe(&inspection)) }
}

fn describe(found: &Inspection) -> String {
    let mut facts = Facts::default();
    facts.add("adapter", if found.is_adapter { "yes" } else { "no: it does not export tidelock:storage/adapter" });
    facts.add("digest", &found.digest);
    facts.add("size", format_bytes(found.bytes));
    let needs = if found.needs_grants.is_empty() { "nothing".to_owned() } else { found.needs_grants.join(", ") };
    facts.add("needs grants of", needs);
    let mut list = |what: &str, names: &[String]| {
        for (at, name) in names.iter().enumerate() {
            facts.add(if at == 0 { what } else { "" }, name);
        }
    };
    list("exports", &found.exports);
    list("imports", &found.imports);
    facts.to_string()
}
