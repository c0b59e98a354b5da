//! `tidelock ls`: lists snapshots. Reads the catalogue page by page, so that a long list takes no memory.

use super::failure::Failure;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::Host;
use tidelock::types::{SnapshotId, format_bytes};

/// Snapshots that are taken from the catalogue, and aligned with each other, at once.
const PAGE: usize = 1000;

/// The beginning of an id that a terminal shows: 60 bits, which no two snapshots of a catalogue will share.
const SHORT: usize = 15;

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let (host, _empty) = session.open_any().await?;
    if session.json { objects(&host).await } else { table(&host, output::is_terminal()).await }
}

async fn table(host: &Host, short: bool) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = host.list(after, PAGE).await?;
        if page.snapshots.is_empty() {
            return Ok(());
        }
        let mut table = TextTable::new([
            ("ID", Side::Left),
            ("SIZE", Side::Right),
            ("STORED", Side::Left),
            ("BASE", Side::Left),
            ("NAME", Side::Left),
        ]);
        for snapshot in page.snapshots {
            // Scripts take the id from here.
            let id = if short { beginning(snapshot.id) } else { snapshot.id.to_string() };
            table.row([
                id,
                format_bytes(snapshot.size),
                output::moment(snapshot.created),
                snapshot.base.map_or_else(|| "-".to_owned(), beginning),
                snapshot.names.join(", "),
            ]);
        }
        // Only the first page has a heading.
        let text = table.to_string();
        let text = if after.is_none() { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) };
        output::text(text)?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn beginning(id: SnapshotId) -> String {
    id.to_string().chars().take(SHORT).collect()
}

async fn objects(host: &Host) -> Result<(), Failure> {
    output::list("snapshots", async |list| {
        let mut after = None;
        loop {
            let page = host.list(after, PAGE).await?;
            page.snapshots.iter().try_for_each(|snapshot| list.add(snapshot))?;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    })
    .await
}
