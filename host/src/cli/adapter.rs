//! `tidelock adapter ls`: which adapters serve.

use serde::Serialize;

use super::failure::Failure;
use super::output::{self, Side, Table};
use super::session::Session;
use crate::AdapterInfo;
use crate::types::Features;

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
