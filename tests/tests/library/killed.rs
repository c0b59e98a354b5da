//! The program killed before each of its steps: every system call that changes a file or sends bytes (`stepper`). What was
//! acknowledged is there afterwards, what was not is there whole or not at all, and a collection leaves nothing behind.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidelock::config::Config;
use tidelock::{Host, ImportOptions, NoSecrets, SnapshotId};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::{files, tidelock};

use crate::support::{read, store};

/// The exit status of `stepper` for a program that it has killed.
const KILLED: i32 = 9;

/// More steps than any command here has: one that comes this far never ends.
const MANY: u64 = 2000;

/// Not a multiple of a page.
const SIZE: usize = 150_001;

pub struct Place {
    dir: tempfile::TempDir,
}

/// How a run under `stepper` ended.
pub struct Ended {
    /// The step before which it was killed, if it was.
    pub killed_before: Option<String>,
    pub status: Option<i32>,
    stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With this configuration, whose data directory is the embedded default's.
    pub fn with(config: &str) -> Self {
        let place = Self::new();
        std::fs::write(place.path("tidelock.toml"), config).unwrap();
        place
    }

    /// A command on an image of these bytes, which gives it the name of the step; with what may come of it.
    pub fn named(&self, command: &[&str], number: u64, bytes: Vec<u8>) -> (Vec<String>, (String, Vec<u8>)) {
        std::fs::write(self.path("image"), &bytes).unwrap();
        let named = format!("n{number}");
        let arguments = command.iter().chain(&["image", "--name", &named]).map(|text| (*text).to_owned()).collect();
        (arguments, (named, bytes))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A host of this process on the same data as the program's embedded default.
    pub async fn open(&self) -> Host {
        self.open_data("tidelock-data").await
    }

    async fn open_data(&self, data: &str) -> Host {
        let config = match std::fs::read_to_string(self.path("tidelock.toml")) {
            Ok(text) => Config::parse(&text, self.dir.path()).unwrap(),
            Err(_) => Config::embedded_default(self.path(data)),
        };
        Host::start(&config, &NoSecrets).await.unwrap_or_else(|error| panic!("it starts again: {error:?}"))
    }

    /// Runs the program and kills it before this step: its number, or how the name of its call begins.
    fn step(&self, which: impl Display, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepper"));
        command.arg(which.to_string()).arg(tidelock()).args(arguments).current_dir(self.dir.path());
        command.stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status.code();
        let killed_before = (status == Some(KILLED)).then(|| stderr.lines().last().unwrap_or_default().to_owned());
        assert!(killed_before.is_some() || status == Some(0), "step {which} of {arguments:?}: {status:?}: {stderr}");
        Ended { killed_before, status, stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr }
    }

    pub fn objects(&self) -> Vec<PathBuf> {
        let all = files(&self.path("tidelock-data/objects")).into_iter();
        all.filter(|path| file_name(path).starts_with("snap-") && path.extension().is_none()).collect()
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let all = files(&self.path("tidelock-data/objects/.tmp")).into_iter();
        all.chain(files(&self.path("tidelock-data/tmp"))).collect()
    }
}

pub fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Goes through the steps of a command until it has no more. `before` gives the arguments of the run that is killed, and
/// what `after` is told. The command is killed at least once before a call of each of these kinds, the beginnings of their
/// names: the threads of a command take turns anew in each run, so that a call may be at another number each time.
pub async fn at_every_step<T>(
    place: &Place,
    kinds: &[&str],
    before: impl AsyncFn(u64) -> (Vec<String>, T),
    after: impl AsyncFn(&Ended, T),
) {
    let mut seen = BTreeSet::new();
    let run = async |number: u64, which: &dyn Display| {
        let (arguments, told) = before(number).await;
        let ended = place.step(which, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        after(&ended, told).await;
        (ended, arguments)
    };
    let mut number = 1;
    loop {
        let (ended, arguments) = run(number, &number).await;
        match &ended.killed_before {
            Some(step) => seen.extend(step.rsplit(' ').next().map(str::to_owned)),
            None => {
                assert!(number > 10, "{arguments:?} has so few steps that something is amiss: {number}");
                println!("{arguments:?}: killed before each of {} steps: {seen:?}", number - 1);
                break;
            }
        }
        number += 1;
        assert!(number < MANY, "it never ends");
    }
    for kind in kinds {
        if !seen.iter().any(|seen| seen.starts_with(kind)) {
            number += 1;
            let (ended, arguments) = run(number, kind).await;
            assert!(ended.killed_before.is_some(), "{arguments:?}: no {kind} among its steps: {seen:?}");
        }
    }
}

/// What holds at any time: all that is listed can be read, and after a collection nothing else is there.
pub async fn sound(place: &Place, host: &Host, what: &str) -> BTreeSet<SnapshotId> {
    sound_and(place, host, what, 0).await
}

/// The same, with so many objects of snapshots that were removed and are kept for others.
pub async fn sound_and(place: &Place, host: &Host, what: &str, kept: usize) -> BTreeSet<SnapshotId> {
    host.gc(Duration::from_millis(1)).await.unwrap_or_else(|error| panic!("gc, {what}: {error:?}"));
    let verified = host.verify(None, true, None).await.unwrap();
    assert!(verified.bad.is_empty() && verified.unreachable.is_empty(), "{what}: {verified:?}");
    let (mut ids, mut known) = (BTreeSet::new(), BTreeSet::new());
    for snapshot in host.list(None, 10_000).await.unwrap().snapshots {
        for placement in host.stat(snapshot.id).await.unwrap().placements {
            assert_eq!(placement.state, "live", "{what}");
            known.insert(placement.object.to_string());
        }
        ids.insert(snapshot.id);
    }
    assert_eq!(verified.checked, ids.len() as u64, "{what}");
    let objects = place.objects();
    let unknown = |object: &&PathBuf| !known.iter().any(|known| known.ends_with(file_name(object)));
    let unknown: Vec<_> = objects.iter().filter(unknown).collect();
    assert_eq!(unknown.len(), kept, "{what}: nothing knows of {unknown:?}");
    assert_eq!(objects.len(), known.len() + kept, "{what}");
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new(), "{what}");
    ids
}

pub fn acknowledged(ended: &Ended) -> Option<SnapshotId> {
    ended.stdout.trim().parse().ok()
}

/// What was acknowledged is what was found, and a command that was not killed has acknowledged it.
#[track_caller]
pub fn assert_kept(ended: &Ended, found: Option<SnapshotId>, step: &str) {
    match acknowledged(ended) {
        Some(id) => assert_eq!(found, Some(id), "{step}: it was acknowledged"),
        None => assert!(ended.killed_before.is_some(), "{step}: {}", ended.stderr),
    }
}

#[tokio::test]
async fn a_store_that_is_killed_at_any_step() {
    let place = Place::new();
    std::fs::write(place.path("first"), noise(SIZE, 1)).unwrap();
    let first = acknowledged(&place.step(MANY, &["store", "first", "--name", "first"])).unwrap();
    let before = async |number: u64| place.named(&["store"], number, noise(SIZE, 100 + number));
    let after = async |ended: &Ended, (named, bytes): (String, Vec<u8>)| {
        let step = format!("{named}, {:?}", ended.killed_before);
        let host = place.open().await;
        let ids = sound(&place, &host, &step).await;
        assert!(ids.contains(&first), "{step}");
        let found = host.find(&named).await.ok();
        assert_kept(ended, found, &step);
        if let Some(id) = found {
            assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
        }
        let again = store(&host, &bytes).await.unwrap_or_else(|error| panic!("{step}: stored again: {error:?}"));
        assert_same(&read(&host, again.id).await.unwrap(), &bytes, &step);
        host.remove(again.id).await.unwrap();
    };
    at_every_step(&place, &["pwrite", "fsync", "renameat2", "write"], before, after).await;
}

#[tokio::test]
async fn a_removal_that_is_killed_at_any_step() {
    let place = Place::new();
    let kept = store(&place.open().await, &noise(SIZE, 2)).await.unwrap().id;
    let before = async |number: u64| {
        let bytes = noise(SIZE, 1000 + number);
        let id = store(&place.open().await, &bytes).await.unwrap().id;
        (vec!["rm".to_owned(), id.to_string()], (id, bytes))
    };
    let after = async |ended: &Ended, (id, bytes): (SnapshotId, Vec<u8>)| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let ids = sound(&place, &host, &step).await;
        assert!(ids.contains(&kept), "{step}");
        if ended.status == Some(0) {
            assert!(!ids.contains(&id), "it was acknowledged");
        }
        if ids.contains(&id) {
            assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
            host.remove(id).await.unwrap();
        }
        // The same bytes can be stored at once.
        let again = store(&host, &bytes).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_same(&read(&host, again.id).await.unwrap(), &bytes, &step);
        host.remove(again.id).await.unwrap();
    };
    at_every_step(&place, &[], before, after).await;
}

