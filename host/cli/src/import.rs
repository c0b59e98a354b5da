//! `tidelock import`: rebuilds the catalogue from a backend.
//!
//! Without names it prints a summary line, and a table of skipped objects. With names it prints only the ids of these
//! objects, one per line, so that a shell can take them.

use std::sync::Arc;

use super::arguments::Import;
use super::console::Bar;
use super::failure::Failure;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::types::{ArchiveState, Error, ErrorKind, format_bytes};
use tidelock::{ImportOptions, ImportProgress, ImportStep, Imported, LeftState};

pub(super) async fn run(arguments: Import, session: &Session) -> Result<(), Failure> {
    let host = session.open_to_import().await?;
    let (named, foreign) = (!arguments.objects.is_empty(), arguments.foreign);
    let bar = Arc::new(session.console.bar("importing", None));
    let options = ImportOptions {
        objects: arguments.objects,
        foreign: arguments.foreign,
        restore: arguments.restore,
        encoding: arguments.encoding,
        new_container: arguments.new_container,
        route: arguments.route,
        max_objects: Some(arguments.max_objects),
        progress: Some(progress(bar.clone())),
    };
    let imported = host.import(&arguments.backend, options).await?;
    drop(bar);
    let verdict = verdict(&imported, named, arguments.restore);
    if session.json {
        output::object(&output::Outcome::of(&imported, verdict.as_ref()))?;
    } else if named {
        imported.snapshots.iter().try_for_each(|snapshot| output::line(snapshot.id))?;
    } else {
        output::text(&describe(&imported))?;
        if foreign {
            output::line(elsewhere(&imported.backend))?;
        }
    }
    verdict.map_or(Ok(()), |failure| Err(failure.told()))
}

/// What `--foreign` does not take.
fn elsewhere(backend: &str) -> String {
    format!(
        "only what the adapter lists was looked at, which is what lies where it stores and has such names (`docs/backends.md`): \
         name other objects, `tidelock import {backend} OBJECT`"
    )
}

/// A terminal shows the number of objects and the bytes.
fn progress(bar: Arc<Bar>) -> ImportProgress {
    Arc::new(move |ImportStep { objects, done, bytes }| {
        bar.say(match done {
            0 => format!("importing: {objects} objects"),
            _ => format!("importing: {done} of {objects} objects"),
        });
        bar.set(bytes);
    })
}

/// Problems are failures, so that a script notices them. Objects skipped for a good reason are not, unless they were
/// named.
fn verdict(found: &Imported, named: bool, restoring: bool) -> Option<Failure> {
    let objects = |count: u64| format!("{count} of {} {}", found.objects, plural(found.objects));
    // Without names, a table has the reasons.
    let why = |state| match found.left.iter().find(|left| named && left.state == state) {
        Some(left) => format!(": `{}`: {}", left.object, left.why),
        None => String::new(),
    };
    let error = if found.damaged > 0 {
        Error::corrupt(format!("{} damaged and skipped{}", objects(found.damaged), why(LeftState::Damaged)))
            .hint("run `tidelock verify --deep` to check snapshots that were recorded before")
    } else if found.unreachable > 0 {
        Error::unavailable(format!("{} could not be read{}", objects(found.unreachable), why(LeftState::Unreachable)))
            .hint("run the import again to continue")
    } else if named && found.gone > 0 {
        Error::not_found(format!("{} not there", objects(found.gone)))
            .hint("use the backend's own names, relative to its grant")
    } else if named && found.under_way > 0 {
        Error::conflict(format!("{} under way: the store is in progress or was interrupted", objects(found.under_way)))
            .hint("wait for the store, or run `tidelock gc`")
    } else if found.pending > 0 {
        let (state, hint) = match restoring {
            true => (ArchiveState::Restoring(None), "import again once it is restored, which may take hours"),
            false => (
                ArchiveState::Archived,
                "request a restore with `--restore`, which costs money, and import again once it is done",
            ),
        };
        let error = Error::new(ErrorKind::Archived(state), format!("{} in cold storage", objects(found.pending)));
        return Some(Failure::pending(error.on_backend(&found.backend).hint(hint)));
    } else {
        return None;
    };
    Some(error.on_backend(&found.backend).into())
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "object" } else { "objects" }
}

