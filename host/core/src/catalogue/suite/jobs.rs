//! Jobs: enqueued once, run by one host at a time, oldest risk first; wanted copies, and events.

use super::{LEASE, Place, id, kind, lease, object, on, pack_on, raw, snapshot, stored};
use crate::catalogue::{
    BegunRemoval, Between, Catalogue, Choice, Commit, HeldJob, Job, JobCommit, JobEnd, JobKind, JobState, MAX_EVENTS,
    NewJob, NewSnapshot, Placement, PlacementState, RemovalScope, Take, WantedCopies,
};

pub(super) fn copy_of(seed: u64) -> NewJob {
    NewJob { kind: JobKind::Copy, snapshot: id(seed), backend: None, object: None }
}

pub(super) fn wanting(commit: Commit, copies: u32) -> Commit {
    Commit { wanted: Some(WantedCopies { copies, route: "default".to_owned() }), ..commit }
}

pub(super) async fn store(catalogue: &dyn Catalogue, seed: u64, backends: &[&str], copies: u32) {
    let placements = backends.iter().map(|backend| on(backend, &format!("{seed}"))).collect();
    catalogue.commit(wanting(stored(snapshot(seed, 10), placements, vec![]), copies)).await.unwrap();
}

pub(super) async fn placement(catalogue: &dyn Catalogue, backend: &str, name: &str) -> Placement {
    catalogue.placement_of(backend, &object(name)).await.unwrap().unwrap()
}

pub(super) async fn all(catalogue: &dyn Catalogue) -> Vec<Job> {
    catalogue.jobs(0, 100).await.unwrap()
}

pub(crate) async fn a_bad_placement_has_a_repair_until_it_is_good(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local", "cloud"], 2).await;
    let seen = placement(&*catalogue, "local", "1").await;
    assert!(!catalogue.has_due_job().await.unwrap());
    assert!(catalogue.transition(&seen, PlacementState::Bad, Some("gone")).await.unwrap());
    // What was seen before changes nothing, and enqueues nothing.
    assert!(!catalogue.transition(&seen, PlacementState::Bad, Some("gone")).await.unwrap());
    assert!(catalogue.has_due_job().await.unwrap());
    let jobs = all(&*catalogue).await;
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((job.kind, job.state, job.copies, job.attempts), (JobKind::Repair, JobState::Queued, 1, 0));
    assert_eq!((job.backend.as_deref(), job.object.as_ref()), (Some("local"), Some(&object("1"))));
    let again = NewJob { kind: job.kind, snapshot: id(1), backend: job.backend.clone(), object: job.object.clone() };
    assert_eq!(catalogue.enqueue(vec![again, copy_of(7)]).await.unwrap(), 0, "one is there, one has no snapshot");
    let bad = placement(&*catalogue, "local", "1").await;
    assert!(catalogue.transition(&bad, PlacementState::Live, None).await.unwrap());
    assert_eq!(all(&*catalogue).await, []);
    let told: Vec<_> =
        catalogue.events(id(1)).await.unwrap().into_iter().map(|event| (event.what, event.why)).collect();
    assert_eq!(told, [("live".to_owned(), None), ("bad".to_owned(), Some("gone".to_owned()))]);
}

pub(crate) async fn the_fewest_copies_go_first_then_the_oldest(place: Place) {
    let catalogue = place.open().await;
    for (seed, backends) in [(1, &["a", "b"][..]), (2, &["a"]), (3, &["a", "b"]), (4, &["a", "hot"])] {
        store(&*catalogue, seed, backends, 3).await;
        place.pass(1);
    }
    assert!(catalogue.has_due_job().await.unwrap(), "there are snapshots with too few copies");
    assert_eq!(catalogue.enqueue_copies(3, configured()).await.unwrap(), 3);
    assert_eq!(catalogue.enqueue_copies(3, configured()).await.unwrap(), 1);
    assert_eq!(catalogue.enqueue_copies(3, configured()).await.unwrap(), 0);
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let mut order = Vec::new();
    while let Some(job) = catalogue.take_job(Take::Due, token).await.unwrap() {
        assert_eq!((job.state, job.attempts), (JobState::Running, 1));
        order.push(job.copies);
        if order.len() == 2 {
            // One more is lost: it comes first from now on.
            let seen = placement(&*catalogue, "b", "3").await;
            catalogue.transition(&seen, PlacementState::Suspect, None).await.unwrap();
        }
    }
    assert_eq!(order, [1, 1, 1, 2], "those of the hot tier are no copies");
}

