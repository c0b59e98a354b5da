//! Architecture tests: dependencies between the crates of `host/` and between the modules of the library, access to the
//! environment, and requirements for every file.
//!
//! The sources are parsed as tokens, so that paths in comments and strings do not count. Paths are resolved as the compiler
//! does: `crate::`, and `super::` relative to the file, through nested braces and inside macros.

mod crates;
mod cycles;
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The crates of `host/`, and which of them each may depend on. Cargo keeps the rest: a crate uses what it names.
const CRATES: [(&str, &[&str]); 8] = [
    ("types", &[]),
    ("nfs3", &["types"]),
    ("capabilities", &["types", "nfs3"]),
    ("backend", &["types"]),
    ("runtime", &["types", "capabilities", "backend"]),
    ("core", &["types", "capabilities", "backend", "runtime"]),
    ("server", &["core"]),
    ("cli", &["core", "server"]),
];

/// The crates that may read the environment.
const ENVIRONMENT: [&str; 2] = ["server", "cli"];

/// Statics that hold more than a constant, with the reason.
const STATICS: [(&str, &str); 2] = [
    ("types/src/ids.rs BASE32", "a table that is made once and never changes"),
    ("core/src/snapshot/source/file.rs ZEROS", "a segment of zeros, made once, never written to"),
];

/// Types by which a static can change.
const CHANGING: [&str; 11] = [
    "Mutex",
    "RwLock",
    "Cell",
    "RefCell",
    "UnsafeCell",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "LazyCell",
    "ArcSwap",
    "Once",
];

/// A file of a crate of `host/`.
struct Source {
    /// Below `host/`, as in `runtime/src/wit/mod.rs`.
    name: String,
    /// Its module, as in `["runtime", "wit"]`.
    module: Vec<String>,
    text: String,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let path = name.trim_end_matches(".rs");
        let path = path.split_once("/src/").map_or(path, |(_, path)| path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let module = path.split('/').map(String::from).collect();
        Self { name: name.into(), module, text: text.into() }
    }

    /// The crate's folder.
    fn of_crate(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    fn top(&self) -> &str {
        &self.module[0]
    }

    fn tokens(&self) -> Vec<TokenTree> {
        let tokens = TokenStream::from_str(&self.text);
        tokens.unwrap_or_else(|error| panic!("{} is not Rust: {error}", self.name)).into_iter().collect()
    }

    /// Every path that begins with `crate`, `super`, `std` or the crate's own name, resolved: `["crate", "types", …]`.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        collect(&self.tokens(), &self.module, &mut paths);
        paths
    }
}

/// Rust files of a folder, all levels, without what Cargo builds there.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of all crates of `host/`; their roots only name modules.
fn sources() -> Vec<Source> {
    let host = root().join("host");
    let source = |path: &PathBuf| {
        Source::new(path.strip_prefix(&host).unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap())
    };
    let paths = CRATES.iter().flat_map(|(name, _)| files(&host.join(name).join("src")));
    let sources: Vec<Source> = paths.collect::<Vec<_>>().iter().map(source).collect();
    assert!(sources.len() > 150, "only {} files: is this the right folder?", sources.len());
    sources
}

fn is(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    is(tokens.get(at), ':') && is(tokens.get(at + 1), ':')
}

/// Finds paths in a run of tokens that stands in `module`.
fn collect(tokens: &[TokenTree], module: &[String], paths: &mut Vec<Vec<String>>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let named = word(at.checked_sub(2).and_then(|at| tokens.get(at)));
                let module = match word(at.checked_sub(1).and_then(|at| tokens.get(at))) {
                    Some(name) if group.delimiter() == Delimiter::Brace && named.as_deref() == Some("mod") => {
                        &[module, &[name]].concat()
                    }
                    _ => module,
                };
                collect(&inner, module, paths);
            }
            TokenTree::Ident(ident) => {
                let start = match ident.to_string().as_str() {
                    "crate" | "tidelock" => Some(vec!["crate".to_string()]),
                    name if name.starts_with("tidelock_") => {
                        Some(vec!["crate".to_string(), name.trim_start_matches("tidelock_").to_string()])
                    }
                    "std" => Some(vec!["std".to_string()]),
                    "super" => Some([&["crate".to_string()], &module[..module.len() - 1]].concat()),
                    "self" if colons(tokens, at + 1) => Some([&["crate".to_string()], module].concat()),
                    _ => None,
                };
                // `pub(crate)` is not a path, and `x::std::y` is one of another module.
                let begins = at < 2
                    || !colons(tokens, at - 2)
                    || word(at.checked_sub(3).and_then(|at| tokens.get(at))).is_none();
                if let Some(start) = start.filter(|_| begins && colons(tokens, at + 1)) {
                    at = follow(tokens, at + 1, start, paths);
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Follows a path from the colons at `at`; returns the place after it.
fn follow(tokens: &[TokenTree], mut at: usize, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    while colons(tokens, at) {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(ident)) => {
                match ident.to_string().as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    name => path.push(name.into()),
                }
                at += 3;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is(Some(token), ',')) {
                    if branch.is_empty() {
                        continue;
                    }
                    // As though the branch stood by itself behind two colons.
                    let colons: Vec<TokenTree> = TokenStream::from_str("::").unwrap().into_iter().collect();
                    follow(&[colons, branch.to_vec()].concat(), 0, path.clone(), paths);
                }
                return at + 3;
            }
            _ => {
                at += 2;
                break;
            }
        }
    }
    paths.push(path);
    at
}

