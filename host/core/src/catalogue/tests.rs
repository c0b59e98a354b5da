//! Tests on real files, with several connections, and with damaged files.

use proptest::prelude::*;

use super::*;

fn id(seed: u64) -> SnapshotId {
    SnapshotId::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

fn snapshot(seed: u64, size: u64) -> NewSnapshot {
    NewSnapshot { id: id(seed), size, base: None, name: None, segments: vec![seed as u8; 64] }
}

fn object(name: &str) -> ObjectId {
    ObjectId::new(name).unwrap()
}

fn on(backend: &str, name: &str) -> NewPlacement {
    NewPlacement { backend: backend.into(), object: object(name), encoding: Encoding::Raw, stored_bytes: 100 }
}

async fn fresh() -> (tempfile::TempDir, Catalogue) {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(directory.path().join("new/catalogue.sqlite")).await.unwrap();
    (directory, catalogue)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.unwrap_err().kind().name()
}

#[tokio::test]
async fn a_store_is_recorded_and_survives() {
    let (_directory, catalogue) = fresh().await;
    catalogue.begin_intent("key-1", "local", "me").await.unwrap();
    assert_eq!(kind(catalogue.begin_intent("key-1", "local", "me").await), "conflict");
    let mut new = snapshot(1, 5000);
    new.base = Some(id(9));
    new.name = Some("web".into());
    let placements = vec![on("local", "a"), on("cloud", "b")];
    catalogue.commit(new, placements, vec!["key-1".into()]).await.unwrap();

    let again = Catalogue::open(catalogue.path()).await.unwrap();
    drop(catalogue);
    let found = again.get(id(1)).await.unwrap().unwrap();
    assert_eq!((found.size, found.base, found.name.as_deref()), (5000, Some(id(9)), Some("web")));
    assert!(found.created > 1_700_000_000);
    assert_eq!(again.segments(id(1)).await.unwrap(), [1; 64]);
    assert_eq!(kind(again.segments(id(2)).await), "not-found");
    let placements = again.placements(id(1)).await.unwrap();
    assert_eq!(placements.len(), 2);
    assert_eq!((placements[0].backend.as_str(), placements[0].object.as_str()), ("local", "a"));
    assert!(
        placements
            .iter()
            .all(|p| p.state == PlacementState::Live && p.encoding == Encoding::Raw && p.stored_bytes == 100)
    );
    assert_eq!(again.stale_intents(|_| false).await.unwrap(), []);
    assert_eq!(again.by_size(5000).await.unwrap(), [id(1)]);
    assert_eq!(again.by_size(5001).await.unwrap(), []);
    assert_eq!(again.get(id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_is_all_or_nothing() {
    let (_directory, catalogue) = fresh().await;
    catalogue.commit(snapshot(1, 10), vec![on("local", "a")], vec![]).await.unwrap();
    catalogue.begin_intent("key", "local", "me").await.unwrap();
    // The second object belongs to another snapshot.
    let result = catalogue.commit(snapshot(2, 20), vec![on("cloud", "x"), on("local", "a")], vec!["key".into()]).await;
    assert_eq!(kind(result), "conflict");
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    assert_eq!(catalogue.placement_of("cloud", &object("x")).await.unwrap(), None);
    assert_eq!(catalogue.stale_intents(|_| false).await.unwrap().len(), 1);
    assert_eq!(kind(catalogue.commit(snapshot(1, 11), vec![], vec![]).await), "conflict");
    assert_eq!(kind(catalogue.commit(snapshot(3, u64::MAX), vec![], vec![]).await), "invalid");
}

#[tokio::test]
async fn storing_again_adds_and_revives() {
    let (_directory, catalogue) = fresh().await;
    let mut first = snapshot(1, 10);
    first.name = Some("first".into());
    catalogue.commit(first, vec![on("local", "a")], vec![]).await.unwrap();
    catalogue.mark_placement("local", &object("a"), PlacementState::Bad).await.unwrap();
    assert_eq!(catalogue.placements_in(PlacementState::Bad).await.unwrap().len(), 1);
    catalogue.commit(snapshot(1, 10), vec![on("local", "a"), on("local", "b")], vec![]).await.unwrap();
    let placements = catalogue.placements(id(1)).await.unwrap();
    assert!(placements.len() == 2 && placements.iter().all(|p| p.state == PlacementState::Live));
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().name.as_deref(), Some("first"));
    let mut renamed = snapshot(1, 10);
    renamed.name = Some("second".into());
    catalogue.commit(renamed, vec![], vec![]).await.unwrap();
    assert_eq!(catalogue.find("second").await.unwrap().id, id(1));
    assert_eq!(kind(catalogue.find("first").await), "not-found");
}

#[tokio::test]
async fn removal_goes_step_by_step() {
    let (_directory, catalogue) = fresh().await;
    let mut child = snapshot(2, 10);
    child.base = Some(id(1));
    catalogue.commit(snapshot(1, 10), vec![on("local", "a")], vec![]).await.unwrap();
    catalogue.commit(child, vec![on("local", "b")], vec![]).await.unwrap();
    assert_eq!(kind(catalogue.remove_snapshot(id(1)).await), "conflict");
    catalogue.mark_placement("local", &object("a"), PlacementState::Removing).await.unwrap();
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap()[0].snapshot, id(1));
    catalogue.remove_placement("local", &object("a")).await.unwrap();
    catalogue.remove_placement("local", &object("a")).await.unwrap();
    assert_eq!(kind(catalogue.mark_placement("local", &object("a"), PlacementState::Bad).await), "not-found");
    catalogue.remove_snapshot(id(1)).await.unwrap();
    assert_eq!(kind(catalogue.remove_snapshot(id(1)).await), "not-found");
    // Snapshots based on it stay, and keep naming it.
    assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().base, Some(id(1)));
}

#[tokio::test]
async fn snapshots_are_found_by_what_people_type() {
    let (_directory, catalogue) = fresh().await;
    for seed in 0..50 {
        let mut new = snapshot(seed, seed);
        new.name = (seed >= 45).then(|| "many".into()).or_else(|| (seed == 7).then(|| "seven".into()));
        catalogue.commit(new, vec![], vec![]).await.unwrap();
    }
    let text = id(3).to_string();
    assert_eq!(catalogue.find(&text).await.unwrap().id, id(3));
    assert_eq!(catalogue.find(&text[..20]).await.unwrap().id, id(3));
    assert_eq!(catalogue.find(&text[..54]).await.unwrap().id, id(3));
    assert_eq!(catalogue.find("seven").await.unwrap().id, id(7));
    for unknown in ["", "tl1", &text[..6], "tl1!!!!!!!!", "nobody", &id(99).to_string(), &"x".repeat(1000)] {
        assert_eq!(kind(catalogue.find(unknown).await), "not-found", "{unknown}");
    }
    // A name goes to the latest snapshot stored under it.
    assert_eq!(catalogue.find("many").await.unwrap().id, id(49));
    assert_eq!(catalogue.get(id(48)).await.unwrap().unwrap().name, None);
}

#[tokio::test]
async fn an_ambiguous_beginning_is_refused() {
    let (_directory, catalogue) = fresh().await;
    for last in 0..2 {
        let mut bytes = [7; 32];
        bytes[31] = last;
        let new = NewSnapshot { id: SnapshotId::from_bytes(bytes), ..snapshot(0, 1) };
        catalogue.commit(new, vec![], vec![]).await.unwrap();
    }
    let text = SnapshotId::from_bytes([7; 32]).to_string();
    assert_eq!(kind(catalogue.find(&text[..40]).await), "invalid");
}

#[tokio::test]
async fn pages_follow_each_other() {
    let (_directory, catalogue) = fresh().await;
    for seed in 0..7 {
        catalogue.commit(snapshot(seed, 1), vec![], vec![]).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = catalogue.list(after, 3).await.unwrap();
        assert!(page.snapshots.len() <= 3);
        seen.extend(page.snapshots.into_iter().map(|snapshot| snapshot.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..7).map(id).collect::<Vec<_>>());
    assert_eq!(catalogue.list(None, 7).await.unwrap().next, None);
}

#[tokio::test]
async fn the_numbers_add_up() {
    let (_directory, catalogue) = fresh().await;
    assert_eq!(catalogue.stats().await.unwrap(), Stats::default());
    catalogue.commit(snapshot(1, 10), vec![on("a", "1"), on("b", "1")], vec![]).await.unwrap();
    catalogue.commit(snapshot(2, 20), vec![on("b", "2")], vec![]).await.unwrap();
    catalogue.mark_placement("b", &object("1"), PlacementState::Bad).await.unwrap();
    catalogue.begin_intent("k", "a", "me").await.unwrap();
    let row = |backend: &str, placements, bad| BackendStats {
        backend: backend.into(),
        placements,
        bad,
        stored_bytes: placements * 100,
    };
    let backends = vec![row("a", 1, 0), row("b", 2, 1)];
    let expected = Stats { snapshots: 2, logical_bytes: 30, intents: 1, backends };
    assert_eq!(catalogue.stats().await.unwrap(), expected);
}

#[tokio::test]
async fn only_the_dead_leave_stale_intents() {
    let (directory, catalogue) = fresh().await;
    let run = directory.path().join("run");
    let (living, dying) = (Owner::acquire(&run).unwrap(), Owner::acquire(&run).unwrap());
    catalogue.begin_intent("a", "local", living.name()).await.unwrap();
    catalogue.begin_intent("b", "local", dying.name()).await.unwrap();
    catalogue.begin_intent("c", "local", "never-was").await.unwrap();
    let stale = async || {
        let run = run.clone();
        let stale = catalogue.stale_intents(move |owner| Owner::is_alive(&run, owner)).await.unwrap();
        stale.into_iter().map(|intent| intent.key).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(stale().await, ["c".to_owned()].into());
    drop(dying);
    assert_eq!(stale().await, ["b".to_owned(), "c".to_owned()].into());
    catalogue.end_intent("b").await.unwrap();
    catalogue.end_intent("b").await.unwrap();
    assert_eq!(stale().await, ["c".to_owned()].into());
}

/// The kernel ends a killed process: its lock is released, the file stays.
#[test]
fn a_killed_owner_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed.lock");
    // Without a fork, so that the lock is in the process that is killed and nowhere else.
    let mut holder = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&path)
        .args(["sh", "-c", "echo locked; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert!(Owner::is_alive(directory.path(), "feed"));
    assert_eq!(Owner::sweep(directory.path()).unwrap(), 0);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!Owner::is_alive(directory.path(), "feed"));
    assert!(path.exists());
    assert_eq!(Owner::sweep(directory.path()).unwrap(), 1);
    assert!(!path.exists());
    assert_eq!(Owner::sweep(&directory.path().join("absent")).unwrap(), 0);
}

#[test]
fn sweeping_while_others_come_to_life_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            for _ in 0..300 {
                Owner::sweep(path).unwrap();
            }
        });
        while !sweeper.is_finished() {
            let owner = Owner::acquire(path).unwrap();
            assert!(Owner::is_alive(path, owner.name()));
        }
    });
}