pub(crate) async fn jobs_between_some_backends_are_passed_over(place: Place) {
    let catalogue = place.open().await;
    let between = |source: &str, target: &str| Between { source: source.to_owned(), target: target.to_owned() };
    for (seed, backends) in [(1, &["good"][..]), (2, &["hot", "good"]), (3, &["third"])] {
        store(&*catalogue, seed, backends, 2).await;
    }
    store(&*catalogue, 4, &["good", "third"], 2).await;
    let seen = placement(&*catalogue, "third", "4").await;
    catalogue.transition(&seen, PlacementState::Bad, Some("torn")).await.unwrap();
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let on = vec!["good".to_owned(), "cloud".to_owned()];
    let choice =
        |not_between| Choice { routes: [("default".to_owned(), on.clone())].into(), not_between, without: Vec::new() };
    let take = async |which, not_between| {
        let taken = catalogue.take_job_beside(which, &choice(not_between), token).await.unwrap();
        taken.map(|(job, between)| (job.id, job.snapshot, between.source, between.target))
    };
    let all: Vec<u64> = all(&*catalogue).await.iter().filter(|job| job.snapshot == id(1)).map(|job| job.id).collect();
    let cloud = between("cloud", "good");
    assert_eq!(take(Take::This(all[0]), vec![cloud.clone()]).await, None);
    let mut found = Vec::new();
    for not_between in [vec![cloud.clone()], vec![cloud.clone()], vec![cloud.clone()]] {
        found
            .extend(take(Take::Due, not_between).await.map(|(_, snapshot, source, target)| (snapshot, source, target)));
    }
    found.sort_by_key(|(snapshot, ..)| [id(2), id(3), id(4)].iter().position(|id| id == snapshot));
    let text = |source: &str, target: &str| (source.to_owned(), target.to_owned());
    let places: Vec<_> = found.into_iter().map(|(snapshot, source, target)| (snapshot, (source, target))).collect();
    // The second from where it is hot; the third to the first of its route.
    let expected = [(id(2), text("hot", "cloud")), (id(3), text("third", "good")), (id(4), text("good", "third"))];
    assert_eq!(places, expected);
    assert_eq!(take(Take::Due, vec![cloud, between("good", "third")]).await, None);
    // What a run has begun often enough is not taken by it again, unless it is asked for.
    let without = Choice { without: all.clone(), ..choice(Vec::new()) };
    assert_eq!(catalogue.take_job_beside(Take::Due, &without, token).await.unwrap(), None);
    let (_, snapshot, source, target) = take(Take::Due, Vec::new()).await.unwrap();
    assert_eq!((snapshot, (source, target)), (id(1), text("good", "cloud")));
}

pub(crate) async fn a_job_is_run_by_one_host_at_a_time(place: Place) {
    let (first, second) = (place.open().await, place.open().await);
    store(&*first, 1, &["local"], 2).await;
    first.enqueue_copies(9, configured()).await.unwrap();
    let slow = first.acquire_owner("slow", lease()).await.unwrap();
    let held = HeldJob { id: first.take_job(Take::Due, slow).await.unwrap().unwrap().id, token: slow };
    let other = second.acquire_owner("other", lease()).await.unwrap();
    assert_eq!(second.take_job(Take::Due, other).await.unwrap(), None);
    assert_eq!(second.take_job(Take::This(held.id), other).await.unwrap(), None);
    assert!(!second.has_due_job().await.unwrap());
    place.pass(LEASE + 1);
    assert!(second.has_due_job().await.unwrap(), "the lease of the first has expired");
    let other = second.acquire_owner("other", lease()).await.unwrap();
    let job = second.take_job(Take::Due, other).await.unwrap().unwrap();
    assert_eq!((job.id, job.attempts), (held.id, 2));
    // The first wakes up: it can neither end the job nor record what it has made.
    assert!(!first.end_job(held, JobEnd::Done).await.unwrap());
    first.release_jobs(vec![held]).await.unwrap();
    let further = |held| Commit {
        placements: vec![on("cloud", "1")],
        job: Some(JobCommit { held, what: "copied", why: "from local".to_owned() }),
        ..Commit::of(snapshot(1, 10))
    };
    assert_eq!(kind(first.commit(further(held)).await), "conflict");
    let held = HeldJob { token: other, ..held };
    second.commit(further(held)).await.unwrap();
    assert!(second.end_job(held, JobEnd::Done).await.unwrap());
    assert_eq!((all(&*first).await, first.has_due_job().await.unwrap()), (vec![], false));
    assert_eq!(first.events(id(1)).await.unwrap()[0].what, "copied");
    assert_eq!(kind(first.take_job(Take::Due, slow).await), "conflict");
}

