//! Kills at every stage of a swap, and at random moments: the next start serves the old or the new
//! generation, has the history, and has every byte that was acknowledged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidelock::config::Config;
use tidelock::runtime::Stage;
use tidelock::{Host, NoSecrets, SnapshotId};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::guest;

use crate::support::{read, variant};

const SIGKILL: i32 = 9;

struct Place {
    dir: tempfile::TempDir,
    components: [PathBuf; 2],
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let components = [1, 2].map(|number| {
            let path = dir.path().join(format!("{number}.wasm"));
            std::fs::write(&path, variant("copying", number)).unwrap();
            path
        });
        let text = format!(
            "data_dir = \"data\"\n[backends.mine]\nadapter = {:?}\ngrants.directory.objects = {{ path = \"objects\" }}\n\
             swap = {{ canary = {{ share = 0.5, duration = \"20ms\" }}, drain = \"1s\" }}\n",
            guest("copying")
        );
        std::fs::write(dir.path().join("tidelock.toml"), text).unwrap();
        Self { dir, components }
    }

    fn child(&self, component: &Path, stage: &str) -> Command {
        let mut child = Command::new(env!("CARGO_BIN_EXE_swapper"));
        child.arg(self.dir.path()).arg(component).arg(stage).stdin(Stdio::null()).stdout(Stdio::piped());
        child
    }

    async fn open(&self) -> Host {
        let text = std::fs::read_to_string(self.dir.path().join("tidelock.toml")).unwrap();
        Host::start(&Config::parse(&text, self.dir.path()).unwrap(), &NoSecrets).await.expect("it starts again")
    }
}

fn digest(host: &Host) -> String {
    host.adapters()[0].digest.clone()
}

/// What holds after any crash.
async fn sound(host: &Host, said: &str) {
    let history = host.history("mine").unwrap();
    let serving: Vec<_> = history.iter().filter(|entry| entry.state == "serving").collect();
    assert_eq!(serving.len(), 1, "{history:#?}");
    assert_eq!(serving[0].row.digest, digest(host), "the history and what serves");
    assert_eq!(serving[0].row.generation, Some(host.adapters()[0].generation));
    let numbers: Vec<u64> = history.iter().filter_map(|entry| entry.row.generation).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1), "no number is missing: {numbers:?}");
    let mut stored = 0;
    for line in said.lines().filter_map(|line| line.strip_prefix("stored ")) {
        let [id, len, seed] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let id: SnapshotId = id.parse().unwrap();
        let found = read(host, id).await.unwrap_or_else(|error| panic!("{id}: {error:?}"));
        assert_same(&found, &noise(len.parse().unwrap(), seed.parse().unwrap()), "what was acknowledged");
        stored += 1;
    }
    assert!(stored > 0, "a swap under no load would show little: {said}");
}

#[tokio::test]
async fn killed_at_every_stage_it_starts_on_the_old_or_the_new_one() {
    use std::os::unix::process::ExitStatusExt as _;
    let place = Place::new();
    let mut before = digest(&place.open().await);
    let digests = place.components.each_ref().map(|path| {
        let bytes = std::fs::read(path).unwrap();
        tidelock::runtime::ComponentDigest::of(&bytes).to_string()
    });
    for (turn, stage) in Stage::ALL.into_iter().enumerate() {
        // Always the one that does not serve, so that old and new can be distinguished.
        let next = usize::from(digests[0] == before);
        let output = place.child(&place.components[next], stage.name()).output().unwrap();
        assert_eq!(output.status.signal(), Some(SIGKILL), "at {stage}: {output:?}");
        let host = place.open().await;
        let expected = if stage > Stage::Publish { &digests[next] } else { &before };
        assert_eq!(digest(&host), *expected, "killed at {stage} in turn {turn}");
        sound(&host, &String::from_utf8(output.stdout).unwrap()).await;
        before = digest(&host);
    }
    // The first one of all is still kept, and goes back in as a rollback after a restart.
    let host = place.open().await;
    let back = host.rollback("mine").await.unwrap();
    assert_eq!((back.from, digest(&host)), (before, back.to));
    host.gc(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn killed_at_any_moment_it_starts_on_the_old_or_the_new_one() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let place = Place::new();
    for round in 0..6_u64 {
        let mut child = place.child(&place.components[round as usize % 2], "never").spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("swapping\n") {
            assert!(output.read_line(&mut said).unwrap() > 0, "it ended by itself: {said}");
        }
        // Anywhere in the first swap or, once compiled code is there, in the fourth.
        std::thread::sleep(Duration::from_millis(round * 37));
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_string(&mut said).unwrap();
        // A line that the kill cut in two was not acknowledged.
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        sound(&place.open().await, whole).await;
    }
}
