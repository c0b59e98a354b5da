//! As `killed.rs`, with repairs and copies that jobs make: killed before each of their steps, they lose nothing, and what is
//! left of them is done by the next one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelock::config::Config;
use tidelock::{Host, NoSecrets, RunOptions, SnapshotId};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::files;

use crate::killed::{Ended, Place, at_every_step, file_name};
use crate::support::{read, store};

const SIZE: usize = 150_001;

const CONFIG: &str = "
[backends.first]
adapter = 'fs'
settings = { layout = 'flat' }
grants.directory.objects = { path = 'first' }
[backends.second]
adapter = 'fs'
settings = { layout = 'flat' }
grants.directory.objects = { path = 'second' }
[routes.default]
backends = ['first', 'second']
copies = 2
";

async fn open(place: &Place, more: &str) -> Host {
    let text = format!("{CONFIG}{more}\n");
    std::fs::write(place.path("tidelock.toml"), &text).unwrap();
    let config = Config::parse(&text, &place.path("")).unwrap();
    Host::start(&config, &NoSecrets).await.unwrap_or_else(|error| panic!("it starts again: {error:?}"))
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let all = files(folder).into_iter();
    all.filter(|path| file_name(path).starts_with("snap-") && path.extension().is_none()).collect()
}

/// After whatever was cut short: the image can be read at once; the jobs that are left make both copies whole, and a collection
/// leaves nothing else.
async fn whole_again(place: &Place, host: &Host, id: SnapshotId, bytes: &[u8], step: &str) {
    assert_same(&read(host, id).await.unwrap(), bytes, step);
    let ran = host.run_jobs(&RunOptions { all: true, ..RunOptions::default() }).await.unwrap();
    assert_eq!(ran.failed, 0, "{step}: {ran:?}");
    host.gc(Duration::from_millis(1)).await.unwrap();
    let verified = host.verify(None, true, None).await.unwrap();
    assert!(verified.checked == 2 && verified.bad.is_empty(), "{step}: {verified:?}");
    assert_eq!(host.jobs(None, 10).await.unwrap().jobs, [], "{step}");
    for folder in ["first", "second"] {
        let there = objects(&place.path(folder));
        assert_eq!(there.len(), 1, "{step}: {there:?}");
        assert_same(&std::fs::read(&there[0]).unwrap(), bytes, step);
    }
    host.remove(id).await.unwrap();
}

#[tokio::test]
async fn a_repair_that_is_killed_at_any_step() {
    let place = Place::new();
    let before = async |number: u64| {
        let host = open(&place, "").await;
        let bytes = noise(SIZE, 1000 + number);
        let id = store(&host, &bytes).await.unwrap().id;
        let path = objects(&place.path("first")).remove(0);
        let mut damaged = bytes.clone();
        damaged[SIZE / 2] ^= 1;
        std::fs::write(path, damaged).unwrap();
        (vec!["repair".to_owned(), id.to_string()], (id, bytes))
    };
    let after = async |ended: &Ended, (id, bytes): (SnapshotId, Vec<u8>)| {
        let host = open(&place, "").await;
        whole_again(&place, &host, id, &bytes, &format!("{:?}", ended.killed_before)).await;
    };
    at_every_step(&place, &["pwrite", "fsync", "rename", "unlink"], before, after).await;
}

#[tokio::test]
async fn a_copy_that_is_killed_at_any_step() {
    let place = Place::new();
    let before = async |number: u64| {
        let host = open(&place, "ack = 1").await;
        let bytes = noise(SIZE, 2000 + number);
        let id = store(&host, &bytes).await.unwrap().id;
        (vec!["jobs".to_owned(), "run".to_owned()], (id, bytes))
    };
    let after = async |ended: &Ended, (id, bytes): (SnapshotId, Vec<u8>)| {
        let host = open(&place, "ack = 1").await;
        whole_again(&place, &host, id, &bytes, &format!("{:?}", ended.killed_before)).await;
    };
    at_every_step(&place, &[], before, after).await;
}
