//! Copies are in two places: a folder or a bucket under two names of it is one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;
use tidelock_tests::data::noise;
use tidelock_tests::odd::{Odd, Request, refuse, when};
use tidelock_tests::program::{Home, ProgramOutput, Running, is_identity, tidelock};
use tidelock_tests::server;
use xtask::skip::skip;

fn config(second: &str) -> String {
    format!(
        "[backends.first]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"one\" }}\n\
         [backends.second]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{second}\" }}\n\
         [routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\n"
    )
}

fn names_both(said: &str) {
    assert!(said.contains("the same place") && said.contains("`first`") && said.contains("`second`"), "{said}");
    assert!(said.contains("hint: give each backend of the route a place of its own"), "{said}");
}

fn copies(stored: &Value) -> usize {
    stored["placements"].as_array().unwrap().len()
}

/// Two copies in one folder are one.
#[test]
fn two_copies_in_one_place_are_refused() {
    let home = Home::new();
    home.file("image", noise(1000, 5));
    fs::create_dir(home.path("one")).unwrap();
    symlink("one", home.path("link")).unwrap();
    for second in ["one", "./one/", "link"] {
        home.file("tidelock.toml", config(second));
        names_both(&home.refused(2, &["store", "image"]));
    }
    home.file("tidelock.toml", config("others"));
    home.line(&["store", "image"]);
}

/// The program where the folder `one` is mounted as `two` also; `None` where nobody may mount.
fn mounted_twice(home: &Home, arguments: &[&str]) -> Option<ProgramOutput> {
    if Command::new("unshare").args(["-m", "true"]).status().map_or(true, |status| !status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    let script = "mount --bind one two || exit 99; exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh"]).arg(tidelock()).args(arguments);
    home.settle(&mut command);
    let mut program = Running::start(command);
    if arguments.contains(&"-") {
        program.feed(&noise(100_000, 6)).unwrap();
    }
    let outcome = program.finish();
    (outcome.status.code() != Some(99)).then_some(outcome)
}

#[test]
fn a_folder_under_two_paths_is_one_place() {
    let home = Home::with(&config("two"));
    fs::create_dir(home.path("one")).unwrap();
    fs::create_dir(home.path("two")).unwrap();
    home.file("image", noise(100_000, 5));
    // By the first store, by one that knows both from before, of a file and of what can be read only once.
    for arguments in [&["store", "image", "--name", "vm"][..], &["store", "image"], &["store", "-"]] {
        let Some(stored) = mounted_twice(&home, arguments) else {
            return skip("a_folder_under_two_paths_is_one_place", "nobody may mount here");
        };
        names_both(&stored.refused(2, arguments));
        assert_eq!(home.objects_below("one").len(), 0, "what was made is removed");
    }
    assert_eq!(home.json(&["ls"])["snapshots"], serde_json::json!([]));
}

#[test]
fn folders_that_were_copied_into_each_other_are_two_places() {
    let home = Home::with(&config("two"));
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").args(["-a", &format!("{from}/."), to]).current_dir(home.path("")).status();
        assert!(copied.unwrap().success());
    };
    for (number, (from, to)) in [("one", "two"), ("two", "one")].into_iter().enumerate() {
        home.file("image", noise(100_000, number as u64));
        assert_eq!(copies(&home.json(&["store", "image"])), 2);
        copy(from, to);
    }
    home.file("image", noise(100_000, 9));
    assert_eq!(copies(&home.json(&["store", "image"])), 2);
    // Nothing is left of what was looked for.
    home.json(&["verify", "--deep"]);
    let probed = |folder| tidelock_tests::program::files(&home.path(folder)).len();
    let before = (probed("one"), probed("two"));
    home.json(&["store", "image"]);
    assert_eq!((probed("one"), probed("two")), before);
}

