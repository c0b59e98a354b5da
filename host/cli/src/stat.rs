//! `tidelock stat`: one snapshot, and where it is.

use super::arguments::One;
use super::failure::Failure;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::SnapshotStat;
use tidelock::types::format_bytes;

pub(super) async fn run(arguments: &One, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let id = host.find(&arguments.id).await?;
    let stat = host.stat(id).await?;
    if session.json { output::object(&stat) } else { output::text(&describe(&stat)) }
}

fn describe(stat: &SnapshotStat) -> String {
    let mut facts = output::Facts::default();
    facts.add("id", stat.id);
    facts.add("size", format_args!("{} ({} bytes)", format_bytes(stat.size), stat.size));
    for name in &stat.names {
        facts.add("name", name);
    }
    if let Some(base) = stat.base {
        facts.add("base", base);
    }
    facts.add("stored", output::moment(stat.created));
    facts.add("takes", format_bytes(stat.stored_bytes));
    if stat.shared_bytes > 0 {
        facts.add("shares", format_bytes(stat.shared_bytes));
    }
    facts.add("rm frees", format_bytes(stat.frees_bytes));
    if let Some(copies) = stat.copies {
        let where_it_is = if stat.at_risk { ", on this machine alone" } else { "" };
        facts.add("copies", format_args!("{copies} wanted, {} there{where_it_is}", stat.counted));
    }
    let mut placements = TextTable::new([
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("ENCODING", Side::Left),
        ("SIZE", Side::Right),
        ("STORED", Side::Left),
        ("OBJECT", Side::Left),
    ]);
    for placement in &stat.placements {
        placements.row([
            placement.backend.clone(),
            placement.state.to_owned(),
            placement.encoding.to_string(),
            format_bytes(placement.stored_bytes),
            output::moment(placement.created),
            placement.object.to_string(),
        ]);
    }
    let mut text = format!("{facts}\n{placements}");
    text += &chains(stat);
    for placement in &stat.placements {
        if !placement.configured {
            text += &format!("on {}, which is not configured: it does not count as a copy\n", placement.backend);
        }
        if let Some(reason) = &placement.reason {
            let since = output::moment(placement.since);
            text += &format!("{} on {}, since {since}: {reason}\n", placement.state, placement.backend);
        }
    }
    for event in &stat.history {
        let why = event.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        text += &format!("{} {} on {}{why}\n", output::moment(event.at), event.what, event.backend);
    }
    text
}

/// What the placements take pages from, and who takes pages from them.
fn chains(stat: &SnapshotStat) -> String {
    let mut text = String::new();
    for placement in stat.placements.iter().filter(|placement| !placement.chain.is_empty()) {
        let mut table = TextTable::new([
            ("DEPTH", Side::Right),
            ("SIZE", Side::Right),
            ("KEPT FOR", Side::Left),
            ("SNAPSHOT", Side::Left),
            ("OBJECT", Side::Left),
        ]);
        for link in &placement.chain {
            table.row([
                link.depth.to_string(),
                format_bytes(link.stored_bytes).to_string(),
                if link.shared { "others too" } else { "this alone" }.to_owned(),
                link.id.to_string(),
                link.object.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            ]);
        }
        let (backend, depth) = (&placement.backend, placement.depth);
        text += &format!("\non {backend}, depth {depth}, it takes pages from:\n{table}");
    }
    for placement in stat.placements.iter().filter(|placement| !placement.needed_by.is_empty()) {
        let by: Vec<String> = placement.needed_by.iter().map(ToString::to_string).collect();
        text += &format!("\non {}, these take pages from it: {}\n", placement.backend, by.join(", "));
    }
    text
}
