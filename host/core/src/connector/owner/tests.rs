//! Leases of a host: when one is taken, lost, and known to be dead.

use super::*;
use crate::catalogue::{Commit, NewSnapshot, SqliteCatalogue};
use crate::types::SnapshotId;

async fn fresh() -> (tempfile::TempDir, Arc<dyn Catalogue>, Owner) {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = SqliteCatalogue::open(dir.path().join("c.sqlite"), Platform::system()).await.unwrap();
    let catalogue: Arc<dyn Catalogue> = Arc::new(catalogue);
    let owner = Owner::new(catalogue.clone(), dir.path().join("run"), Platform::system());
    (dir, catalogue, owner)
}

fn locks(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("run")).map_or(0, Iterator::count)
}

async fn keys(owner: &Owner) -> Vec<String> {
    owner.stale_intents().await.unwrap().into_iter().map(|stale| stale.intent.key).collect()
}

#[tokio::test]
async fn a_lease_is_taken_by_the_first_store_and_ends_with_the_host() {
    let (dir, catalogue, owner) = fresh().await;
    assert_eq!((keys(&owner).await.len(), locks(&dir)), (0, 0), "it only reads");
    owner.begin_intent("a", "local").await.unwrap();
    owner.begin_intent("b", "local").await.unwrap();
    let error = owner.begin_intent("b", "local").await.unwrap_err();
    assert!(error.message().contains("already in progress"), "{error}");
    let other = Owner::new(catalogue, dir.path().join("run"), Platform::system());
    assert_eq!((keys(&other).await.len(), locks(&dir)), (0, 1));
    drop(owner);
    assert_eq!(locks(&dir), 0);
    assert_eq!(keys(&other).await, ["a", "b"]);
}

#[tokio::test]
async fn a_host_that_lost_its_lease_goes_on_under_another() {
    let (_dir, catalogue, owner) = fresh().await;
    let commit = async |key: &str| {
        let id = SnapshotId::from_bytes([1; 32]);
        let new = NewSnapshot { id, size: 1, base: None, name: None, by_id: true, segments: vec![] };
        let intents = vec![key.into()];
        catalogue.commit(Commit { intents, ..Commit::of(new) }).await
    };
    owner.begin_intent("before", "local").await.unwrap();
    let name = owner.keeper.lock().await.as_ref().unwrap().name.clone();
    catalogue.end_owners(vec![name]).await.unwrap();
    assert_eq!(keys(&owner).await, ["before"]);
    owner.begin_intent("after", "local").await.unwrap();
    assert_eq!(keys(&owner).await, ["before"]);
    assert_eq!(*commit("before").await.unwrap_err().kind(), ErrorKind::Conflict);
    commit("after").await.unwrap();
}

/// What a process leaves that is killed: a lease that runs on, and a lock file that nobody holds.
#[tokio::test]
async fn a_killed_host_is_dead_at_once() {
    let (dir, catalogue, owner) = fresh().await;
    let token = catalogue.acquire_owner("killed", LEASE).await.unwrap();
    catalogue.begin_intent("a", "local", token).await.unwrap();
    assert!(keys(&owner).await.is_empty(), "a host elsewhere has its lock file elsewhere");
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(dir.path().join("run/killed.lock"), b"").unwrap();
    assert_eq!(keys(&owner).await, ["a"]);
    assert_eq!(locks(&dir), 0);
    assert_eq!(keys(&owner).await, ["a"], "also once the file is gone");
}
