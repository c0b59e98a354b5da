//! The suite on real files, and what only files have: damage, other programs' databases, older schemas.

use rusqlite::Connection;

use super::*;
use crate::catalogue::suite::{Place, id, kind, lease, on, snapshot, stored, suite};

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/catalogue.sqlite");
    let original = path.clone();
    let open = move |platform| {
        let path = path.clone();
        Box::pin(async { Arc::new(SqliteCatalogue::open(path, platform).await.unwrap()) as Arc<dyn Catalogue> })
            as BoxFuture<'static, _>
    };
    Place::new(directory, open, move || copy(original.clone()))
}

/// Copies as `.backup` does, and puts back as `.restore` does.
fn copy(path: PathBuf) -> Box<dyn FnOnce() + Send> {
    let copy = (0..).map(|number| path.with_extension(number.to_string())).find(|path| !path.exists()).unwrap();
    let text = copy.to_str().unwrap().to_owned();
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [&text]).unwrap();
    Box::new(move || {
        let db = Connection::open(&path).unwrap();
        db.execute("ATTACH ?1 AS copy", [text]).unwrap();
        db.execute_batch("PRAGMA foreign_keys = off; BEGIN IMMEDIATE").unwrap();
        let mut tables = db.prepare("SELECT name FROM copy.sqlite_schema WHERE type = 'table'").unwrap();
        let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect();
        for table in tables {
            db.execute_batch(&format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM copy.{table}"))
                .unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
    })
}

suite!(place);

async fn open(path: impl Into<PathBuf>) -> Result<SqliteCatalogue> {
    SqliteCatalogue::open(path, Platform::system()).await
}

async fn fresh() -> (tempfile::TempDir, SqliteCatalogue) {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = open(directory.path().join("catalogue.sqlite")).await.unwrap();
    (directory, catalogue)
}

/// A version without leases wrote it, and may still run: its intents are found, and nothing says that they are dead.
/// Nothing in it is older than the file, so that this is no copy.
#[tokio::test]
async fn an_older_file_keeps_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.sqlite");
    let old = Connection::open(&path).unwrap();
    for step in &schema::STEPS[..2] {
        old.execute_batch(step).unwrap();
    }
    let begin = "INSERT INTO intents (key, backend, owner, started) VALUES (?1, 'local', 'feed', 4000000000)";
    old.execute(begin, ["before"]).unwrap();
    old.execute_batch("PRAGMA application_id = 0x54644c6b; PRAGMA user_version = 2").unwrap();

    let catalogue = open(&path).await.unwrap();
    // It is still open there, and goes on.
    old.execute(begin, ["after"]).unwrap();
    old.execute("DELETE FROM intents WHERE key = 'before'", []).unwrap();
    let owner = catalogue.acquire_owner("new", lease()).await.unwrap();
    catalogue.begin_intent("mine", "local", owner).await.unwrap();
    let intent = Intent {
        key: "after".into(),
        backend: "local".into(),
        owner: "feed".into(),
        token: None,
        started: 4_000_000_000,
    };
    assert_eq!(catalogue.stale_intents(Vec::new()).await.unwrap(), [intent]);
    catalogue.commit(stored(snapshot(1, 1), vec![on("local", "a")], vec!["mine".into()])).await.unwrap();
    catalogue.end_intent("after").await.unwrap();
    assert_eq!(catalogue.stats().await.unwrap().intents, 0);
}

/// Moves the files of a catalogue away, or one in their place.
fn replace(path: &Path, with: Option<&Path>) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(paths::beside(path, end));
    }
    with.iter().for_each(|with| std::fs::rename(with, path).unwrap());
}

