//! The power fails at each step of a command: what was acknowledged before is there when it comes back, although nothing has
//! arrived on the disk that was not synced, or some of it.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};

use tidelock::config::Config;
use tidelock::{Host, NoSecrets, SnapshotId};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::power::{Arrived, make, moments};
use tidelock_tests::program::tidelock;

use crate::support::{read, store};

/// Not a multiple of a page.
const SIZE: usize = 150_001;

const PAGE: usize = 4096;

const FOLDER: &str = "data_dir = 'data'
[backends.first]
adapter = 'fs'
grants.directory.objects = { path = 'first' }
[routes.default]
backends = ['first']
";

/// A folder with a configuration, and the snapshots that were acknowledged in it.
struct Machine {
    dir: tempfile::TempDir,
    config: String,
    known: Vec<(SnapshotId, Vec<u8>)>,
}

impl Machine {
    fn new(more: &str) -> Self {
        let machine =
            Self { dir: tempfile::tempdir().unwrap(), config: format!("{FOLDER}{more}\n"), known: Vec::new() };
        std::fs::write(machine.dir.path().join("tidelock.toml"), &machine.config).unwrap();
        machine
    }

    async fn open(&self, folder: &Path) -> Host {
        let config = Config::parse(&self.config, folder).unwrap();
        Host::start(&config, &NoSecrets).await.unwrap_or_else(|error| panic!("it starts again: {error:?}"))
    }

    /// The program stores or updates an image of these bytes, and the power fails at each of its steps.
    async fn takes(&mut self, arguments: &[&str], bytes: Vec<u8>) -> SnapshotId {
        std::fs::write(self.dir.path().join("image"), &bytes).unwrap();
        let said = self.fails_at_each_step(&[arguments, &["image"]].concat(), Some(&bytes)).await;
        let id = said.trim().parse().unwrap_or_else(|error| panic!("{error}: {said}"));
        self.known.push((id, bytes));
        id
    }

    /// The program does this, which acknowledges an image of these bytes; the power fails at each of its steps.
    async fn fails_at_each_step(&self, arguments: &[&str], bytes: Option<&[u8]>) -> String {
        let record = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_recorder"));
        command.arg(self.dir.path()).arg(record.path()).arg(tidelock()).args(arguments);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        let (mut seen, mut acknowledged) = (HashSet::new(), false);
        let moments = moments(record.path());
        for (number, moment) in moments.iter().enumerate() {
            // Of the many ways in which some has arrived, one at each fourth step.
            let some = number.is_multiple_of(4).then_some(Arrived::Some(number as u64));
            for arrived in [Arrived::Nothing, Arrived::Names].into_iter().chain(some) {
                let files = moment.after(arrived);
                if !seen.insert((files.clone(), moment.said.clone())) {
                    continue;
                }
                let when = format!("{arguments:?}: before {number}, {}, {arrived:?}", moment.before);
                let folder = tempfile::tempdir().unwrap();
                make(&files, record.path(), folder.path());
                let host = self.open(folder.path()).await;
                for (id, bytes) in &self.known {
                    let found = read(&host, *id).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
                    assert_same(&found, bytes, &when);
                }
                if let (Ok(id), Some(bytes)) = (moment.said.trim().parse(), bytes) {
                    let found = read(&host, id).await.unwrap_or_else(|error| panic!("{when}, said: {error:?}"));
                    assert_same(&found, bytes, &when);
                    acknowledged = true;
                }
                let verified = host.verify(None, true, None).await.unwrap();
                assert!(verified.bad.is_empty() && verified.unreachable.is_empty(), "{when}: {verified:?}");
                let again = store(&host, b"another").await.unwrap_or_else(|error| panic!("{when}, again: {error:?}"));
                assert_same(&read(&host, again.id).await.unwrap(), b"another", &when);
            }
        }
        assert!(bytes.is_none() || acknowledged, "{arguments:?}: no moment has an acknowledgement");
        println!("{arguments:?}: {} moments, {} disks", moments.len(), seen.len());
        String::from_utf8(ended.stdout).unwrap()
    }
}

/// Some pages of an image, changed.
fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for page in [3, 17] {
        bytes[page * PAGE..][..PAGE].copy_from_slice(&noise(PAGE, seed + page as u64));
    }
    bytes
}

/// The first command makes all directories.
#[tokio::test]
async fn a_store_that_loses_power_at_any_step() {
    let mut machine = Machine::new("");
    machine.takes(&["store"], noise(SIZE, 1)).await;
    machine.takes(&["store"], noise(SIZE, 2)).await;
}

#[tokio::test]
async fn versions_that_lose_power_at_any_step() {
    let mut machine = Machine::new("");
    let first = noise(SIZE, 3);
    let host = machine.open(machine.dir.path()).await;
    let base = store(&host, &first).await.unwrap().id;
    drop(host);
    machine.known.push((base, first.clone()));
    let second = changed(&first, 4);
    machine.takes(&["update", &base.to_string()], second).await;
    // The object stays for the version.
    machine.known.remove(0);
    machine.fails_at_each_step(&["rm", &base.to_string()], None).await;
    let version = machine.known[0].0.to_string();
    machine.fails_at_each_step(&["rebase", &version], None).await;
    machine.fails_at_each_step(&["gc", "--older-than", "1ms"], None).await;
}

#[tokio::test]
async fn what_is_on_this_machine_alone_loses_power_at_any_step() {
    let mut machine = Machine::new("ack = 'local'\n[hot]\ncapacity = '1 MiB'\n");
    let first = noise(SIZE, 5);
    let host = machine.open(machine.dir.path()).await;
    let base = store(&host, &first).await.unwrap().id;
    drop(host);
    machine.known.push((base, first.clone()));
    machine.takes(&["store"], noise(SIZE, 6)).await;
    machine.takes(&["update", &base.to_string()], changed(&first, 7)).await;
    machine.fails_at_each_step(&["jobs", "run"], None).await;
    machine.known.remove(0);
    machine.fails_at_each_step(&["rm", &base.to_string()], None).await;
}
