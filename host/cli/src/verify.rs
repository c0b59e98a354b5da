//! `tidelock verify`: checks that the backends still hold the snapshots.

use std::collections::BTreeMap;

use super::arguments::Verify;
use super::failure::Failure;
use super::gc::errors;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::types::{Error, format_bytes};
use tidelock::{BadPlacement, Verification};

pub(super) async fn run(arguments: &Verify, session: &Session) -> Result<(), Failure> {
    let (host, _empty) = session.open_any().await?;
    let id = match &arguments.id {
        Some(text) => Some(host.find(text).await?),
        None => None,
    };
    // The number of bytes is known beforehand only for one snapshot with one placement.
    let bar = session.console.bar("verifying", None);
    let found = host.verify(id, arguments.deep, bar.progress()).await?;
    drop(bar);
    let verdict = verdict(&found).map(Failure::from);
    output::outcome(session.json, &found, |found| describe(found, arguments.deep), verdict)
}

/// Problems are failures, so that a script notices them.
fn verdict(found: &Verification) -> Option<Error> {
    let objects = |count: usize| format!("{count} of {} {}", found.checked, plural(found.checked));
    if !found.bad.is_empty() {
        let mut what = format!("{} missing or damaged", objects(found.bad.len()));
        if !found.unreachable.is_empty() {
            what += &format!("; {} could not be checked: {}", found.unreachable.len(), errors(&found.failed));
        }
        let error = Error::corrupt(what);
        return Some(
            error.hint("make them anew with `tidelock repair ID`; where no other copy is sound, store the image again"),
        );
    }
    if !found.unreachable.is_empty() {
        let what = format!("{} could not be checked: {}", objects(found.unreachable.len()), errors(&found.failed));
        let hint = found.failed.iter().find_map(|failed| failed.hint.as_deref());
        let hint = hint.unwrap_or("try again once the backend is reachable; restore objects in cold storage first");
        return Some(Error::unavailable(what).hint(hint));
    }
    None
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "object" } else { "objects" }
}

fn describe(found: &Verification, deep: bool) -> String {
    let sound = found.checked.saturating_sub((found.bad.len() + found.unreachable.len()) as u64);
    let read = match deep {
        true => format!("{} read and compared", format_bytes(found.bytes)),
        false => "use --deep to read every byte".to_owned(),
    };
    let mut summary = format!("{sound} of {} {} intact ({read})\n", found.checked, plural(found.checked));
    let mut elsewhere = BTreeMap::<&str, u64>::new();
    found.elsewhere.iter().for_each(|placement| *elsewhere.entry(&placement.backend).or_default() += 1);
    for (backend, count) in elsewhere {
        summary += &format!(
            "{count} further {} on `{backend}`, which is not configured: `tidelock forget {backend}` forgets what is there\n",
            plural(count)
        );
    }
    if sound == found.checked {
        return summary;
    }
    let mut table = TextTable::new([
        ("ID", Side::Left),
        ("BACKEND", Side::Left),
        ("OBJECT", Side::Left),
        ("STATE", Side::Left),
        ("WHY", Side::Left),
    ]);
    let mut add = |placements: &[BadPlacement], what: &str| {
        for bad in placements {
            let (id, object) = (bad.id.to_string(), bad.object.to_string());
            table.row([id, bad.backend.clone(), object, what.to_owned(), bad.why.clone()]);
        }
    };
    add(&found.bad, "bad");
    add(&found.unreachable, "unchecked");
    format!("{summary}\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock::types::{ObjectId, SnapshotId};

    fn placement() -> BadPlacement {
        let object = ObjectId::new("x").unwrap();
        BadPlacement { id: SnapshotId::from_bytes([1; 32]), backend: "cloud".into(), object, why: "gone".into() }
    }

    #[test]
    fn damage_is_a_failure() {
        assert!(verdict(&Verification { checked: 2, ..Default::default() }).is_none());
        let bad = Verification { checked: 2, bad: vec![placement()], ..Default::default() };
        assert_eq!(verdict(&bad).unwrap().to_string(), "1 of 2 objects missing or damaged");
        let failure = verdict(&bad).map(Failure::from);
        let object = serde_json::to_value(output::Outcome::of(&bad, failure.as_ref()));
        assert_eq!(object.as_ref().unwrap()["error"]["kind"], "corrupt");
        assert_eq!(object.as_ref().unwrap()["bad"][0]["backend"], "cloud");
        let down = Verification { checked: 1, unreachable: vec![placement()], ..Default::default() };
        assert_eq!(verdict(&down).unwrap().kind().name(), "unavailable");
        assert!(describe(&down, false).starts_with("0 of 1 object intact"));
    }
}
