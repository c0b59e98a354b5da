//! Which job is taken: versions and their bases, jobs that were passed over, and those that others were in the way of.

use super::jobs::{configured, copy_of, store};
use super::{Place, id, lease, on, snapshot, stored};
use crate::catalogue::{Between, Choice, Commit, HeldJob, JobEnd, JobKind, NewJob, NewSnapshot, Take, WantedCopies};

pub(crate) async fn a_version_waits_for_its_base_on_its_backend_and_not_for_long(place: Place) {
    let catalogue = place.open().await;
    let on_route = |commit: Commit, route: &str| Commit {
        wanted: Some(WantedCopies { copies: 1, route: route.to_owned() }),
        ..commit
    };
    catalogue.commit(on_route(stored(snapshot(1, 10), vec![on("hot", "1")], vec![]), "slow")).await.unwrap();
    for (seed, route) in [(2, "slow"), (3, "fine")] {
        let version = NewSnapshot { base: Some(id(1)), ..snapshot(seed, 10) };
        let placements = vec![on("hot", &seed.to_string())];
        catalogue.commit(on_route(stored(version, placements, vec![]), route)).await.unwrap();
    }
    let push = |seed| NewJob { kind: JobKind::Push, ..copy_of(seed) };
    catalogue.enqueue(vec![push(1), push(2), push(3)]).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let route = |name: &str, backend: &str| (name.to_owned(), vec![backend.to_owned()]);
    let routes = [route("slow", "cloud"), route("fine", "good")].into();
    let choice = Choice { routes, ..Choice::default() };
    let take = async || {
        let taken = catalogue.take_job_beside(Take::Due, &choice, token).await.unwrap();
        taken.map(|(job, between)| (job.snapshot, between.target))
    };
    assert_eq!(take().await, Some((id(1), "cloud".to_owned())));
    assert_eq!(take().await, Some((id(3), "good".to_owned())), "its base goes elsewhere");
    assert_eq!(take().await, None);
    place.pass(59);
    catalogue.renew_owner(token, lease()).await.unwrap();
    assert_eq!(take().await, None);
    place.pass(1);
    assert_eq!(take().await, Some((id(2), "cloud".to_owned())), "it has waited long enough");
}

pub(crate) async fn what_was_passed_over_is_found_as_soon_as_it_may_be_begun(place: Place) {
    let catalogue = place.open().await;
    for seed in 1..=600 {
        store(&*catalogue, seed, &["good"], 2).await;
    }
    catalogue.enqueue_copies(1000, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let busy = |source: &str, target: &str| Between { source: source.to_owned(), target: target.to_owned() };
    let routes = [("default".to_owned(), vec!["cloud".to_owned(), "good".to_owned()])];
    let take = async |not_between: Vec<Between>, without: Vec<u64>| {
        let choice = Choice { routes: routes.clone().into(), not_between, without };
        let taken = catalogue.take_job_beside(Take::Due, &choice, token).await.unwrap();
        taken.map(|(job, _)| (job.snapshot, job.id))
    };
    let slow = || vec![busy("good", "cloud")];
    assert_eq!(take(slow(), vec![]).await, None);
    // What comes later is found.
    store(&*catalogue, 1001, &["third"], 2).await;
    store(&*catalogue, 1002, &["third"], 1).await;
    catalogue.enqueue(vec![NewJob { kind: JobKind::Push, ..copy_of(1001) }, copy_of(1002)]).await.unwrap();
    let second = catalogue.jobs_of(id(1002)).await.unwrap()[0].id;
    let both = || vec![busy("good", "cloud"), busy("third", "cloud")];
    assert_eq!(take(both(), vec![]).await, None);
    assert_eq!(take(slow(), vec![second]).await.map(|found| found.0), Some(id(1001)));
    assert_eq!(take(slow(), vec![second]).await, None);
    assert_eq!(take(slow(), vec![]).await.map(|found| found.0), Some(id(1002)));
    assert_eq!(take(slow(), vec![]).await, None);
    // One of those that were passed over can be read from elsewhere by now.
    catalogue.commit(stored(snapshot(300, 10), vec![on("hot", "300")], vec![])).await.unwrap();
    place.pass(12);
    catalogue.renew_owner(token, lease()).await.unwrap();
    assert_eq!(take(slow(), vec![]).await.map(|found| found.0), Some(id(300)));
    // The two backends are free again.
    let first = catalogue.jobs(0, 1).await.unwrap().remove(0).snapshot;
    assert_eq!(take(vec![], vec![]).await.map(|found| found.0), Some(first));
    assert_eq!(take(slow(), vec![]).await, None);
}

pub(crate) async fn a_job_that_others_were_in_the_way_of_has_not_failed(place: Place) {
    let catalogue = place.open().await;
    store(&*catalogue, 1, &["local"], 2).await;
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    for round in 0..5 {
        let job = catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
        // It was its time: nothing has woken it.
        assert_eq!((job.attempts, job.was_woken()), (1, false));
        let until = super::BEGINNING + 10 * (round + 1);
        let held = HeldJob { id: job.id, token };
        assert!(catalogue.end_job(held, JobEnd::Untried(until, "others".to_owned())).await.unwrap());
        place.pass(10);
        catalogue.renew_owner(token, lease()).await.unwrap();
    }
    let job = catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
    let later = JobEnd::Wait(super::BEGINNING + 1000, "away".to_owned());
    assert!(catalogue.end_job(HeldJob { id: job.id, token }, later).await.unwrap());
    catalogue.commit(stored(snapshot(1, 10), vec![on("third", "1")], vec![])).await.unwrap();
    assert!(catalogue.take_job(Take::Due, token).await.unwrap().unwrap().was_woken());
}
