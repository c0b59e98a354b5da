//! Turns: the rotation of scrubs on each backend, and of jobs that are as urgent.

use super::jobs::{all, configured, placement, store};
use super::{BEGINNING, Place, lease};
use crate::catalogue::{HeldJob, Job, JobEnd, JobState, Take};

pub(crate) async fn scrubs_go_on_where_they_were(place: Place) {
    let catalogue = place.open().await;
    for seed in 1..=3 {
        store(&*catalogue, seed, &["local"], 1).await;
        place.pass(10);
    }
    let now = BEGINNING + 30;
    let names = async |after, before| {
        let found = catalogue.to_scrub("local", after, before, 2).await.unwrap();
        let names: Vec<_> = found.iter().map(|one| one.placement.object.as_str().to_owned()).collect();
        (names, found.last().map(|one| one.cursor))
    };
    let (first, cursor) = names(None, now).await;
    assert_eq!(first, ["1", "2"]);
    assert_eq!(names(cursor, now).await.0, ["3"]);
    assert_eq!(names(None, now - 15).await.0, ["1", "2"]);
    catalogue.note_scrubbed(&placement(&*catalogue, "local", "1").await, now).await.unwrap();
    // Also for another host.
    let found = place.open().await.to_scrub("local", None, now, 9).await.unwrap();
    let names: Vec<_> = found.iter().map(|one| one.placement.object.as_str()).collect();
    assert_eq!(names, ["2", "3"]);
    // Another backend has its own.
    store(&*catalogue, 4, &["cloud"], 1).await;
    let found = catalogue.to_scrub("cloud", None, now + 1, 9).await.unwrap();
    assert_eq!(found.iter().map(|one| one.placement.backend.as_str()).collect::<Vec<_>>(), ["cloud"]);
}

pub(crate) async fn what_was_not_tried_is_not_counted_and_comes_before_what_failed(place: Place) {
    let catalogue = place.open().await;
    for seed in 1..=3 {
        store(&*catalogue, seed, &["local"], 2).await;
    }
    catalogue.enqueue_copies(9, configured()).await.unwrap();
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    let take = async || catalogue.take_job(Take::Due, token).await.unwrap().unwrap();
    let (first, second) = (take().await, take().await);
    let (held, later) = (|job: &Job| HeldJob { id: job.id, token }, BEGINNING + 30);
    catalogue.end_job(held(&first), JobEnd::Wait(later, "away".to_owned())).await.unwrap();
    catalogue.end_job(held(&second), JobEnd::Untried(later, "left out".to_owned())).await.unwrap();
    let jobs = all(&*catalogue).await;
    let of = |id| jobs.iter().find(|job| job.id == id).map(|job| (job.state, job.attempts, job.not_before));
    assert_eq!(of(first.id), Some((JobState::Waiting, 1, later)));
    assert_eq!(of(second.id), Some((JobState::Waiting, 0, later)));
    assert!(!catalogue.end_job(held(&second), JobEnd::Untried(later, "again".to_owned())).await.unwrap());
    place.pass(30);
    let third = take().await;
    assert!(third.id != first.id && third.attempts == 1);
    let (then, last) = (take().await, take().await);
    assert_eq!((then.attempts, last.id, last.attempts), (1, first.id, 2));
}
