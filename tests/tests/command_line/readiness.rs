//! What is not there is told before it is needed: backends, folders that are mounted later, catalogues that are begun anew.

use std::fs;

use serde_json::{Value, json};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::program::{Home, until};

/// A backend here, and one behind a port that nothing listens to.
fn with_a_cloud(routes: &str) -> Home {
    Home::with(&format!(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
         [backends.cloud]\nadapter = \"s3\"\n\
         grants.bucket.objects = {{ endpoint = \"http://127.0.0.1:9\", bucket = \"x\", path_style = true }}\n{routes}"
    ))
}

fn ready(daemon: &Daemon) -> (u16, Value) {
    let answer = daemon.server.get("/readyz");
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[test]
fn a_check_asks_the_backends() {
    let home = with_a_cloud("[routes.default]\nbackends = [\"cloud\", \"local\"]\ncopies = 2\nack = 1\n");
    let said = home.refused(1, &["serve", "--check"]);
    assert!(said.contains("route `default`") && said.contains("`cloud`") && said.contains("refused"), "{said}");
    let outcome = home.run(&["serve", "--check", "--json"]);
    assert_eq!(outcome.status.code(), Some(1));
    let found = outcome.json();
    assert_eq!((&found["ready"], &found["backends"][1]), (&json!(false), &json!({"backend": "local", "usable": true})));
    assert_eq!(found["backends"][0]["usable"], false);
    // The route does without.
    let home = with_a_cloud("[routes.default]\nbackends = [\"cloud\", \"local\"]\n");
    let checked = home.run(&["serve", "--check"]).success(&["serve", "--check"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.ends_with("ready, without cloud\n") && text.contains("cloud: it cannot be used: "), "{text}");
    assert!(!home.path("objects").exists() || home.objects().is_empty(), "nothing was stored");
    home.file("image", b"image");
    home.line(&["store", "image"]);
    // Another container in the place of the one that the image was stored into.
    fs::rename(home.path("objects"), home.path("away")).unwrap();
    let said = home.refused(1, &["serve", "--check"]);
    assert!(said.contains("container is not the one") && said.contains("--new-container"), "{said}");
}

#[test]
fn a_daemon_is_ready_if_each_route_has_a_backend() {
    let home = with_a_cloud("[routes.default]\nbackends = [\"cloud\", \"local\"]\n");
    let daemon = Daemon::start(&home);
    until("it is known", || ready(&daemon) == (200, json!({"status": "ready", "unusable": ["cloud"]})));
    daemon.stop();
    let home = with_a_cloud("[routes.default]\nbackends = [\"local\"]\n[routes.far]\nbackends = [\"cloud\"]\n");
    let daemon = Daemon::start(&home);
    until("it is known", || ready(&daemon).0 == 503);
    assert!(ready(&daemon).1["detail"].as_str().unwrap().contains("route `far`"));
    daemon.stop();
}

/// As a disk that is mounted when the daemon runs already, and one that is taken away.
#[test]
fn a_folder_that_is_there_later_is_used_without_a_restart() {
    let home = Home::with(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n\
         [hot]\ncapacity = \"64 MiB\"\npath = \"hot\"\n[routes.default]\nbackends = [\"local\"]\nack = \"local\"\n\
         [routes.direct]\nbackends = [\"local\"]\n",
    );
    let image = vec![7; 100_000];
    home.file("image", &image);
    let direct = home.line(&["store", "image", "--route", "direct"]);
    let local = home.line_with(&["store", "-"], b"at risk");
    let rename = |from: &str, to: &str| fs::rename(home.path(from), home.path(to)).unwrap();
    rename("objects", "objects-away");
    rename("hot", "hot-away");
    let daemon = Daemon::start(&home);
    let get = |id: &str| daemon.server.get(&format!("/v1/snapshots/{id}"));
    assert!(get(&direct).status >= 500 && get(&local).status >= 500);
    until("the daemon sees it", || ready(&daemon).0 == 503);
    daemon.server.send("PUT", "/v1/snapshots?route=direct", &[], b"nowhere").problem(503, "unavailable");
    for name in ["objects", "hot"] {
        let _ = fs::remove_dir_all(home.path(name));
        rename(&format!("{name}-away"), name);
    }
    assert_eq!((get(&direct).body, get(&local).body), (image, b"at risk".to_vec()));
    until("the daemon sees it", || ready(&daemon).0 == 200);
    let after = daemon.server.send("PUT", "/v1/snapshots?route=direct", &[], b"after");
    assert_eq!(after.status, 201);
    daemon.stop();
    home.json(&["verify", "--deep"]);
}

#[test]
fn a_catalogue_that_is_begun_beside_objects_says_so() {
    let home = Home::with(
        "data_dir = \"disk/data\"\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n\
         [backends.other]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"other\" }\n\
         [routes.default]\nbackends = [\"local\", \"other\"]\n",
    );
    let first = home.run_with(&["store", "-", "--name", "a"], b"image").success(&["store"]);
    assert!(!first.stderr.contains("import"), "all is new: {}", first.stderr);
    fs::rename(home.path("disk"), home.path("away")).unwrap();
    let listed = home.run(&["ls"]).success(&["ls"]);
    assert!(listed.stderr.contains("catalogue is new") && listed.stderr.contains("`tidelock import local`"));
    assert!(!listed.stderr.contains("import other"), "{}", listed.stderr);
    assert!(home.run(&["ls"]).stderr.contains("import local"), "until it is done");
    home.run(&["import", "local"]).success(&["import"]);
    assert_eq!(home.run(&["ls"]).stderr, "");
    assert_eq!(home.bytes(&["retrieve", "a"]), b"image");
}

#[test]
fn reading_begins_no_store() {
    let home = Home::new();
    for command in ["ls", "verify", "jobs", "scrub", "gc"] {
        let said = home.run(&[command]).success(&[command]).stderr;
        assert!(said.contains("nothing is stored here"), "{said}");
        assert!(!home.path("tidelock-data").exists(), "{command}");
    }
}

#[test]
fn an_import_of_foreign_objects_says_what_it_looks_at() {
    let foreign = |layout: &str| {
        let home = Home::with(&format!(
            "[backends.local]\nadapter = \"fs\"\nsettings = {{ layout = \"{layout}\" }}\n\
             grants.directory.objects = {{ path = \"objects\" }}\n",
        ));
        fs::create_dir(home.path("objects")).unwrap();
        home.file("objects/golden", b"image");
        let outcome = home.run(&["import", "local", "--foreign"]).success(&["import"]);
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(text.contains("`tidelock import local OBJECT`"), "{text}");
        text
    };
    assert!(foreign("flat").starts_with("1 of 1 object"));
    assert!(foreign("fan-out").starts_with("0 of 0 objects"));
}