#[test]
fn a_bucket_under_two_names_of_its_server_is_one_place() {
    let server = server::shared();
    let backend = |name: &str, endpoint: &str, prefix: &str| {
        server::config(server, prefix)
            .replace("backends.cloud", &format!("backends.{name}"))
            .replace(&server.endpoint, endpoint)
    };
    let other = server.endpoint.replace("127.0.0.1", "localhost");
    assert_ne!(other, server.endpoint);
    let home_with = |prefix: &str| {
        let mut home = server::home(server, "unused");
        let first = backend("first", &server.endpoint, "place/one");
        let route = "[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\n";
        home.file("tidelock.toml", format!("{first}{}{route}", backend("second", &other, prefix)));
        home.env("CLOUD_ACCESS_KEY_ID", &server.access_key);
        home.file("image", noise(100_000, 5));
        home
    };
    names_both(&home_with("place/one").refused(2, &["store", "image"]));
    // Parts of one bucket are two places, also if one is within the other.
    for prefix in ["place/two", "place/one/within"] {
        assert_eq!(copies(&home_with(prefix).json(&["store", "image"])), 2, "{prefix}");
    }
}

/// Whether a new copy is apart from the others is asked of the backend that takes it: a holder that is away keeps no job from it,
/// nor does one that does not show its identity.
#[test]
fn a_holder_that_is_away_keeps_no_copy_from_being_made_elsewhere() {
    let server = Odd::start(vec![]);
    let folder = |name: &str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    let config = |endpoint: &str| {
        format!(
            "{}{}[backends.second]\nadapter = \"s3\"\ngrants.bucket.objects = {{ endpoint = \"{endpoint}\", bucket = \"b\", \
             prefix = \"\", path_style = true, credentials = {{ env = \"CLOUD\" }} }}\n\
             [routes.default]\nbackends = [\"first\", \"second\", \"third\"]\ncopies = 3\nack = 2\n",
            folder("first"),
            folder("third")
        )
    };
    let mut home = Home::with(&config(&server.endpoint));
    home.env("CLOUD_ACCESS_KEY_ID", "k");
    home.env("CLOUD_SECRET_ACCESS_KEY", "s");
    let ids = [8, 9].map(|seed| home.line(&["store", &home.file("image", noise(10_000, seed))]));
    // Its port is nobody's.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    home.file("tidelock.toml", config(&format!("http://127.0.0.1:{port}")));
    let said = home.run(&["jobs", "run", "--json"]);
    assert_eq!(home.objects_below("third").len(), 2, "{said:?}");
    home.file("tidelock.toml", config(&server.endpoint));
    home.run(&["jobs", "run", "--all"]);
    for id in &ids {
        assert_eq!(copies(&home.json(&["stat", id])), 3);
    }
    // It is there, and its identity is not to be had.
    let id = home.line(&["store", &home.file("image", noise(10_000, 10))]);
    let identity = |request: &Request| request.operation() == "Get" && is_identity(&request.key);
    server.rule(when(identity, usize::MAX, refuse(503, "SlowDown", "later")));
    home.run(&["jobs", "run"]);
    assert_eq!(copies(&home.json(&["stat", &id])), 3);
}

/// The same where its container is the very one that would take the copy: nothing counts twice.
#[test]
fn a_copy_is_not_made_in_the_place_of_a_holder_that_is_away() {
    let home = Home::new();
    home.file("tidelock.toml", config("two"));
    home.line(&["store", &home.file("image", noise(10_000, 9))]);
    // The disk of the first takes the place of the second, and nothing is left where it was.
    let third = config("one-moved").replace("[\"first\", \"second\"]", "[\"first\", \"third\"]");
    let third = third.replace("[backends.second]", "[backends.third]").replace("copies = 2", "copies = 2\nack = 1");
    home.file("tidelock.toml", third);
    fs::rename(home.path("one"), home.path("one-moved")).unwrap();
    fs::write(home.path("one"), "no folder").unwrap();
    let before = home.objects_below("one-moved").len();
    home.run(&["jobs", "run", "--all"]);
    assert_eq!(home.objects_below("one-moved").len(), before);
}
