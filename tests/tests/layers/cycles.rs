//! Modules that lie side by side import each other one way only: in every crate of `host/`, at the top and in every folder.
//!
//! A module that another one re-exports counts as what it is: a path through `crate::Name` or `super::Name` leads to the
//! module from which the root or the folder's `mod.rs` takes the name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, TokenTree, follow, sources, word};

/// Modules that import each other for now, as `FOLDER: MODULES`, with the reason.
const KNOWN: [(&str, &str); 4] = [
    (
        "capabilities/directory: local, read, write",
        "reading and writing are parts of the local directory, in files of their own",
    ),
    ("nfs3: calls, session", "the calls are methods of the session, in a file of their own"),
    (
        "runtime/swap: attempt, generation, read, trial",
        "a generation counts its leases and its trial, which point back at it",
    ),
    (
        "server: adapters, download, health, routes, snapshots",
        "the table of routes names the handlers, whose state it has",
    ),
];

/// Which module of a folder uses which, and in which files.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The names that a file takes into its own scope from the modules below it, with the module of each.
fn front(source: &Source) -> BTreeMap<String, String> {
    let tokens: Vec<TokenTree> = source.tokens();
    let mut paths = Vec::new();
    for at in 0..tokens.len() {
        if let (Some("use"), Some(module)) = (word(tokens.get(at)).as_deref(), word(tokens.get(at + 1))) {
            follow(&tokens, at + 2, vec![module], &mut paths);
        }
    }
    paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path.first()?.clone()))).collect()
}

/// The folders of a crate, as paths of modules, each with how its own file names what is in it.
fn folders(sources: &[&Source]) -> BTreeMap<Vec<String>, BTreeMap<String, String>> {
    let mut folders: BTreeMap<Vec<String>, BTreeMap<String, String>> = BTreeMap::new();
    for source in sources {
        for depth in 0..source.module.len() {
            folders.entry(source.module[..depth].to_vec()).or_default();
        }
    }
    for (folder, names) in &mut folders {
        let own = |source: &&&Source| match folder.is_empty() {
            true => ["lib", "main"].contains(&source.top()),
            false => source.module == *folder,
        };
        *names = sources.iter().find(own).map(|source| front(source)).unwrap_or_default();
    }
    folders
}

/// Who uses whom in one folder.
fn graph(sources: &[&Source], folder: &[String], front: &BTreeMap<String, String>) -> Graph {
    let is_below = |source: &&&Source| source.module.len() > folder.len() && source.module.starts_with(folder);
    let below: Vec<&&Source> = sources.iter().filter(is_below).collect();
    let modules: BTreeSet<&String> = below.iter().map(|source| &source.module[folder.len()]).collect();
    let mut graph = Graph::new();
    for source in below.iter().filter(|source| !["lib", "main"].contains(&source.top())) {
        let own = &source.module[folder.len()];
        for path in source.paths().iter().filter(|path| path[0] == "crate" && path[1..].starts_with(folder)) {
            let Some(name) = path.get(folder.len() + 1) else { continue };
            let used = if modules.contains(name) { name } else { front.get(name).unwrap_or(name) };
            if used != own && modules.contains(used) {
                let files = graph.entry(own.clone()).or_default().entry(used.clone()).or_default();
                files.insert(source.name.clone());
            }
        }
    }
    graph
}

/// The modules that a module leads to.
fn reach<'g>(graph: &'g Graph, from: &str) -> BTreeSet<&'g str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for used in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(used.as_str()) {
                next.push(used);
            }
        }
    }
    found
}

/// The groups of modules that lead to each other.
fn cycles(graph: &Graph) -> BTreeSet<Vec<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|module| (module.as_str(), reach(graph, module))).collect();
    let in_cycle = reached.iter().filter(|(module, reached)| reached.contains(*module));
    in_cycle
        .map(|(module, reach)| {
            reach.iter().copied().filter(|other| reached.get(other).is_some_and(|back| back.contains(module))).collect()
        })
        .collect()
}

/// Every cycle of a crate, as `FOLDER: MODULES`, with the imports that close it.
fn cycles_of(name: &str, sources: &[&Source]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (folder, front) in folders(sources) {
        let graph = graph(sources, &folder, &front);
        for cycle in cycles(&graph) {
            let place = [&[name.to_string()], folder.as_slice()].concat().join("/");
            let inside = |from: &&str| {
                let used = graph[*from].iter().filter(|(used, _)| cycle.contains(&used.as_str()));
                used.map(|(used, files)| format!("    {from} -> {used}: {files:?}")).collect::<Vec<_>>()
            };
            found.push((format!("{place}: {}", cycle.join(", ")), cycle.iter().flat_map(inside).collect()));
        }
    }
    found
}

#[test]
fn modules_import_each_other_one_way() {
    let sources = sources();
    let crates: BTreeSet<&str> = sources.iter().map(Source::of_crate).collect();
    let of_crate = |name: &str| sources.iter().filter(|source| source.of_crate() == name).collect::<Vec<_>>();
    let found: Vec<_> = crates.iter().flat_map(|name| cycles_of(name, &of_crate(name))).collect();
    let unknown = found.iter().filter(|(cycle, _)| !KNOWN.iter().any(|(known, _)| known == cycle));
    let unknown: Vec<String> = unknown.map(|(cycle, imports)| format!("{cycle}\n{}", imports.join("\n"))).collect();
    assert!(unknown.is_empty(), "these import each other:\n{}", unknown.join("\n"));
    for (known, _) in KNOWN {
        assert!(found.iter().any(|(cycle, _)| cycle == known), "{known} is a cycle no more: take it off the list");
    }
}

/// The check above finds nothing in a clean tree; here it finds what it is for.
#[test]
fn cycles_are_seen() {
    let seen = |files: &[(&str, &str)]| -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(name, text)| Source::new(name, text)).collect();
        cycles_of("x", &sources.iter().collect::<Vec<_>>()).into_iter().map(|(cycle, _)| cycle).collect()
    };
    let lib = ("x/src/lib.rs", "mod a; mod b; mod c; pub use b::B; use c::d;");
    let quiet = ("x/src/c/mod.rs", "mod d; mod e; pub(super) use e::E;");
    let one_way = [lib, quiet, ("x/src/a.rs", "use crate::B;"), ("x/src/b.rs", "use super::c::E;")];
    assert!(seen(&one_way).is_empty());
    let re_exported = [lib, ("x/src/a.rs", "use crate::B;"), ("x/src/b.rs", "fn f() { crate::a::g() }")];
    assert_eq!(seen(&re_exported), ["x: a, b"]);
    let long = [("x/src/a.rs", "use super::b::X;"), ("x/src/b/y.rs", "use crate::c;"), ("x/src/c.rs", "use crate::a;")];
    assert_eq!(seen(&long), ["x: a, b, c"]);
    let folder = [quiet, ("x/src/c/d.rs", "use super::E;"), ("x/src/c/e.rs", "use crate::c::d::D;")];
    assert_eq!(seen(&folder), ["x/c: d, e"]);
}