pub(crate) async fn a_job_that_failed_waits_until_its_time_or_a_new_copy(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local"], 2).await;
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let take = async || catalogue.take_job(Take::Due, token).await.unwrap();
    let held = |job: Job| HeldJob { id: job.id, token };
    let later = super::BEGINNING + 30;
    catalogue.end_job(held(take().await.unwrap()), JobEnd::Wait(later, "away\u{1b}".to_owned())).await.unwrap();
    let waiting = all(&*catalogue).await.remove(0);
    assert_eq!(
        (waiting.state, waiting.not_before, waiting.reason.as_deref()),
        (JobState::Waiting, later, Some("away "))
    );
    assert!(take().await.is_none() && !catalogue.has_due_job().await.unwrap());
    place.pass(30);
    let job = take().await.unwrap();
    assert_eq!(job.attempts, 2);
    catalogue.end_job(held(job), JobEnd::Wait(later + 1000, "away".to_owned())).await.unwrap();
    // Another host has made a copy, and what hindered this job may be over.
    catalogue.commit(stored(snapshot(1, 10), vec![on("third", "x")], vec![])).await.unwrap();
    let job = take().await.unwrap();
    catalogue.end_job(held(job), JobEnd::Fail("in vain".to_owned())).await.unwrap();
    place.pass(10_000);
    catalogue.renew_owner(token, lease()).await.unwrap();
    assert!(take().await.is_none());
    let failed = all(&*catalogue).await.remove(0);
    assert_eq!(failed.state, JobState::Failed);
    let asked_for = catalogue.take_job(Take::This(failed.id), token).await.unwrap().unwrap();
    // What is given up without a word is due at once.
    catalogue.release_jobs(vec![held(asked_for)]).await.unwrap();
    assert_eq!(take().await.unwrap().id, failed.id);
}

pub(crate) async fn a_job_that_is_cancelled_records_nothing(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local", "other"], 3).await;
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let job = catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
    assert_eq!(catalogue.cancel_job(job.id).await.unwrap().map(|job| job.state), Some(JobState::Running));
    assert_eq!(catalogue.cancel_job(job.id).await.unwrap(), None);
    let held = HeldJob { id: job.id, token };
    let late = Commit {
        placements: vec![on("cloud", "1")],
        job: Some(JobCommit { held, what: "copied", why: String::new() }),
        ..Commit::of(snapshot(1, 10))
    };
    assert_eq!(kind(catalogue.commit(late).await), "conflict");
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 0, "it was cancelled");
    let stats = catalogue.job_stats(configured()).await.unwrap();
    assert_eq!((stats.jobs, stats.under_number), (vec![], 1));
    // A copy is lost: it is asked anew.
    let seen = placement(&*catalogue, "local", "1").await;
    catalogue.transition(&seen, PlacementState::Suspect, None).await.unwrap();
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 1);
}

pub(crate) async fn a_push_that_is_cancelled_is_at_risk_until_there_are_copies(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["hot"], 1).await;
    let push = NewJob { kind: JobKind::Push, ..copy_of(1) };
    let enqueue = async || catalogue.enqueue(vec![push.clone()]).await.unwrap();
    enqueue().await;
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let job = catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
    catalogue.cancel_job(job.id).await.unwrap();
    let late = Commit {
        placements: vec![on("cloud", "late")],
        job: Some(JobCommit { held: HeldJob { id: job.id, token }, what: "pushed", why: String::new() }),
        ..Commit::of(snapshot(1, 10))
    };
    assert_eq!(kind(catalogue.commit(late).await), "conflict");
    let stands = async || {
        let jobs = all(&*catalogue).await.into_iter().map(|job| (job.id, job.state)).collect::<Vec<_>>();
        (jobs, catalogue.at_risk().await.unwrap())
    };
    assert_eq!(stands().await, (vec![(job.id, JobState::Failed)], 10));
    assert_eq!(catalogue.take_job(Take::Due, token).await.unwrap(), None);
    // Somebody stores it again.
    enqueue().await;
    assert_eq!(stands().await, (vec![(job.id, JobState::Queued)], 10));
    catalogue.cancel_job(job.id).await.unwrap();
    catalogue.commit(wanting(stored(snapshot(1, 10), vec![on("cloud", "c1")], vec![]), 1)).await.unwrap();
    assert_eq!(stands().await, (vec![], 0));
}

