//! The configuration file: the commented default, and mistakes in it.

use tidelock_tests::program::Home;

#[test]
fn init_writes_a_configuration_that_works() {
    let home = Home::new();
    home.bytes(&["init"]);
    let text = String::from_utf8(home.read("tidelock.toml")).unwrap();
    for key in ["data_dir", "adapter", "tier", "grants.directory", "limits", "digest", "copies", "ack", "listen"] {
        assert!(text.contains(key), "{key} is not documented");
    }
    let id = home.line_with(&["store", "-"], b"x");
    assert_eq!(home.bytes(&["retrieve", &id]), b"x");
    assert_eq!(home.objects().len(), 1, "the same place as without a file");
    // An existing file is never overwritten.
    home.refused(2, &["init"]);
    assert_eq!(home.read("tidelock.toml"), text.as_bytes());
}

#[test]
fn a_file_elsewhere_decides_where_its_paths_are() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("etc/tide")).unwrap();
    home.file(
        "etc/tide/mine.toml",
        "data_dir = \"data\"\n[backends.b]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"things\" }\n",
    );
    let id = home.line_with(&["store", "-", "--config", "etc/tide/mine.toml"], b"x");
    assert!(home.path("etc/tide/things").is_dir() && home.path("etc/tide/data").is_dir());
    assert!(!home.path("tidelock-data").exists());
    home.refused(2, &["retrieve", &id]);
    let said = home.refused(2, &["ls", "--config", "etc/absent.toml"]);
    assert!(said.contains("etc/absent.toml"), "{said}");
}

