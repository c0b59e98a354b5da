//! What holds after the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::backend::WatchedBackend;
use super::events::{Event, Happened};
use super::images::{IMAGES, id_of};
use super::watched::WatchedCatalogue;
use crate::backend::Backend as _;
use crate::catalogue::{Catalogue, Placement, PlacementState};
use crate::connector::Host;
use crate::connector::labels::is_identity_name;
use crate::types::{ObjectId, Result};

/// The reports of the tasks.
#[derive(Default)]
pub(super) struct Report {
    pub(super) acknowledged: BTreeSet<usize>,
    pub(super) wrong: Vec<String>,
}

pub(super) fn stays(last: &Event, acknowledged: &BTreeSet<usize>) -> bool {
    matches!(last.what, Happened::Recorded(task) if acknowledged.contains(&task))
}

pub(super) async fn read(host: &Host, image: usize) -> Result<Vec<u8>> {
    forget(host);
    Ok(host.retrieve(id_of(image), None).await?.body.collect(1 << 20).await?.to_vec())
}

/// Forgets what was read before: it would hide that something is gone.
pub(super) fn forget(host: &Host) {
    host.inner.recent_frames.forget();
    host.inner.recent_packs.forget();
}

/// Checks the invariants after the end, when one more collection has run.
pub(super) async fn judge(
    host: Host,
    catalogue: &WatchedCatalogue,
    backends: &[Arc<WatchedBackend>; 2],
    report: Report,
) -> std::result::Result<(), String> {
    if let Some(wrong) = report.wrong.first() {
        return Err(wrong.clone());
    }
    backends.iter().for_each(|backend| backend.inner.fail_no_more());
    let collected = host.gc(Duration::ZERO).await.map_err(|error| format!("the last gc: {error:?}"))?;
    if !collected.failed.is_empty() {
        return Err(format!("the last gc: {:?}", collected.failed));
    }
    let events = catalogue.events.lock().unwrap().clone();
    for (image, bytes) in IMAGES.iter().enumerate() {
        let last = events.iter().rfind(|event| event.id == id_of(image));
        if last.is_some_and(|last| stays(last, &report.acknowledged)) {
            // A read tries those that are bad, too, and heals them: so this is looked at before.
            let placements = Catalogue::placements(&catalogue.inner, id_of(image)).await.unwrap();
            if !placements.iter().any(|placement| placement.state == PlacementState::Live) {
                return Err(format!(
                    "image {image} was acknowledged and not removed, and is live nowhere: {placements:?}"
                ));
            }
            match read(&host, image).await {
                Ok(read) if read == *bytes => {}
                other => return Err(format!("image {image} was acknowledged and not removed: {other:?}")),
            }
        }
    }
    judge_needs(catalogue, backends, &events, &report).await?;
    let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (image, _) in IMAGES.iter().enumerate() {
        for placement in Catalogue::placements(&catalogue.inner, id_of(image)).await.unwrap() {
            if placement.state == PlacementState::Removing {
                return Err(format!("a removal has not ended: {placement:?}"));
            }
            let backend = backends.iter().find(|backend| backend.name() == placement.backend).unwrap();
            // A store that was given up just after its record has not looked whether its object outlived a removal.
            let last = events.iter().rfind(|event| event.id == id_of(image));
            let live =
                placement.state == PlacementState::Live && last.is_some_and(|last| stays(last, &report.acknowledged));
            if live && !backend.inner.objects().contains(&placement.object.as_str().to_owned()) {
                return Err(format!("an object is missing: {placement:?}"));
            }
            known.entry(backend.name()).or_default().insert(placement.object.as_str().to_owned());
        }
    }
    // Where names follow from bytes, they hold no key that would lead to what a store has left.
    let keyed = backends[0].inner.objects().into_iter();
    let unknown: Vec<_> = keyed
        .filter(|name| !is_identity_name(name) && !known.get("keyed").is_some_and(|known| known.contains(name)))
        .collect();
    let claims = Catalogue::claims(&catalogue.inner).await.unwrap();
    let intents = Catalogue::stats(&catalogue.inner).await.unwrap().intents;
    match (unknown.is_empty(), claims.is_empty(), intents) {
        (true, true, 0) => Ok(()),
        _ => Err(format!("gc has left {unknown:?}, {claims:?}, {intents} intents")),
    }
}

/// Checks that each copy has what it needs on its own backend, and that nothing is kept in vain.
async fn judge_needs(
    catalogue: &WatchedCatalogue,
    backends: &[Arc<WatchedBackend>; 2],
    events: &[Event],
    report: &Report,
) -> std::result::Result<(), String> {
    let needs = catalogue.inner.all_needs().await.unwrap();
    for (image, _) in IMAGES.iter().enumerate() {
        let id = id_of(image);
        let placements = Catalogue::placements(&catalogue.inner, id).await.unwrap();
        let kept_alone = Catalogue::get(&catalogue.inner, id).await.unwrap().is_none();
        let last = events.iter().rfind(|event| event.id == id);
        let counts = last.is_some_and(|last| stays(last, &report.acknowledged));
        for placement in &placements {
            let needed = needs.iter().any(|(backend, _, needed)| *backend == placement.backend && *needed == id);
            if kept_alone && !needed {
                return Err(format!("image {image} was removed and nothing needs it: {placement:?}"));
            }
            let backend = backends.iter().find(|backend| backend.name() == placement.backend).unwrap();
            let Placement { backend: name, object, .. } = placement;
            for need in Catalogue::needs_of(&catalogue.inner, name, object).await.unwrap() {
                let sources = Catalogue::placements(&catalogue.inner, need.snapshot).await.unwrap();
                let sound = |source: &Placement| {
                    let there = source.backend == *name && source.is_pack(need.pack);
                    there && backend.inner.bytes(source.object.as_str()).is_some()
                };
                if counts && placement.state == PlacementState::Live && !sources.iter().any(sound) {
                    return Err(format!("image {image} lacks {need:?} on its backend: {placement:?}, {sources:?}"));
                }
            }
        }
        if placements.is_empty() && Catalogue::get_kept(&catalogue.inner, id).await.unwrap().is_some() {
            return Err(format!("image {image} is nowhere and known"));
        }
    }
    for (backend, object, needed) in needs {
        let name = ObjectId::new(object.as_str()).unwrap();
        if Catalogue::placement_of(&catalogue.inner, &backend, &name).await.unwrap().is_none() {
            return Err(format!("nothing knows of object {object} on {backend}, which needs {needed}"));
        }
    }
    Ok(())
}
