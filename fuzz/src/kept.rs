//! Every kept input holds, in an ordinary build. A target without seeds would let fuzzing begin at nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::TARGETS;

/// The most bytes that all kept inputs may have together: they are in everybody's clone.
const MAX: u64 = 1 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, target: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root().join(folder).join(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn kept_inputs_hold() {
    // One target runs a guest.
    xtask::guests::ensure().unwrap();
    for (name, run) in TARGETS {
        let seeds = files("corpus", name);
        assert!(seeds.len() >= 5, "corpus/{name} has {} inputs", seeds.len());
        for file in seeds.into_iter().chain(files("regressions", name)) {
            let data = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| run(&data)).is_err() {
                panic!("{} does not hold; the message is above", file.display());
            }
        }
    }
}

#[test]
fn kept_inputs_are_small_and_belong_to_a_target() {
    let mut bytes = 0;
    for folder in ["corpus", "regressions"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "{folder}/{name} belongs to no target");
            bytes += files(folder, &name).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
        }
    }
    assert!(bytes <= MAX, "{bytes} bytes of kept inputs; {MAX} are the most");
}

#[test]
fn every_target_has_a_program() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "no program for {name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
