//! The crates of `host/`: their dependencies, and those that an embedder has to compile.

use std::fs;

use super::{CRATES, root};

/// What an embedder of the library must not have to compile.
const NOT_IN_THE_LIBRARY: [&str; 4] = ["clap", "axum", "indicatif", "tracing-subscriber"];

/// The crates of `host/` that a crate depends on, as its manifest says.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("host").join(name).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let names = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split(['.', ' ', '=']).next());
    let ours = names.filter(|name| name.starts_with("tidelock"));
    ours.map(|name| if name == "tidelock" { "core".into() } else { name.trim_start_matches("tidelock-").into() })
        .collect()
}

#[test]
fn crates_depend_on_lower_ones_only() {
    for (name, may) in CRATES {
        let found = dependencies(name);
        let wrong: Vec<&String> = found.iter().filter(|used| !may.contains(&used.as_str())).collect();
        assert!(wrong.is_empty(), "host/{name} depends on {wrong:?}, and may on {may:?}");
    }
    assert!(dependencies("core").contains(&"runtime".to_string()));
    let listed: Vec<String> = fs::read_dir(root().join("host"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !CRATES.iter().any(|(known, _)| known == name))
        .collect();
    assert!(listed.is_empty(), "these crates have no place in the order: {listed:?}");
}

#[test]
fn the_page_lists_the_crates() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for (name, may) in CRATES {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | `tidelock"))).unwrap_or_default();
        let uses: Vec<&str> =
            row.rsplit('|').nth(1).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert_eq!(uses, may, "the row of `{name}` in docs/ARCHITECTURE.md: {row}");
    }
}

#[test]
fn the_library_needs_no_server_and_no_terminal() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--package", "tidelock", "--edges", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let packages: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains(&"wasmtime"), "is this the library's tree? {packages:?}");
    let found: Vec<&&str> = packages.iter().filter(|name| NOT_IN_THE_LIBRARY.contains(name)).collect();
    assert!(found.is_empty(), "an embedder of the library compiles {found:?}");
}