pub(crate) async fn a_version_is_pushed_after_its_base(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["hot"], 1).await;
    let version = NewSnapshot { base: Some(id(1)), ..snapshot(2, 10) };
    catalogue.commit(wanting(stored(version, vec![on("hot", "2")], vec![]), 1)).await.unwrap();
    let push = |seed| NewJob { kind: JobKind::Push, ..copy_of(seed) };
    catalogue.enqueue(vec![push(1), push(2)]).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let choice = Choice {
        routes: [("default".to_owned(), vec!["cloud".to_owned()])].into(),
        not_between: Vec::new(),
        without: Vec::new(),
    };
    let take = async || {
        let taken = catalogue.take_job_beside(Take::Due, &choice, token).await.unwrap();
        taken.map(|(job, _)| (job.snapshot, HeldJob { id: job.id, token }))
    };
    let (first, held) = take().await.unwrap();
    assert_eq!((first, take().await), (id(1), None), "the base is on its way");
    catalogue.end_job(held, JobEnd::Wait(super::BEGINNING + 100, "away".to_owned())).await.unwrap();
    assert_eq!(take().await.map(|(snapshot, _)| snapshot), Some(id(2)), "it does not wait for what is away");
}

pub(crate) async fn what_is_removed_is_not_copied(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local"], 2).await;
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let push = NewJob { kind: JobKind::Push, ..copy_of(1) };
    assert_eq!(catalogue.enqueue(vec![push]).await.unwrap(), 1);
    assert_eq!(catalogue.job_stats(configured()).await.unwrap().at_risk, 10);
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let job = catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
    let begun = catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
    assert!(matches!(begun, BegunRemoval::Objects(_)));
    let stats = catalogue.job_stats(configured()).await.unwrap();
    assert_eq!((stats.jobs, stats.under_number, stats.at_risk), (vec![], 0, 0));
    let late = Commit {
        placements: vec![on("cloud", "1")],
        job: Some(JobCommit { held: HeldJob { id: job.id, token }, what: "copied", why: String::new() }),
        ..Commit::of(snapshot(1, 10))
    };
    assert_eq!(kind(catalogue.commit(late).await), "conflict");
}

/// A repair of what is kept for others does not bring it back.
pub(crate) async fn a_repair_of_what_is_kept_leaves_it_removed(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local"], 1).await;
    let delta = stored(snapshot(2, 10), vec![pack_on("local", "delta", 2, &[raw(1)])], vec![]);
    catalogue.commit(delta).await.unwrap();
    catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
    let seen = placement(&*catalogue, "local", "1").await;
    catalogue.transition(&seen, PlacementState::Bad, Some("torn")).await.unwrap();
    let bad = placement(&*catalogue, "local", "1").await;
    assert!(!catalogue.retire(&bad, "local").await.unwrap(), "a pack needs it");
    assert_eq!(catalogue.dependents("local", id(1)).await.unwrap()[0].object, object("delta"));
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let held = HeldJob { id: catalogue.take_job(Take::Due, token).await.unwrap().unwrap().id, token };
    let on_backend = |backend: &str| Commit {
        placements: vec![on(backend, "new")],
        job: Some(JobCommit { held, what: "repaired", why: "from cloud".to_owned() }),
        ..Commit::of(snapshot(1, 10))
    };
    assert_eq!(kind(catalogue.commit(on_backend("cloud")).await), "conflict", "nothing needs it there");
    catalogue.commit(on_backend("local")).await.unwrap();
    assert_eq!(catalogue.get(id(1)).await.unwrap(), None);
    assert_eq!(placement(&*catalogue, "local", "1").await.state, PlacementState::Removing);
    assert_eq!(placement(&*catalogue, "local", "new").await.state, PlacementState::Live);
}

/// The backends of these tests.
pub(super) fn configured() -> Vec<String> {
    ["local", "cloud", "third", "hot"].map(str::to_owned).to_vec()
}