/// What is open is not what the path names: nothing is recorded where nobody else looks for it.
#[tokio::test]
async fn a_catalogue_is_what_its_path_names() {
    let (directory, catalogue) = fresh().await;
    let (path, copy) = (catalogue.path().to_owned(), directory.path().join("copy.sqlite"));
    let store = async |seed: u64, owner, key: &str| {
        catalogue.begin_intent(key, "local", owner).await?;
        catalogue.commit(stored(snapshot(seed, 1), vec![on("local", &seed.to_string())], vec![key.into()])).await
    };
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(1, owner, "first").await.unwrap();
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    store(2, owner, "second").await.unwrap();

    replace(&path, Some(&copy));
    assert_eq!(kind(catalogue.renew_owner(owner, lease()).await), "conflict");
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(3, owner, "third").await.unwrap();
    assert!(open(&path).await.unwrap().get(id(3)).await.unwrap().is_some());

    replace(&path, None);
    for _ in 0..2 {
        assert_eq!(kind(catalogue.renew_owner(owner, lease()).await), "unavailable");
        assert_eq!(kind(store(4, owner, "fourth").await), "unavailable");
        assert_eq!(kind(catalogue.list(None, 1).await), "unavailable");
    }
    std::fs::write(&path, b"").unwrap();
    assert_eq!(kind(store(4, owner, "fourth").await), "unavailable");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "somebody is about to write it");
    let other = open(&path).await.unwrap();
    assert_eq!(kind(store(4, owner, "fourth").await), "conflict");
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(4, owner, "fourth").await.unwrap();
    assert!(other.get(id(4)).await.unwrap().is_some());
}

/// A log that belongs to what was there before is neither read nor written.
#[tokio::test]
async fn nothing_is_recorded_beside_the_log_of_another_catalogue() {
    for over in [true, false] {
        let (directory, catalogue) = fresh().await;
        let (path, copy) = (catalogue.path().to_owned(), directory.path().join("copy.sqlite"));
        let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
        Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        catalogue.commit(stored(snapshot(1, 1), vec![on("local", "1")], vec![])).await.unwrap();
        let whole = std::fs::read(&copy).unwrap();
        match over {
            true => {
                ["-wal", "-shm"].iter().for_each(|end| std::fs::remove_file(paths::beside(&path, end)).unwrap());
                // As `cp` does. To close it would take this process's locks away.
                let over = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
                std::io::Write::write_all(&mut &over, &whole).unwrap();
                std::mem::forget(over);
            }
            false => std::fs::rename(&copy, &path).unwrap(),
        }
        let error = catalogue.commit(stored(snapshot(2, 1), vec![], vec![])).await.unwrap_err();
        assert!(error.kind().name() == "unavailable" && error.advice().unwrap().contains("-wal"), "{error}");
        assert_eq!(kind(catalogue.renew_owner(owner, lease()).await), "unavailable");
        drop(catalogue);
        assert!(std::fs::read(&path).unwrap() == whole, "it is as it was put back");
    }
}

/// Names and placements of a version that knew one name and three states.
#[tokio::test]
async fn a_file_of_schema_3_keeps_its_names_and_placements() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.sqlite");
    let old = Connection::open(&path).unwrap();
    for step in &schema::STEPS[..3] {
        old.execute_batch(step).unwrap();
    }
    let ids = [1, 2].map(id);
    for (number, id) in ids.iter().enumerate() {
        let row = (id.as_bytes().as_slice(), number, (number == 0).then_some("web"));
        old.execute("INSERT INTO snapshots (id, size, name, created, segments) VALUES (?1, ?2, ?3, 7, x'')", row)
            .unwrap();
    }
    for (object, state) in [("z", "live"), ("b", "bad"), ("r", "removing")] {
        let row = (ids[0].as_bytes().as_slice(), object, state);
        let insert = "INSERT INTO placements (snapshot, backend, object, state, stored_bytes, created)
                      VALUES (?1, 'local', ?2, ?3, 100, 9)";
        old.execute(insert, row).unwrap();
    }
    old.execute_batch("PRAGMA application_id = 0x54644c6b; PRAGMA user_version = 3").unwrap();
    drop(old);

    let catalogue = open(&path).await.unwrap();
    let found = catalogue.find("web").await.unwrap();
    assert_eq!((found.id, found.names.as_slice(), found.created), (ids[0], ["web".to_owned()].as_slice(), 7));
    assert_eq!(catalogue.get(ids[1]).await.unwrap().unwrap().name, None);
    let placements = catalogue.placements(ids[0]).await.unwrap();
    let told: Vec<_> = placements.iter().map(|one| (one.object.as_str(), one.state.name(), one.since > 9)).collect();
    // What was bad may have been so on bad evidence.
    assert_eq!(told, [("z", "live", false), ("b", "bad", true), ("r", "removing", true)]);
    assert!(placements[1].reason.is_some() && placements[0].reason.is_none());
    assert!(catalogue.transition(&placements[1], PlacementState::Live, None).await.unwrap());
    assert!(catalogue.transition(&placements[0], PlacementState::Bad, None).await.unwrap());
    let begun = catalogue.begin_removal(ids[0], RemovalScope::Name("web".into())).await.unwrap();
    assert!(matches!(begun, BegunRemoval::Objects(objects) if objects.len() == 3));
    assert_eq!(catalogue.named("web").await.unwrap(), None);
}