/// The level of each module of `host/core/src`, and of each crate that the library uses.
type Levels = BTreeMap<String, u32>;

/// Reads the levels from the table of `docs/ARCHITECTURE.md`, which is the only list of them.
fn levels(page: &str) -> Levels {
    let rows = page.lines().skip_while(|line| !line.starts_with("| level |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let level = cells.next().and_then(|cell| cell.parse().ok());
        (cells.next().unwrap_or_default().trim_matches('`').to_owned(), level.unwrap_or_else(|| panic!("{line}")))
    });
    rows.collect()
}

/// What the crate's root re-exports, as `pub use` has it there, with the module that it comes from.
fn front(root: &str) -> BTreeMap<String, String> {
    let source = Source::new("lib.rs", root);
    let tokens = source.tokens();
    let mut paths = Vec::new();
    for at in 2..tokens.len() {
        let [before, reexported, module] = [at - 2, at - 1, at].map(|at| word(tokens.get(at)));
        if let ("pub", "use", Some(module)) = (&*before.unwrap_or_default(), &*reexported.unwrap_or_default(), module) {
            follow(&tokens, at + 1, vec![module], &mut paths);
        }
    }
    paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path.first()?.clone()))).collect()
}

/// The uses of a file that break the order of the levels: a module uses lower levels, never one of its own or of a higher
/// one.
fn trespasses(source: &Source, front: &BTreeMap<String, String>, levels: &Levels) -> Vec<String> {
    let level = |module: &str| levels.get(module).copied();
    let Some(own) = level(source.top()) else {
        return vec![format!("{}: the module `{}` has no level", source.name, source.top())];
    };
    let used = source.paths().into_iter().filter(|path| path[0] == "crate").filter_map(|path| path.get(1).cloned());
    // An item of the crate's root belongs to the module that it comes from.
    let used = used.map(|name| front.get(&name).cloned().unwrap_or(name));
    let wrong = |used: &String| used != source.top() && level(used).is_none_or(|level| level >= own);
    let mut found: Vec<String> = used
        .filter(wrong)
        .map(|used| format!("{}: level {own} ({}) uses `{used}` (level {:?})", source.name, source.top(), level(&used)))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn reads_the_environment(source: &Source) -> bool {
    let reads = source.paths().iter().any(|path| path[0] == "std" && path.get(1).is_some_and(|name| name == "env"));
    reads && !ENVIRONMENT.contains(&source.of_crate())
}

/// Statics that can change, as `FILE NAME`.
fn changing_statics(source: &Source) -> Vec<String> {
    fn within(tokens: &[TokenTree], found: &mut Vec<String>) {
        for (at, token) in tokens.iter().enumerate() {
            if let TokenTree::Group(group) = token {
                within(&group.stream().into_iter().collect::<Vec<_>>(), found);
            }
            if word(Some(token)).as_deref() == Some("thread_local") && is(tokens.get(at + 1), '!') {
                found.push("thread_local".into());
            }
            // Not the lifetime `'static`, whose apostrophe is a token of its own.
            if word(Some(token)).as_deref() != Some("static") || at > 0 && is(tokens.get(at - 1), '\'') {
                continue;
            }
            if word(tokens.get(at + 1)).as_deref() == Some("mut") {
                found.push(word(tokens.get(at + 2)).unwrap_or_default());
            } else if is(tokens.get(at + 2), ':') {
                let kind =
                    tokens[at + 3..].iter().take_while(|token| !is(Some(token), '=')).map(|token| token.to_string());
                let kind: Vec<String> = kind.collect();
                if kind.iter().any(|word| CHANGING.contains(&word.as_str()) || word.starts_with("Atomic")) {
                    found.push(word(tokens.get(at + 1)).unwrap_or_default());
                }
            }
        }
    }
    let mut found = Vec::new();
    within(&source.tokens(), &mut found);
    found.iter().map(|name| format!("{} {name}", source.name)).collect()
}

#[test]
fn every_module_uses_lower_levels_only() {
    let front = front(&fs::read_to_string(root().join("host/core/src/lib.rs")).unwrap());
    assert_eq!(front.get("Host").map(String::as_str), Some("connector"), "{front:?}");
    let levels = levels(&fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap());
    let sources = sources();
    let library: Vec<&Source> =
        sources.iter().filter(|source| source.of_crate() == "core" && source.top() != "lib").collect();
    let found: Vec<String> = library.iter().flat_map(|source| trespasses(source, &front, &levels)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    for name in levels.keys() {
        let exists = CRATES.iter().any(|(known, _)| known == name) || library.iter().any(|source| source.top() == name);
        assert!(exists, "docs/ARCHITECTURE.md gives a level to `{name}`, which is neither a module nor a crate");
    }
}

#[test]
fn only_the_edges_read_the_environment() {
    let found: Vec<String> = sources().iter().filter(|s| reads_the_environment(s)).map(|s| s.name.clone()).collect();
    assert!(found.is_empty(), "these read the environment, which the library may not: {found:?}");
}

#[test]
fn there_is_no_global_state() {
    let found: Vec<String> = sources().iter().flat_map(changing_statics).collect();
    let known = |name: &&String| STATICS.iter().any(|(known, _)| known == name);
    let unknown: Vec<&String> = found.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "statics that can change: {unknown:?}");
    for (name, _) in STATICS {
        assert!(found.iter().any(|there| there == name), "{name} is gone: take it off the list");
    }
}

/// The checks above find nothing in a clean tree; here they find what they are for.
#[test]
fn trespasses_are_seen() {
    let front = front("pub mod x; use connector::No; pub use connector::{Host, inspect}; pub use types::Error;");
    assert_eq!(front.len(), 3, "{front:?}");
    let page = "| level | module |\n| --- | --- |\n| 0 | `types` | x |\n| 1 | `snapshot` |\n| 1 | `catalogue` |\n\
                | 1 | `config` |\n| 2 | `capabilities` |\n| 3 | `runtime` |\n| 5 | `connector` |\n\n| 9 | `none` |";
    let levels = levels(page);
    assert_eq!((levels.len(), levels["types"], levels["connector"]), (7, 0, 5), "{levels:?}");
    let cases = [
        ("snapshot/a.rs", "use crate::catalogue::Catalogue;", 1),
        ("snapshot/a.rs", "use crate::types::Error; fn f() { crate::snapshot::g() }", 0),
        ("snapshot/a.rs", "fn f() { let x = vec![crate::runtime::Y]; }", 1),
        ("snapshot/a.rs", "use crate::{types::{Error, Body}, capabilities::Bucket, policy};", 2),
        ("snapshot/a.rs", "use super::super::runtime::X;", 1),
        ("snapshot/mod.rs", "use super::config::X;", 1),
        ("snapshot/a.rs", "mod tests { use super::super::super::connector::X; use super::super::b::Y; }", 1),
        ("snapshot/a.rs", "use tidelock_runtime::X; use tidelock_types::Y;", 1),
        ("snapshot/a.rs", "use crate::Host;", 1),
        ("snapshot/a.rs", "use crate::{Error, Nobody};", 1),
        ("connector/a.rs", "use crate::{Host, inspect};", 0),
        ("snapshot/a.rs", "// use crate::connector::X;\nconst A: &str = \"crate::connector\"; pub(crate) struct S;", 0),
        ("types/a.rs", "use crate::types::b::C; use crate::config::D;", 1),
        ("connector/a.rs", "use crate::connector::X; use crate::types::Y;", 0),
        ("novel/a.rs", "", 1),
    ];
    for (name, text, count) in cases {
        let found = trespasses(&Source::new(name, text), &front, &levels);
        assert_eq!(found.len(), count, "{name}: {text}: {found:?}");
    }
    let reads = |name, text| reads_the_environment(&Source::new(name, text));
    assert!(reads("core/src/config/a.rs", "fn f() { std::env::var(\"X\"); }"));
    assert!(reads("core/src/config/a.rs", "use std::{fs, env};"));
    assert!(reads("core/src/config/a.rs", "use std::env;"));
    assert!(!reads("cli/src/a.rs", "use std::env;"));
    assert!(!reads("core/src/config/a.rs", "const V: &str = env!(\"CARGO_PKG_VERSION\");"));
    let statics = |text| changing_statics(&Source::new("config/a.rs", text)).len();
    assert_eq!(statics("static mut A: u8 = 0;"), 1);
    assert_eq!(statics("fn f() { static A: std::sync::OnceLock<u8> = OnceLock::new(); }"), 1);
    assert_eq!(
        statics("static A: AtomicU64 = AtomicU64::new(0); thread_local! { static B: Cell<u8> = Cell::new(0) }"),
        3
    );
    assert_eq!(statics("static A: &'static str = \"x\"; fn f(x: &'static Mutex<u8>) {}"), 0);
}
