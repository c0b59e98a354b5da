//! Trust in components: keys, signatures, manifests, and the predictions of `inspect`.

use std::os::unix::fs::PermissionsExt;

use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::{Home, guest, keys};

const GRANT: &str = "grants.directory.objects = { path = \"objects\" }";

/// A folder with the `fs` adapter as `mine.wasm`, and a backend `mine` of it with these lines, and these trust roots.
fn home(lines: &str, roots: &str) -> Home {
    let home = Home::new();
    configure(&home, lines, roots);
    home.file("mine.wasm", std::fs::read(guest("fs")).unwrap());
    home
}

fn configure(home: &Home, lines: &str, roots: &str) {
    home.file(
        "tidelock.toml",
        format!("[backends.mine]\nadapter = \"./mine.wasm\"\n{GRANT}\n{lines}\n\n[trust]\n{roots}\n"),
    );
}

/// The public half of a new key in the file of this name.
fn key(home: &Home, name: &str) -> String {
    home.line(&["adapter", "keygen", name])
}

/// What is said to a store that has to be refused because of the component.
#[track_caller]
fn refused(home: &Home) -> String {
    let outcome = home.run_with(&["store", "-"], b"x");
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("mine") && !home.path("objects").exists(), "{}", outcome.stderr);
    outcome.stderr
}

#[track_caller]
fn serves(home: &Home) {
    let bytes = noise(100_000, 7);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "through a trusted adapter");
}

#[test]
fn a_component_is_signed_and_then_trusted() {
    let home = home("signed_by = [\"release\"]", "");
    let release = key(&home, "release.key");
    configure(&home, "signed_by = [\"release\"]", &format!("keys.release = \"{release}\""));
    assert!(refused(&home).contains("it is not signed"));
    assert_eq!(home.line(&["adapter", "sign", "--key", "release.key", "mine.wasm"]), "mine.wasm.sig");
    serves(&home);
    let verified = home.json(&["adapter", "verify", "mine.wasm"]);
    assert_eq!(keys(&verified), ["digest", "signed_by"]);
    assert_eq!(verified["signed_by"], "release");
    assert!(home.line(&["adapter", "verify", "mine.wasm", "--key", &release]).contains(&release));
    // One bit of the component, and nothing that was signed holds.
    let mut other = home.read("mine.wasm");
    let last = other.len() - 1;
    other[last] ^= 1;
    home.file("mine.wasm", &other);
    start_anew(&home);
    assert!(refused(&home).contains("`release` does not match its bytes"));
    home.refused(1, &["adapter", "verify", "mine.wasm"]);
}

/// As if nothing had ever been stored.
fn start_anew(home: &Home) {
    for folder in ["objects", "tidelock-data"] {
        std::fs::remove_dir_all(home.path(folder)).unwrap();
    }
}

#[test]
fn keys_are_rotated() {
    let home = home("", "");
    let [old, new, stranger] = ["old", "new", "stranger"].map(|name| key(&home, name));
    let both = format!("keys = {{ old = \"{old}\", new = \"{new}\" }}");
    let demand = "signed_by = [\"old\", \"new\"]";
    configure(&home, demand, &both);
    home.line(&["adapter", "sign", "--key", "stranger", "mine.wasm"]);
    assert!(refused(&home).contains(&stranger));
    home.line(&["adapter", "sign", "--key", "old", "mine.wasm"]);
    serves(&home);
    start_anew(&home);
    // The old key is taken out: what only it has signed is refused.
    configure(&home, "signed_by = [\"new\"]", &format!("keys.new = \"{new}\""));
    assert!(refused(&home).contains("must be signed by new"));
    home.refused(1, &["adapter", "verify", "mine.wasm"]);
    home.line(&["adapter", "sign", "--key", "new", "mine.wasm"]);
    serves(&home);
    // All three stand in the file; the one that is trusted is found.
    let inspected = home.json(&["adapter", "inspect", "mine.wasm"]);
    let signatures = inspected["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 3, "{inspected}");
    assert!(signatures.iter().all(|one| one["valid"] == true));
    let named: Vec<_> = signatures.iter().filter(|one| one["name"] == "new").collect();
    assert!(named.len() == 1 && named[0]["key"] == new.as_str(), "{inspected}");
    assert_eq!(inspected["backends"][0]["signed_by"], "new");
}

#[test]
fn a_name_that_is_no_key_is_a_mistake_in_the_configuration() {
    let home = home("signed_by = [\"relaese\"]", "");
    let release = key(&home, "k");
    configure(&home, "signed_by = [\"relaese\"]", &format!("keys.release = \"{release}\""));
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("line 4") && said.contains("did you mean `release`?"), "{said}");
}

