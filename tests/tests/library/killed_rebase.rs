//! As `killed.rs`, with rebases: killed before each of their steps, they lose nothing, and the job that is left ends what was begun.

use std::time::Duration;

use tidelock::config::Config;
use tidelock::{Host, NoSecrets, RunOptions, SnapshotId, Source, StoreOptions};
use tidelock_tests::data::{assert_same, noise};

use crate::killed::{Ended, Place, at_every_step};
use crate::support::{read, store};

const SIZE: usize = 150_001;

const CONFIG: &str = "
[backends.local]
adapter = 'fs'
grants.directory.objects = { path = 'tidelock-data/objects' }
[routes.default]
backends = ['local']
encoding = 'pages'
";

async fn open(place: &Place) -> Host {
    std::fs::write(place.path("tidelock.toml"), CONFIG).unwrap();
    let config = Config::parse(CONFIG, &place.path("")).unwrap();
    Host::start(&config, &NoSecrets).await.unwrap_or_else(|error| panic!("it starts again: {error:?}"))
}

async fn update(host: &Host, base: SnapshotId, bytes: &[u8]) -> SnapshotId {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let source = Source::open(file.path()).await.unwrap();
    host.update(base, source, StoreOptions::default()).await.unwrap().id
}

/// Three versions, the one in the middle removed and kept for the last.
async fn chain(host: &Host, seed: u64) -> [(SnapshotId, Vec<u8>); 2] {
    let first = noise(SIZE, seed);
    let base = store(host, &first).await.unwrap().id;
    let (mut middle, mut last) = (first.clone(), first.clone());
    middle[8192..12288].copy_from_slice(&noise(4096, seed + 1));
    let between = update(host, base, &middle).await;
    last[8192..12288].copy_from_slice(&middle[8192..12288]);
    last[40_960..45_056].copy_from_slice(&noise(4096, seed + 2));
    let newest = update(host, between, &last).await;
    host.remove(between).await.unwrap();
    [(base, first), (newest, last)]
}

#[tokio::test]
async fn a_rebase_that_is_killed_at_any_step() {
    let place = Place::new();
    let before = async |number: u64| {
        let versions = chain(&open(&place).await, 10_000 + 10 * number).await;
        (vec!["rebase".to_owned(), versions[1].0.to_string()], versions)
    };
    let after = async |ended: &Ended, [(base, first), (id, bytes)]: [(SnapshotId, Vec<u8>); 2]| {
        let step = format!("{:?}", ended.killed_before);
        let host = open(&place).await;
        assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
        assert_same(&read(&host, base).await.unwrap(), &first, &step);
        let ran = host.run_jobs(&RunOptions { all: true, ..RunOptions::default() }).await.unwrap();
        assert_eq!(ran.failed, 0, "{step}: {ran:?}");
        // If it was killed before there was a job, that is all.
        host.rebase(id, None).await.unwrap();
        host.gc(Duration::from_millis(1)).await.unwrap();
        assert_eq!(host.jobs(None, 10).await.unwrap().jobs, [], "{step}");
        let stat = host.stat(id).await.unwrap();
        assert_eq!((stat.placements.len(), stat.placements[0].depth), (1, 0), "{step}: {stat:?}");
        let verified = host.verify(None, true, None).await.unwrap();
        assert!(verified.checked == 2 && verified.bad.is_empty(), "{step}: {verified:?}");
        assert_eq!(place.objects().len(), 2, "{step}");
        assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
        host.remove(id).await.unwrap();
        host.remove(base).await.unwrap();
        assert_eq!(place.objects().len(), 0, "{step}");
    };
    at_every_step(&place, &["pwrite", "fsync", "rename", "unlink"], before, after).await;
}