#[test]
fn a_key_that_is_unknown_names_its_line_and_the_nearest_one() {
    let home = Home::with("data_dir = \"d\"\n\n[backends.local]\nadaptor = \"fs\"\n");
    let said = home.refused(2, &["ls"]);
    for part in ["tidelock.toml", "line 4", "backends.local.adaptor", "did you mean `adapter`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!home.path("d").exists(), "nothing is made of a wrong configuration");
}

#[test]
fn a_value_of_a_wrong_type_names_its_line() {
    for (text, line, says) in [
        ("data_dir = 7\n[backends.local]\nadapter = \"fs\"\n", "line 1", "must be a string, not an integer"),
        ("[backends.local]\nadapter = \"fs\"\nlimits = { deadline = \"soon\" }\n", "line 3", "duration"),
        (
            "[backends.local]\nadapter = \"fs\"\n[routes.default]\nbackends = [\"lokal\"]\n",
            "line 4",
            "did you mean `local`",
        ),
        ("[backends.local\n", "line 1", "tidelock.toml"),
        ("", "line 1", "backends"),
    ] {
        let home = Home::with(text);
        let said = home.refused(2, &["ls"]);
        assert!(said.contains(line) && said.contains(says), "{text}: {said}");
    }
}

#[test]
fn a_setting_that_the_adapter_does_not_have() {
    let grant = "grants.directory.objects = { path = \"objects\" }";
    for (settings, says) in
        [("{ layuot = \"flat\" }", "layuot"), ("{ layout = 7 }", "layout"), ("{ layout = \"steep\" }", "layout")]
    {
        let home = Home::with(&format!("[backends.local]\nadapter = \"fs\"\nsettings = {settings}\n{grant}\n"));
        let said = home.run_with(&["store", "-"], b"x").refused(2, &["store", "-"]);
        assert!(said.contains(says) && said.contains("local"), "{said}");
    }
    let home =
        Home::with(&format!("[backends.local]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n{grant}\n"));
    home.line_with(&["store", "-"], b"x");
    assert_eq!(std::fs::read_dir(home.path("objects")).unwrap().flatten().filter(|e| e.path().is_file()).count(), 2);
}

#[test]
fn credentials_that_are_not_there() {
    let bucket = "grants.bucket.objects = { bucket = \"vm\", endpoint = \"http://127.0.0.1:1\", credentials = { env = \"NOWHERE\" } }";
    let home = Home::with(&format!("[backends.cloud]\nadapter = \"s3\"\n{bucket}\n"));
    let said = home.run_with(&["store", "-"], b"x").refused(2, &["store", "-"]);
    assert!(said.contains("NOWHERE_ACCESS_KEY_ID"), "{said}");
}

/// A bucket whose credentials are nowhere, beside a folder. Nothing answers at its address.
const BROKEN: &str = "
[backends.cloud]
adapter = \"s3\"
grants.bucket.objects = { bucket = \"vm\", endpoint = \"http://127.0.0.1:1\", credentials = { env = \"NOWHERE\" } }
[backends.local]
adapter = \"fs\"
grants.directory.objects = { path = \"objects\" }
[routes.default]
backends = [\"local\", \"cloud\"]
[routes.away]
backends = [\"cloud\", \"local\"]
";

#[test]
fn a_backend_that_is_not_used_needs_no_credentials() {
    let home = Home::with(BROKEN);
    let id = home.line_with(&["store", "-", "--name", "mine"], b"x");
    assert_eq!(home.json(&["ls"])["snapshots"][0]["id"], id);
    assert_eq!(home.json(&["stat", "mine"])["placements"][0]["backend"], "local");
    assert_eq!(home.bytes(&["retrieve", &id]), b"x");
    assert_eq!(home.json(&["verify"])["checked"], 1);
    // What needs it says what is missing, and on which.
    let says = |said: String| assert!(said.contains("NOWHERE_ACCESS_KEY_ID") && said.contains("cloud"), "{said}");
    let route = ["store", "-", "--route", "away"];
    says(home.run_with(&route, b"y").refused(2, &route));
    says(home.refused(2, &["adapter", "ls"]));
    let gc = home.run(&["gc"]);
    assert_eq!(gc.status.code(), Some(1), "{}", gc.stderr);
    says(gc.stderr);
    // Another backend's copy is read although the preferred one cannot be opened.
    home.file("tidelock.toml", BROKEN.replace("[\"local\", \"cloud\"]", "[\"cloud\", \"local\"]"));
    assert_eq!(home.bytes(&["retrieve", &id]), b"x");
    home.line(&["rm", &id]);
}

/// A component that is missing says nothing about the objects that it would find.
#[test]
fn a_backend_that_cannot_be_opened_loses_nothing() {
    let home = Home::with("[backends.mine]\nadapter = \"./mine.wasm\"\ngrants.directory.objects = { path = \"o\" }\n");
    let component = std::fs::read(tidelock_tests::program::guest("fs")).unwrap();
    home.file("mine.wasm", &component);
    let id = home.line_with(&["store", "-"], b"x");
    std::fs::remove_file(home.path("mine.wasm")).unwrap();
    let outcome = home.run(&["verify", "--deep", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let found = outcome.json();
    assert_eq!(found["bad"], serde_json::json!([]), "{found}");
    assert!(found["unreachable"][0]["why"].as_str().unwrap().contains("mine.wasm"), "{found}");
    for arguments in [["retrieve", &id], ["rm", &id]] {
        let said = home.refused(1, &arguments);
        assert!(said.contains("mine.wasm"), "{said}");
        assert_eq!(home.json(&["stat", &id])["placements"][0]["state"], "live");
    }
    home.file("mine.wasm", &component);
    assert_eq!(home.bytes(&["retrieve", &id]), b"x");
}

/// What makes room in the hot tier must not meet the catalogue, or the objects of a backend.
#[test]
fn a_hot_tier_in_the_way_of_something_else_is_refused() {
    let config = |path: &str| {
        format!(
            "data_dir = \"data\"\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"disk/objects\" }}\n\
             [hot]\ncapacity = \"1 GiB\"\npath = \"{path}\"\n"
        )
    };
    for (path, says) in [
        (".", "holds the data directory"),
        ("data", "holds the data directory"),
        ("data/../data", "holds the data directory"),
        ("data/tmp", "something else"),
        ("disk", "holds the folder of the backend `local`"),
        ("disk/objects", "is the folder of the backend `local`"),
        ("disk/objects/hot", "is in the folder of the backend `local`"),
    ] {
        let home = Home::with(&config(path));
        for made in [false, true] {
            if made {
                std::fs::create_dir_all(home.path("data")).unwrap();
                std::fs::create_dir_all(home.path("disk/objects")).unwrap();
            }
            let said = home.refused(2, &["ls"]);
            assert!(said.contains("hot.path") && said.contains(says), "{path}: {said}");
        }
    }
    for path in ["data/hot", "elsewhere", "disk/hot", "data-2"] {
        let home = Home::with(&config(path));
        home.line_with(&["store", "-"], b"x");
    }
}