#[test]
fn a_secret_key_stays_where_it_is() {
    let home = Home::new();
    let public = key(&home, "secret.key");
    let text = String::from_utf8(home.read("secret.key")).unwrap();
    let secret = text.lines().last().unwrap();
    assert!(secret.starts_with("ed25519-secret:") && public.starts_with("ed25519:"));
    let mode = |name: &str| std::fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("secret.key"), 0o600);
    // Never written over, never read while others can.
    let said = home.refused(2, &["adapter", "keygen", "secret.key"]);
    assert!(said.contains("already exists"), "{said}");
    home.file("a.wasm", b"\0asm\x0d\0\x01\0");
    let everything = home.run(&["adapter", "sign", "--key", "secret.key", "a.wasm", "--json", "-vvv"]);
    let shown = format!("{}{}", String::from_utf8_lossy(&everything.stdout), everything.stderr);
    assert!(everything.status.success() && !shown.contains(&secret["ed25519-secret:".len()..]), "{shown}");
    std::fs::set_permissions(home.path("secret.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = home.refused(2, &["adapter", "sign", "--key", "secret.key", "a.wasm"]);
    assert!(said.contains("chmod 600") && !said.contains(secret), "{said}");
    home.file("public.key", &public);
    std::fs::set_permissions(home.path("public.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = home.refused(2, &["adapter", "sign", "--key", "public.key", "a.wasm"]);
    assert!(said.contains("public.key") && said.contains("keygen"), "{said}");
}

#[test]
fn signatures_that_cannot_be_read_are_an_error() {
    let home = home("", "");
    home.file("mine.wasm.sig", "ed25519:nonsense\n");
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("mine.wasm.sig") && said.contains("line 1"), "{said}");
    // Without a key there is nothing to verify with.
    std::fs::remove_file(home.path("mine.wasm.sig")).unwrap();
    assert!(home.refused(2, &["adapter", "verify", "mine.wasm"]).contains("no key"));
    home.refused(2, &["adapter", "verify", "mine.wasm", "--key", "ed25519:x"]);
    home.refused(2, &["adapter", "verify", "absent.wasm", "--key", &key(&home, "k")]);
}

/// A manifest of `fs` that asks for these tables.
fn manifest(asks: &str) -> String {
    format!("name = \"fs\"\nversion = \"0.1.0\"\ninterface = \"tidelock:storage@0.1.0\"\n{asks}\n")
}

#[test]
fn a_grant_that_is_not_requested_is_absent() {
    let home = home("grants.directory.other = { path = \"other\" }", "");
    home.file("adapter.toml", manifest("[asks.directory.other]"));
    let before = home.json(&["adapter", "inspect", "mine.wasm"])["digest"].clone();
    let digest = home.line(&["adapter", "embed", "mine.wasm"]);
    assert_ne!(before, digest.as_str());
    let outcome = home.run_with(&["store", "-"], b"x");
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("directory grant `objects`") && outcome.stderr.contains("manifest does not request"),
        "{}",
        outcome.stderr
    );
    let inspected = home.json(&["adapter", "inspect", "mine.wasm", "--backend", "mine"]);
    assert_eq!(inspected["digest"], digest.as_str());
    let grants = inspected["backends"][0]["grants"].as_array().unwrap();
    let state = |name: &str| {
        let grant = grants.iter().find(|grant| grant["name"] == name).unwrap_or_else(|| panic!("{inspected}"));
        (
            grant["asked"].as_bool().unwrap(),
            grant["granted"].as_bool().unwrap(),
            grant["reaches"].as_array().unwrap().len(),
        )
    };
    assert_eq!((state("objects"), state("other")), ((false, true, 0), (true, true, 1)));
    let text = String::from_utf8(home.bytes(&["adapter", "inspect", "mine.wasm"])).unwrap();
    assert!(text.contains("directory objects: granted, not requested, so withheld"), "{text}");
    // Asked for and not granted: it is not loaded at all, unless it can do without.
    home.file("adapter.toml", manifest("[asks.directory.objects]\n[asks.bucket.backup]\nwhy = \"a second copy\""));
    home.line(&["adapter", "embed", "mine.wasm"]);
    let said = home.run_with(&["store", "-"], b"x").stderr;
    assert!(said.contains("bucket grant `backup` (a second copy)") && said.contains("grants.bucket.backup"), "{said}");
    home.file("adapter.toml", manifest("[asks.directory.objects]\n[asks.bucket.backup]\noptional = true"));
    home.line(&["adapter", "embed", "mine.wasm", "adapter.toml"]);
    serves(&home);
    // What it imports and never asks for.
    home.file("adapter.toml", manifest(""));
    home.line(&["adapter", "embed", "mine.wasm"]);
    let said = home.run_with(&["store", "-"], b"x").stderr;
    assert!(said.contains("imports `directory`, but its manifest requests no grant"), "{said}");
}

#[test]
fn a_manifest_can_be_required_and_has_to_be_true() {
    let home = home("", "require_manifest = true");
    serves(&home);
    start_anew(&home);
    home.file("mine.wasm", std::fs::read(guest("copying")).unwrap());
    let inspected = home.json(&["adapter", "inspect", "mine.wasm"]);
    assert!(inspected["manifest"].is_null() && inspected["needs_grants"][0] == "directory", "{inspected}");
    let said = home.run_with(&["store", "-"], b"x").stderr;
    assert!(said.contains("no manifest") && said.contains("require_manifest"), "{said}");
    assert!(inspected["backends"][0]["refusals"][0].as_str().unwrap().contains("no manifest"));
    // Without the demand it asks for what it imports.
    configure(&home, "", "");
    serves(&home);
    // One that is another adapter's.
    home.file("adapter.toml", manifest("[asks.directory.objects]"));
    home.line(&["adapter", "embed", "mine.wasm"]);
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("`fs`") && said.contains("`copying`"), "{said}");
    // One that says nonsense is not taken for none.
    home.file("nonsense.toml", "name = 3");
    let said = home.refused(2, &["adapter", "embed", "mine.wasm", "nonsense.toml"]);
    assert!(said.contains("nonsense.toml") && said.contains("line 1"), "{said}");
}

