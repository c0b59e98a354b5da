//! Versions on real servers, by the program: stored as what has changed where labels are kept, and whole elsewhere; verified,
//! without their base, and from a new catalogue.

use serde_json::{Value, json};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;
use tidelock_tests::server;
use xtask::backends::ton::storage::AUTHORIZATION;
use xtask::backends::{Ganesha, Kubo, TonStorage, ganesha};

use crate::{ipfs, ton};

/// The encodings of a snapshot's placements.
fn encodings(home: &Home, id: &str) -> Vec<Value> {
    let stat = home.json(&["stat", id]);
    stat["placements"].as_array().unwrap().iter().map(|placement| placement["encoding"].clone()).collect()
}

fn assert_all_read(home: &Home, versions: &[(String, Vec<u8>)], what: &str) {
    for (id, bytes) in versions {
        assert_same(&home.bytes(&["retrieve", id]), bytes, what);
        let (start, end) = (MIB - 3, MIB + 9000);
        let range = format!("{start}..{end}");
        assert_same(&home.bytes(&["retrieve", id, "--range", &range]), &bytes[start..end], what);
    }
}

/// The life of four versions on a backend of which nobody has used anything yet, with any number of catalogues.
fn four_versions(backend: &str, seed: u64, encoding: &str, home: impl Fn() -> Home) {
    let (home, onlooker) = (home(), home());
    let first = noise(4 * MIB + 777, seed);
    let mut versions = vec![(home.line_with(&["store", "-", "--name", "vm"], &first), first)];
    for number in 1..4 {
        let (base, bytes) = versions.last().unwrap();
        let bytes = changed(bytes, seed + number);
        let stored = home.run_with(&["update", base, "-", "--name", "vm", "--json"], &bytes).json();
        let id = stored["id"].as_str().unwrap().to_owned();
        assert_eq!(encodings(&home, &id), [encoding], "{stored}");
        assert_eq!(home.json(&["stat", &id])["base"], base.as_str());
        if encoding == "pages" {
            assert!(stored["stored_bytes"].as_u64().unwrap() < bytes.len() as u64 / 2, "{stored}");
        }
        versions.push((id, bytes));
    }
    assert_all_read(&home, &versions, "as they were stored");
    assert_eq!(home.json(&["verify", "--deep"])["checked"], 4);

    home.line(&["rm", "--all-names", &versions[0].0]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert_ne!(home.run(&["retrieve", &versions[0].0]).status.code(), Some(0));
    assert_all_read(&home, &versions[1..], "without the base");
    assert_eq!(home.json(&["verify", "--deep"])["checked"], 3);

    for entry in std::fs::read_dir(home.path("tidelock-data")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("catalogue.sqlite") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let report = home.json(&["import", backend]);
    // What is kept for others is not known to be removed.
    let there = if encoding == "pages" { 0 } else { 1 };
    assert_eq!((&report["imported"], &report["left"]), (&json!(4 - there), &json!([])), "{report}");
    assert_all_read(&home, &versions[there..], "from a new catalogue");
    assert_eq!(encodings(&home, &versions[3].0), [encoding]);
    assert_eq!(home.json(&["verify", "--deep"])["checked"], 4 - there);

    // A catalogue of its own tells what is there.
    for at in [1, 3, 0, 2].into_iter().filter(|at| *at >= there) {
        home.line(&["rm", "--all-names", &versions[at].0]);
    }
    assert_eq!(home.json(&["ls"])["snapshots"], json!([]));
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(onlooker.json(&["import", backend])["imported"], 0, "nothing needs any of them");
}

#[test]
fn in_a_bucket() {
    let server = server::shared();
    four_versions("cloud", 1100, "pages", || server::home(server, "four-versions"));
}

#[test]
fn in_an_export() {
    if let Some(why) = ganesha::why_not() {
        return xtask::skip::skip("packs_on_servers: in_an_export", &why);
    }
    let server = Ganesha::start().expect("NFS-Ganesha starts");
    let grant = format!("{{ nfs = \"{}\", mount_port = {} }}", server.url(), server.mount_port);
    let table = format!("[backends.share]\nadapter = \"nfs\"\ngrants.directory.objects = {grant}\n");
    four_versions("share", 1200, "pages", || Home::with(&table));
}

/// It keeps no labels, so nothing would tell a pack from an image of the same bytes.
#[test]
fn in_ipfs() {
    let Some((node, _)) = ipfs::shared("packs_on_servers: in_ipfs") else { return };
    let Kubo { rpc, .. } = node;
    let table = format!(
        "[backends.peers]\nadapter = \"ipfs\"\nsettings = {{ rpc = \"{rpc}\", namespace = \"four-versions\" }}\n\
         grants.http.rpc = {{ origins = [\"{rpc}\"], private_addresses = true }}\n"
    );
    four_versions("peers", 1300, "raw", || Home::with(&table));
}

/// As IPFS.
#[test]
fn in_ton() {
    let Some(world) = ton::world("packs_on_servers: in_ton") else { return };
    let daemon = TonStorage::start(&world.network.config()).expect("a storage daemon starts");
    let (endpoint, shared) = (&daemon.endpoint, daemon.shared().display().to_string());
    let table = format!(
        r#"
[backends.bags]
adapter = "ton"
settings = {{ daemon_endpoint = "{endpoint}", shared_path = "{shared}" }}
[backends.bags.grants.http.daemon]
origins = ["{endpoint}"]
private_addresses = true
credentials = {{ header = "authorization", env = "TON_DAEMON" }}
[backends.bags.grants.directory.shared]
path = "{shared}"
"#
    );
    four_versions("bags", 1400, "raw", || {
        let mut home = Home::with(&table);
        home.env("TON_DAEMON", AUTHORIZATION);
        home
    });
}
