//! The adapter directory: a component that is renamed into it is swapped in, once; a rejected one is reported.

use std::path::Path;
use std::time::Duration;

use tidelock::{AdapterDir, AdapterDirOutcome, Host};
use tidelock_tests::data::noise;

use crate::support::{component, host, read, store, variant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Puts a file there as one should: whole, by renaming it.
fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let aside = dir.join(".being-written");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(aside, dir.join(name)).unwrap();
}

/// The next notice, in a few words.
async fn next(watching: &mut AdapterDir) -> String {
    let noticed = tokio::time::timeout(PATIENCE, watching.noticed()).await.expect("nothing was noticed").unwrap();
    let file = noticed.file.file_name().unwrap().to_str().unwrap().to_owned();
    let what = match noticed.outcome {
        AdapterDirOutcome::Swapped(report) => format!("generation {}", report.generation),
        AdapterDirOutcome::Serving => "serving".to_owned(),
        AdapterDirOutcome::Aside(why) => format!("aside: {why}"),
        AdapterDirOutcome::Refused(error) => format!("refused: {error}"),
    };
    format!("{file} {what}")
}

fn by(host: &Host) -> String {
    host.history("mine").unwrap()[0].row.by.clone()
}

#[tokio::test]
async fn a_file_renamed_into_the_folder_is_swapped_in() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = dir.path().join("adapters.d");
    std::fs::create_dir(&adapters).unwrap();
    put(&adapters, "mine.wasm", &component("hostile"));
    let host = host(dir.path(), "copying", "").await;
    let mut watching = host.watch_adapter_dir(&adapters).await.unwrap();
    assert_eq!(next(&mut watching).await, "mine.wasm generation 2", "it lay there before");
    assert_eq!(host.adapters()[0].adapter, "hostile");
    assert_eq!(by(&host), format!("folder {}", adapters.display()));

    put(&adapters, "mine.wasm", &variant("copying", 1));
    assert_eq!(next(&mut watching).await, "mine.wasm generation 3");
    put(&adapters, "mine.wasm", &variant("copying", 1));
    assert_eq!(next(&mut watching).await, "mine.wasm serving", "the same once more is no swap");
    put(&adapters, "yours.wasm", &component("copying"));
    let unknown = next(&mut watching).await;
    assert!(unknown.starts_with("yours.wasm refused: no backend `yours`"), "{unknown}");

    // Half a file, written in place, then the rest of it.
    let whole = component("hostile");
    std::fs::write(adapters.join("mine.wasm"), &whole[..whole.len() / 2]).unwrap();
    let half = next(&mut watching).await;
    assert!(half.starts_with("mine.wasm refused") && half.contains("compile"), "{half}");
    assert_eq!(host.adapters()[0].generation, 3);
    std::fs::write(adapters.join("mine.wasm"), &whole).unwrap();
    assert_eq!(next(&mut watching).await, "mine.wasm generation 4");

    drop(watching);
    put(&adapters, "mine.wasm", &component("copying"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(host.adapters()[0].generation, 4, "nobody watches any more");
}

#[tokio::test]
async fn a_refused_or_rolled_back_component_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = dir.path().join("adapters.d");
    let host = host(dir.path(), "copying", "").await;
    let mut watching = host.watch_adapter_dir(&adapters).await.unwrap();
    put(&adapters, "mine.wasm", b"nonsense");
    assert!(next(&mut watching).await.contains("refused"));
    drop(watching);
    // A start finds the same file.
    let mut watching = host.watch_adapter_dir(&adapters).await.unwrap();
    let again = next(&mut watching).await;
    assert!(again.starts_with("mine.wasm aside: "), "{again}");
    assert_eq!(host.history("mine").unwrap().len(), 2, "it was not even tried");

    let mut stored = Vec::new();
    for number in 0..12 {
        stored.push(store(&host, &noise(15, number)).await.unwrap().id);
    }
    put(&adapters, "mine.wasm", &component("flawed"));
    assert_eq!(next(&mut watching).await, "mine.wasm generation 2");
    for id in stored {
        read(&host, id).await.unwrap();
    }
    while host.adapters()[0].adapter == "flawed" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Though the file is a new one, what is in it was found to be bad.
    put(&adapters, "mine.wasm", &component("flawed"));
    let aside = next(&mut watching).await;
    assert!(aside.starts_with("mine.wasm aside: ") && aside.contains(" of "), "{aside}");
    assert_eq!(host.adapters()[0].adapter, "copying");
}
