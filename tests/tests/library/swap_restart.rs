//! The state of swaps after a restart.

use std::path::Path;

use tidelock::config::Config;
use tidelock::{Host, NoSecrets};
use tidelock_tests::data::{assert_same, noise};

use crate::support::{component, read, round_trip, store, variant};

/// The configuration names `adapter.wasm` in the folder.
async fn open(dir: &Path) -> Host {
    let text = "data_dir = \"data\"\n[backends.mine]\nadapter = \"./adapter.wasm\"\n\
                grants.directory.objects = { path = \"objects\" }\n";
    Host::start(&Config::parse(text, dir).unwrap(), &NoSecrets).await.unwrap()
}

fn place(component: Vec<u8>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter.wasm"), component).unwrap();
    dir
}

fn serving(host: &Host) -> (String, u64) {
    let adapters = host.adapters();
    (adapters[0].adapter.clone(), adapters[0].generation)
}

fn events(host: &Host) -> Vec<&'static str> {
    host.history("mine").unwrap().iter().map(|entry| entry.row.event.name()).collect()
}

#[tokio::test]
async fn a_swapped_component_serves_after_a_restart_and_can_be_rolled_back() {
    let dir = place(component("copying"));
    let host = open(dir.path()).await;
    let stored = round_trip(&host, &noise(5000, 1)).await;
    host.swap("mine", component("hostile")).await.unwrap();
    host.swap("mine", b"nonsense".to_vec()).await.expect_err("that is none");
    drop(host);

    let host = open(dir.path()).await;
    assert_eq!(serving(&host), ("hostile".to_owned(), 2));
    assert_eq!(events(&host), ["refused", "swap", "configured"]);
    assert_same(&read(&host, stored.id).await.unwrap(), &noise(5000, 1), "by the new one");
    host.rollback("mine").await.unwrap();
    assert_eq!(serving(&host), ("copying".to_owned(), 3));
    drop(host);

    let host = open(dir.path()).await;
    assert_eq!(serving(&host), ("copying".to_owned(), 3));
    assert_eq!(events(&host), ["rollback", "refused", "swap", "configured"], "a start adds nothing");
}

#[tokio::test]
async fn a_configuration_that_changed_meanwhile_wins() {
    let dir = place(component("copying"));
    let host = open(dir.path()).await;
    host.swap("mine", component("hostile")).await.unwrap();
    drop(host);
    std::fs::write(dir.path().join("adapter.wasm"), variant("copying", 1)).unwrap();
    let host = open(dir.path()).await;
    assert_eq!(serving(&host), ("copying".to_owned(), 3));
    assert_eq!(events(&host), ["configured", "swap", "configured"]);
    // What it replaced is an earlier generation like any other, though it was never in the configuration.
    host.rollback("mine").await.unwrap();
    assert_eq!(serving(&host).0, "hostile");
    drop(host);
    assert_eq!(serving(&open(dir.path()).await).0, "hostile");
}

#[tokio::test]
async fn a_component_that_was_damaged_meanwhile_does_not_serve() {
    let dir = place(component("copying"));
    let host = open(dir.path()).await;
    let report = host.swap("mine", component("hostile")).await.unwrap();
    drop(host);
    let kept = dir.path().join("data/adapters").join(format!("{}.wasm", report.to.trim_start_matches("sha256:")));
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes.push(0);
    std::fs::write(&kept, bytes).unwrap();
    let host = open(dir.path()).await;
    assert_eq!(serving(&host), ("copying".to_owned(), 3));
    let row = &host.history("mine").unwrap()[0].row;
    assert!(row.why.as_deref().unwrap().contains("the component stored as"), "{row:?}");
    round_trip(&host, &noise(5000, 1)).await;
}

#[tokio::test]
async fn an_automatically_rolled_back_component_stays_out() {
    let dir = place(component("copying"));
    let host = open(dir.path()).await;
    let mut stored = Vec::new();
    for number in 0..12 {
        stored.push(store(&host, &noise(15, number)).await.unwrap().id);
    }
    host.swap("mine", component("flawed")).await.unwrap();
    for id in stored {
        read(&host, id).await.unwrap();
    }
    while serving(&host).0 == "flawed" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(host);
    let host = open(dir.path()).await;
    assert_eq!(serving(&host).0, "copying");
    assert_eq!(events(&host), ["automatic-rollback", "swap", "configured"]);
    assert!(host.history("mine").unwrap()[0].row.why.is_some(), "with its figures");
}