/// A copy on a backend that is not configured does not count, until there are enough others or the backend is back.
pub(crate) async fn copies_on_backends_that_are_not_configured_do_not_count(place: Place) {
    let catalogue = place.open().await;
    for seed in 1..=3 {
        store(&*catalogue, seed, &["local", "gone"], 2).await;
    }
    store(&*catalogue, 4, &["local", "cloud"], 2).await;
    store(&*catalogue, 5, &["gone"], 1).await;
    let all = [configured(), vec!["gone".to_owned()]].concat();
    assert_eq!(catalogue.job_stats(all.clone()).await.unwrap().under_number, 0);
    assert_eq!(catalogue.enqueue_copies(9, all.clone()).await.unwrap(), 0);
    assert_eq!(catalogue.job_stats(configured()).await.unwrap().under_number, 4);
    // There is nothing to copy the fifth from.
    assert_eq!(catalogue.enqueue_copies(2, configured()).await.unwrap(), 2);
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 1);
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 0);
    let cancelled = catalogue.jobs(0, 9).await.unwrap().pop().unwrap();
    catalogue.cancel_job(cancelled.id).await.unwrap();
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 0, "it was cancelled");
    catalogue.commit(stored(snapshot(1, 10), vec![on("third", "1")], vec![])).await.unwrap();
    assert_eq!(catalogue.job_stats(configured()).await.unwrap().under_number, 3);
}

/// What is recorded of a backend goes, but no snapshot with it unless that is said.
pub(crate) async fn a_backend_is_forgotten_but_no_last_copy(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local", "gone"], 2).await;
    store(&*catalogue, 2, &["gone"], 1).await;
    store(&*catalogue, 3, &["local"], 1).await;
    let relied = || vec!["local".to_owned()];
    for (relied, last) in [(relied(), vec![id(2)]), (Vec::new(), vec![id(1), id(2)])] {
        let found = catalogue.forget_backend("gone", relied, false).await.unwrap();
        let mut named: Vec<_> = found.last_copies.iter().map(|(id, _)| *id).collect();
        named.sort();
        let mut last = last;
        last.sort();
        assert_eq!((found.done, found.placements, found.last, named), (false, 2, last.len() as u64, last));
    }
    assert_eq!(catalogue.placements(id(1)).await.unwrap().len(), 2);
    let found = catalogue.forget_backend("gone", relied(), true).await.unwrap();
    assert_eq!((found.done, found.placements, found.last), (true, 2, 1));
    assert_eq!(catalogue.placements(id(1)).await.unwrap().len(), 1);
    assert_eq!((catalogue.get(id(2)).await.unwrap(), catalogue.wanted(id(2)).await.unwrap()), (None, None));
    assert_eq!(catalogue.enqueue_copies(9, configured()).await.unwrap(), 1, "the first has too few now");
    let found = catalogue.forget_backend("gone", relied(), false).await.unwrap();
    assert_eq!((found.done, found.placements), (true, 0), "there is nothing left");
}

pub(crate) async fn a_bad_placement_goes_only_where_a_live_one_is(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local", "cloud"], 2).await;
    for backend in ["local", "cloud"] {
        let seen = placement(&*catalogue, backend, "1").await;
        catalogue.transition(&seen, PlacementState::Bad, Some("torn")).await.unwrap();
    }
    let bad = placement(&*catalogue, "local", "1").await;
    assert!(!catalogue.retire(&bad, "cloud").await.unwrap());
    catalogue.commit(stored(snapshot(1, 10), vec![on("third", "1")], vec![])).await.unwrap();
    assert!(!catalogue.retire(&bad, "cloud").await.unwrap(), "nobody has looked at the live one");
    assert!(catalogue.retire(&bad, "third").await.unwrap());
    assert!(!catalogue.retire(&bad, "third").await.unwrap(), "it was seen in another state");
}

pub(crate) async fn events_are_bounded(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local"], 1).await;
    for round in 0..MAX_EVENTS + 20 {
        let seen = placement(&*catalogue, "local", "1").await;
        let to = if round % 2 == 0 { PlacementState::Suspect } else { PlacementState::Live };
        catalogue.transition(&seen, to, Some(&round.to_string())).await.unwrap();
    }
    let events = catalogue.events(id(1)).await.unwrap();
    assert_eq!((events.len(), events[0].why.as_deref()), (100, Some("119")));
}

pub(crate) async fn the_most_copies_that_somebody_wants_count(place: Place) {
    let catalogue = place.open().await;
    let wanted = async || catalogue.wanted(id(1)).await.unwrap().map(|wanted| wanted.copies);
    store(&*catalogue, 1, &["local"], 2).await;
    store(&*catalogue, 1, &["local"], 1).await;
    assert_eq!(wanted().await, Some(2));
    store(&*catalogue, 1, &["local"], 3).await;
    assert_eq!(wanted().await, Some(3));
}