#[tokio::test]
async fn several_connections_write_at_once() {
    let (_directory, catalogue) = fresh().await;
    let mut tasks = Vec::new();
    for task in 0..4u64 {
        let other = Catalogue::open(catalogue.path()).await.unwrap();
        tasks.push(tokio::spawn(async move {
            for i in 0..25 {
                let seed = task * 100 + i;
                let key = format!("key-{seed}");
                other.begin_intent(&key, "local", "me").await.unwrap();
                other.commit(snapshot(seed, 1), vec![on("local", &key)], vec![key]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = catalogue.stats().await.unwrap();
    assert_eq!((stats.snapshots, stats.intents, stats.backends[0].placements), (100, 0, 100));
}

#[tokio::test]
async fn several_may_make_the_file_at_once() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.sqlite");
        let opened = (0..8).map(|_| tokio::spawn(Catalogue::open(path.clone())));
        for catalogue in futures::future::join_all(opened).await {
            catalogue.unwrap().unwrap().stats().await.unwrap();
        }
    }
}

#[tokio::test]
async fn files_that_are_no_catalogue_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.sqlite");
    std::fs::write(&path, "this is not a database, though it is long enough to be looked at ".repeat(40)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Catalogue::open(&path).await.unwrap_err();
    assert_eq!(error.kind().name(), "corrupt");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert!(error.advice().unwrap().starts_with("move "));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    assert_eq!(kind(Catalogue::open(directory.path()).await), "invalid");

    let foreign = directory.path().join("foreign.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    let error = Catalogue::open(&foreign).await.unwrap_err();
    assert!(error.to_string().ends_with("it is a database of another program"), "{error}");

    let newer = directory.path().join("newer.sqlite");
    drop(Catalogue::open(&newer).await.unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = Catalogue::open(&newer).await.unwrap_err();
    assert_eq!(error.kind().name(), "unsupported");
    assert!(error.to_string().contains("its schema is 7, supported are up to 2"), "{error}");
}

#[tokio::test]
async fn damage_is_called_corrupt() {
    let (_directory, catalogue) = fresh().await;
    for seed in 0..200 {
        catalogue.commit(snapshot(seed, 1), vec![on("local", &seed.to_string())], vec![]).await.unwrap();
    }
    let path = catalogue.path().to_owned();
    drop(catalogue);
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "wal_checkpoint", "truncate").ok();
    drop(connection);
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 3 * 4096);
    bytes[4096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let error = match Catalogue::open(&path).await {
        Ok(catalogue) => catalogue.list(None, 1000).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind().name(), "corrupt", "{error}");
    assert!(error.advice().unwrap().contains(".backup"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any beginning of an id that is long enough finds just the ids that begin so.
    #[test]
    fn beginnings_are_exact(seeds in prop::collection::vec(0u64..1000, 1..20), len in 7usize..55) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_directory, catalogue) = fresh().await;
            for seed in &seeds {
                catalogue.commit(snapshot(*seed, 1), vec![], vec![]).await.unwrap();
            }
            let ids: std::collections::BTreeSet<String> = seeds.iter().map(|seed| id(*seed).to_string()).collect();
            for text in &ids {
                let start = &text[..len];
                let same = ids.iter().filter(|other| other.starts_with(start)).count();
                match catalogue.find(start).await {
                    Ok(found) => assert!(same == 1 && found.id.to_string() == *text),
                    Err(error) => assert!(same > 1, "{error}"),
                }
            }
        });
    }
}