#[test]
fn limits_are_the_smaller_of_requested_and_allowed() {
    let home = home("limits = { memory = \"12 MiB\" }", "");
    let inspected = home.json(&["adapter", "inspect", "mine.wasm"]);
    let limit = &inspected["backends"][0]["limits"][0];
    assert_eq!(
        *limit,
        serde_json::json!({ "name": "memory", "asks": "16 MiB", "allowed": "12 MiB", "gets": "12 MiB" })
    );
    // Less than the module begins with: the limit that is exceeded is the one that the manifest requests.
    home.file("adapter.toml", manifest("[asks.directory.objects]\n[limits]\nmemory = \"64 KiB\""));
    home.line(&["adapter", "embed", "mine.wasm"]);
    let said = home.run_with(&["store", "-"], b"x").stderr;
    assert!(said.contains("limit: memory 64 KiB"), "{said}");
}

#[test]
fn inspect_tells_the_whole_story() {
    let home = home("", "");
    let inspected = home.json(&["adapter", "inspect", "mine.wasm"]);
    let mut expected = vec![
        "backends",
        "bytes",
        "digest",
        "exports",
        "imports",
        "is_adapter",
        "manifest",
        "needs",
        "needs_grants",
        "signatures",
    ];
    expected.sort_unstable();
    assert_eq!(keys(&inspected), expected);
    assert_eq!(inspected["manifest"]["asks"]["directory"]["objects"]["optional"], false);
    let needs = &inspected["needs"];
    assert_eq!((&needs["components"], &needs["memories"]), (&1.into(), &1.into()), "{needs}");
    assert!(needs["core_instances"].as_u64() > Some(1) && needs["all_table_elements"].as_u64() > Some(1), "{needs}");
    let backend = &inspected["backends"][0];
    let names: Vec<_> = backend["needs"].as_array().unwrap().iter().map(|need| &need["name"]).collect();
    assert_eq!(names, ["instances", "memory", "table_elements"]);
    assert!(backend["needs"].as_array().unwrap().iter().all(|need| need["fits"] == true), "{backend}");
    assert_eq!((backend["backend"].as_str(), backend["refusals"].as_array().map(Vec::len)), (Some("mine"), Some(0)));
    let said = home.refused(2, &["adapter", "inspect", "mine.wasm", "--backend", "yours"]);
    assert!(said.contains("`yours`") && said.contains("mine"), "{said}");
    // Nothing was opened for it.
    assert!(!home.path("objects").exists() && !home.path("tidelock-data").exists());
    // A backend that grants another kind says why it would refuse.
    home.file("s3.wasm", std::fs::read(guest("s3")).unwrap());
    let other = home.json(&["adapter", "inspect", "s3.wasm"]);
    assert!(other["backends"][0]["refusals"][0].as_str().unwrap().contains("bucket"), "{other}");
}