#[tokio::test]
async fn a_collection_that_is_killed_at_any_step() {
    let place = Place::new();
    let kept = store(&place.open().await, &noise(SIZE, 3)).await.unwrap().id;
    std::fs::write(place.path("image"), noise(SIZE, 4)).unwrap();
    // A store that is killed when its object is there and its record is not.
    let late = (1..MANY)
        .find(|number| {
            let ended = place.step(*number, &["store", "image"]);
            assert!(ended.killed_before.is_some(), "no step of a store leaves an object without a record");
            place.objects().len() == 2
        })
        .unwrap();
    let before = async |_| {
        place.step(late, &["store", "image"]);
        (["gc", "--older-than", "1ms"].map(str::to_owned).to_vec(), ())
    };
    let after = async |ended: &Ended, ()| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let ids = sound(&place, &host, &step).await;
        assert!(ids.contains(&kept), "{step}");
        // Whether the store came so far as to be recorded depends on its threads.
        for id in ids.into_iter().filter(|id| *id != kept) {
            host.remove(id).await.unwrap();
        }
    };
    at_every_step(&place, &[], before, after).await;
}

#[tokio::test]
async fn an_import_that_is_killed_at_any_step() {
    let place = Place::new();
    let mut images = Vec::new();
    let host = place.open().await;
    for seed in 5..8 {
        let bytes = noise(SIZE, seed);
        images.push((store(&host, &bytes).await.unwrap().id, bytes));
    }
    drop(host);
    let catalogue =
        || files(&place.path("tidelock-data")).into_iter().filter(|p| file_name(p).starts_with("catalogue."));
    let before = async |_| {
        // The host before may be closing it still.
        catalogue().for_each(|file| drop(std::fs::remove_file(file)));
        (vec!["import".to_owned(), "local".to_owned()], ())
    };
    let after = async |ended: &Ended, ()| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let again = host.import("local", ImportOptions::default()).await.unwrap();
        assert_eq!((again.imported + again.known, again.damaged), (3, 0), "{step}: {again:?}");
        sound(&place, &host, &step).await;
        for (id, bytes) in &images {
            assert_same(&read(&host, *id).await.unwrap(), bytes, &step);
        }
    };
    at_every_step(&place, &[], before, after).await;
}

#[tokio::test]
async fn a_store_over_a_damaged_copy_that_is_killed_at_any_step() {
    let place = Place::new();
    let bytes = noise(SIZE, 9);
    std::fs::write(place.path("image"), &bytes).unwrap();
    let id = store(&place.open().await, &bytes).await.unwrap().id;
    let before = async |_| {
        let host = place.open().await;
        for object in place.objects() {
            let mut damaged = std::fs::read(&object).unwrap();
            damaged[SIZE / 2] ^= 1;
            std::fs::write(&object, damaged).unwrap();
        }
        assert_eq!(host.verify(None, true, None).await.unwrap().bad.len(), 1);
        (vec!["store".to_owned(), "image".to_owned()], ())
    };
    let after = async |ended: &Ended, ()| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        if acknowledged(ended).is_some() {
            assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
        }
        let again = store(&host, &bytes).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_eq!(again.id, id);
        assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
        // One good object: the damaged one need not be kept.
        host.remove(id).await.unwrap();
        sound(&place, &host, &step).await;
        assert_eq!(store(&host, &bytes).await.unwrap().id, id);
    };
    at_every_step(&place, &[], before, after).await;
}