fn describe(found: &Imported) -> String {
    let mut text = format!(
        "{} of {} {} on `{}` imported ({} read), {} already known\n",
        found.imported,
        found.objects,
        plural(found.objects),
        found.backend,
        format_bytes(found.bytes),
        found.known
    );
    if found.removed > 0 {
        text += &format!("{} {} of removed snapshots deleted\n", found.removed, plural(found.removed));
    }
    if found.missing > 0 {
        text += &format!("{} recorded {} missing or damaged there\n", found.missing, plural(found.missing));
    }
    if found.unlisted > 0 {
        text += &format!(
            "{} recorded {} not listed, so the list is not complete\n",
            found.unlisted,
            plural(found.unlisted)
        );
    }
    if !found.complete {
        text += "not all of it could be read, so objects of snapshots that are removed stay there\n";
    }
    if found.left.is_empty() {
        return text;
    }
    let mut table = TextTable::new([("OBJECT", Side::Left), ("STATE", Side::Left), ("WHY", Side::Left)]);
    for left in &found.left {
        table.row([left.object.to_string(), left.state.name().to_owned(), left.why.clone()]);
    }
    text += &format!("\n{table}");
    let more = found.done().saturating_sub(found.imported + found.known + found.left.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock::LeftAlone;
    use tidelock::types::ObjectId;

    fn found(change: impl Fn(&mut Imported)) -> Imported {
        let mut found = Imported { backend: "cloud".into(), objects: 3, complete: true, ..Imported::default() };
        change(&mut found);
        found
    }

    #[test]
    fn the_status_is_the_worst_outcome() {
        let status = |found: &Imported, named| verdict(found, named, false).map(|failure| failure.status());
        assert_eq!(status(&found(|found| found.imported = 3), false), None);
        assert_eq!(status(&found(|found| (found.foreign, found.under_way, found.gone) = (1, 1, 1)), false), None);
        assert_eq!(status(&found(|found| found.gone = 1), true), Some(1));
        assert_eq!(status(&found(|found| found.under_way = 1), true), Some(1));
        assert_eq!(status(&found(|found| found.damaged = 1), false), Some(1));
        assert_eq!(status(&found(|found| (found.pending, found.unreachable) = (1, 1)), false), Some(1));
        let cold = found(|found| found.pending = 2);
        assert_eq!(status(&cold, false), Some(3));
        for (restoring, state) in [(false, "archived"), (true, "restoring")] {
            let failure = verdict(&cold, false, restoring).unwrap();
            assert!(
                failure.text().unwrap().starts_with("error: backend `cloud`: 2 of 3 objects in cold storage\nhint: ")
            );
            assert_eq!(serde_json::to_value(failure.object()).unwrap()["archive"]["state"], state);
        }
    }

    #[test]
    fn a_named_object_is_reported_with_its_failure() {
        let left =
            LeftAlone { object: ObjectId::new("x").unwrap(), state: LeftState::Unreachable, why: "no CID".into() };
        let found = found(|found| (found.unreachable, found.left) = (1, vec![left.clone()]));
        let text = |named| verdict(&found, named, false).unwrap().text().unwrap();
        assert!(text(true).contains("1 of 3 objects could not be read: `x`: no CID\n"), "{}", text(true));
        assert!(text(false).contains("could not be read\n"), "{}", text(false));
    }

    #[test]
    fn skipped_objects_are_reported() {
        assert_eq!(
            describe(&found(|found| (found.imported, found.known, found.bytes) = (2, 1, 4096))),
            "2 of 3 objects on `cloud` imported (4096 B read), 1 already known\n"
        );
        let left = LeftAlone { object: ObjectId::new("x").unwrap(), state: LeftState::UnderWay, why: "y".into() };
        let text = describe(&found(|found| {
            (found.imported, found.under_way) = (1, 2);
            found.left = vec![left.clone()];
        }));
        assert!(text.ends_with("\n\nOBJECT  STATE      WHY\nx       under-way  y\nand 1 more\n"), "{text}");
    }
}