/// A lease is renewed though every thread for blocking work is taken, the connection with them, and without any runtime.
#[test]
fn leases_wait_for_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let (_directory, catalogue) = runtime.block_on(fresh());
    let busy = catalogue.connection.lock().unwrap();
    let (taken, free) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        let hangs = tokio::task::spawn_blocking(move || free.recv().ok());
        let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
        catalogue.renew_owner(owner, lease()).await.unwrap();
        drop((busy, taken));
        hangs.await.unwrap();
    });
}

#[tokio::test]
async fn several_may_make_the_file_at_once() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.sqlite");
        let opened = (0..8).map(|_| tokio::spawn(open(path.clone())));
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
    let error = open(&path).await.unwrap_err();
    assert_eq!(error.kind().name(), "corrupt");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert!(error.advice().unwrap().starts_with("move "));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    assert_eq!(kind(open(directory.path()).await), "invalid");

    let foreign = directory.path().join("foreign.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    let error = open(&foreign).await.unwrap_err();
    assert!(error.to_string().ends_with("it is a database of another program"), "{error}");

    let newer = directory.path().join("newer.sqlite");
    drop(open(&newer).await.unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open(&newer).await.unwrap_err();
    assert_eq!(error.kind().name(), "unsupported");
    let supported = schema::STEPS.len();
    assert!(error.to_string().contains(&format!("its schema is 99, supported are up to {supported}")), "{error}");
}

#[tokio::test]
async fn damage_is_called_corrupt() {
    let (_directory, catalogue) = fresh().await;
    for seed in 0..200 {
        catalogue.commit(stored(snapshot(seed, 1), vec![on("local", &seed.to_string())], vec![])).await.unwrap();
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
    let error = match open(&path).await {
        Ok(catalogue) => catalogue.list(None, 1000).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind().name(), "corrupt", "{error}");
    assert!(error.advice().unwrap().contains(".backup"));
}

/// A program of the version before packs that still has the file open: it cannot store again what is kept for others alone,
/// since it would not be known.
#[tokio::test]
async fn an_earlier_version_cannot_store_what_is_kept_for_others() {
    use crate::catalogue::RemovalScope;
    use crate::catalogue::suite::{pack_on, raw};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.sqlite");
    let catalogue = open(&path).await.unwrap();
    let store = async |seed, placement| {
        Catalogue::commit(&catalogue, stored(snapshot(seed, 10), vec![placement], vec![])).await.unwrap();
    };
    store(1, on("local", "base")).await;
    store(2, pack_on("local", "delta", 2, &[raw(1)])).await;
    Catalogue::begin_removal(&catalogue, id(1), RemovalScope::Snapshot).await.unwrap();
    let old = Connection::open(&path).unwrap();
    let bytes = id(1);
    let record = "INSERT INTO snapshots (id, size, base, created, segments, unnamed) VALUES (?1, 10, NULL, 0, x'01', 1)
                  ON CONFLICT (id) DO UPDATE SET unnamed = 1, segments = excluded.segments WHERE size = excluded.size";
    let place = "INSERT INTO placements (snapshot, backend, object, state, stored_bytes, created)
                 VALUES (?1, 'local', 'again', 'live', 10, 0)";
    for statement in [record, place] {
        let error = old.execute(statement, [bytes.as_bytes().as_slice()]).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");
    }
    // This one can.
    store(1, on("local", "again")).await;
    assert!(Catalogue::get(&catalogue, id(1)).await.unwrap().is_some());
}
