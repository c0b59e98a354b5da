//! Components that cannot serve, and one that was not built with the program.

use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::{Home, guest};

const GRANT: &str = "grants.directory.objects = { path = \"objects\" }";

fn home(component: &[u8]) -> Home {
    let home = Home::with(&format!("[backends.mine]\nadapter = \"./mine.wasm\"\n{GRANT}\n"));
    home.file("mine.wasm", component);
    home
}

/// The errors for components that cannot serve. Inspecting one prints the same, or that it is not an adapter.
#[track_caller]
fn refused(component: &[u8]) -> String {
    let home = home(component);
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("mine"), "it does not say which: {said}");
    assert!(
        !home.path("objects").exists()
            || std::fs::read_dir(home.path("objects")).unwrap().all(|e| e.unwrap().file_name() == ".tmp")
    );
    let inspected = home.run(&["adapter", "inspect", "mine.wasm", "--json"]);
    match inspected.status.code() {
        Some(0) => assert_eq!(inspected.json()["is_adapter"], false),
        status => assert_eq!(status, Some(2), "{}", inspected.stderr),
    }
    said
}

#[test]
fn an_adapter_from_a_file_serves() {
    let home = home(&std::fs::read(guest("hello-adapter")).unwrap());
    let bytes = noise(3_000_000, 1);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "through an adapter of one's own");
    let listed = home.json(&["adapter", "ls"]).to_string();
    assert!(listed.contains("hello") && listed.contains("mine"), "{listed}");
    let inspected = home.json(&["adapter", "inspect", "mine.wasm"]);
    assert!(
        inspected["is_adapter"] == true && inspected["digest"].as_str().unwrap().starts_with("sha256:"),
        "{inspected}"
    );
    assert_eq!(inspected["needs_grants"], serde_json::json!(["directory"]));
}

#[test]
fn a_component_that_is_not_one() {
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"#!/bin/sh\necho hello\n".to_vec()),
        ("noise", noise(10_000, 1)),
        ("a head and noise", [&b"\0asm\x0d\0\x01\0"[..], &noise(10_000, 2)].concat()),
    ] {
        let said = refused(&bytes);
        assert!(said.contains("component"), "{what}: {said}");
    }
    // The beginning of a real one.
    let whole = std::fs::read(guest("fs")).unwrap();
    refused(&whole[..whole.len() / 2]);
}

#[test]
fn a_core_module() {
    let said = refused(&wat::parse_str("(module (func (export \"store\")))").unwrap());
    assert!(said.contains("core WebAssembly module") && said.contains("hint:"), "{said}");
}

#[test]
fn a_component_without_the_export() {
    let said = refused(&wat::parse_str("(component)").unwrap());
    assert!(said.contains("tidelock:storage/adapter"), "{said}");
    // Another version of the interface is another interface.
    let other = "(component (instance $i) (export \"tidelock:storage/adapter@7.0.0\" (instance $i)))";
    let home = home(&wat::parse_str(other).unwrap());
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("tidelock:storage/adapter") && said.contains("mine"), "{said}");
}

#[test]
fn a_component_with_an_unknown_import() {
    let text = "(component (import \"evil:host/shell\" (instance (export \"run\" (func)))))";
    let said = refused(&wat::parse_str(text).unwrap());
    assert!(said.contains("evil:host/shell") || said.contains("tidelock:storage/adapter"), "{said}");
}

#[test]
fn a_capability_that_was_not_granted() {
    let s3 = guest("s3");
    let home = Home::with(&format!("[backends.mine]\nadapter = \"{}\"\n{GRANT}\n", s3.display()));
    let outcome = home.run_with(&["store", "-"], b"x");
    let status = outcome.status.code().unwrap();
    assert!([1, 2].contains(&status), "{status}: {}", outcome.stderr);
    let said = outcome.refused(status, &["store"]);
    assert!(said.contains("bucket") && said.contains("mine"), "{said}");
    // The capability is granted, but under another name.
    let home = Home::with("[backends.mine]\nadapter = \"fs\"\ngrants.directory.stuff = { path = \"objects\" }\n");
    let outcome = home.run_with(&["store", "-"], b"x");
    assert!(!outcome.status.success() && outcome.stderr.contains("objects"), "{}", outcome.stderr);
}

#[test]
fn a_pin_that_does_not_match() {
    let zeros = "0".repeat(64);
    let home = Home::with(&format!("[backends.local]\nadapter = \"fs\"\ndigest = \"sha256:{zeros}\"\n{GRANT}\n"));
    let outcome = home.run_with(&["store", "-"], b"x");
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&zeros) && outcome.stderr.contains("pins"), "{}", outcome.stderr);
}

#[test]
fn a_component_file_that_is_not_there() {
    let home = Home::with(&format!("[backends.mine]\nadapter = \"./absent.wasm\"\n{GRANT}\n"));
    let outcome = home.run_with(&["store", "-"], b"x");
    assert!(!outcome.status.success() && outcome.stderr.contains("absent.wasm"), "{}", outcome.stderr);
    let home = Home::with(&format!("[backends.mine]\nadapter = \"fz\"\n{GRANT}\n"));
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("fz") && said.contains("fs"), "{said}");
}
