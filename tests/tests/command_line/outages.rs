//! A backend that goes away: before, during and after, and that it is as good as new when it is back.

use std::time::{Duration, Instant};

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, PATIENCE, ProgramOutput, Running, until};
use tidelock_tests::server;

#[track_caller]
fn failed(outcome: ProgramOutput) {
    let said = outcome.refused(1, &["with the backend down"]);
    assert!(said.contains("cloud"), "it does not say which backend: {said}");
}

#[track_caller]
fn empty(home: &Home) {
    let listed = home.json(&["ls"]).to_string();
    assert!(!listed.contains("tl1"), "{listed}");
}

#[test]
fn a_backend_that_is_down_and_comes_back() {
    let mut server = server::start();
    let home = server::home(&server, "down");
    let bytes = noise(20 * MIB, 1);
    let known = home.line_with(&["store", "-"], &bytes);
    server.kill();
    home.file("image", noise(5000, 2));
    failed(home.run(&["store", "image"]));
    failed(home.run(&["retrieve", &known, "-o", "copy"]));
    assert!(!home.path("copy").exists());
    // What needs no backend works without one.
    assert_eq!(home.json(&["stat", &known])["size"], bytes.len());
    assert!(home.json(&["ls"]).to_string().contains(&known));
    server.restart().unwrap();
    assert_same(&home.bytes(&["retrieve", &known]), &bytes, "after the outage");
    home.line(&["store", "image"]);
    home.json(&["verify", "--deep"]);
}

#[test]
fn a_backend_that_dies_in_the_middle_of_a_put() {
    let mut server = server::start();
    let home = server::home(&server, "mid-put");
    let bytes = noise(60 * MIB, 3);
    let mut put = Running::start(home.command(&["store", "-"]));
    // More than one part is on its way when it dies.
    put.feed(&bytes[..40 * MIB]).unwrap();
    assert!(put.runs());
    server.kill();
    // It may have noticed already and closed its input.
    let _ = put.feed(&bytes[40 * MIB..]);
    failed(put.finish());
    empty(&home);
    server.restart().unwrap();
    empty(&home);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the same store after the outage");
    home.json(&["gc", "--older-than", "1ms"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "after the leftovers were collected");
}

#[test]
fn a_backend_that_dies_in_the_middle_of_a_get() {
    let mut server = server::start();
    let home = server::home(&server, "mid-get");
    let bytes = noise(60 * MIB, 5);
    let id = home.line_with(&["store", "-"], &bytes);

    // A reader that takes a little and waits: most of the object is still at the server when it dies.
    let mut command = home.command(&["retrieve", &id]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdin(std::process::Stdio::null()).stdout(writer).stderr(std::process::Stdio::piped());
    let mut get = command.spawn().unwrap();
    drop(command);
    let mut start = vec![0; MIB];
    std::io::Read::read_exact(&mut reader, &mut start).unwrap();
    assert_same(&start, &bytes[..MIB], "the beginning");
    server.kill();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut rest).unwrap();
    let ended = get.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(get.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(rest.len() < bytes.len() - MIB, "the object was over before the server died: enlarge it");
    assert_eq!(ended.code(), Some(1), "cut short is not done: {said}");
    assert!(said.contains("cloud"), "{said}");
    assert_same(&rest, &bytes[MIB..MIB + rest.len()], "what came was right");

    // The same into a file: no file.
    server.restart().unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "after the outage");
    home.file("copy", b"old");
    server.pause().unwrap();
    let get = Running::start(home.command(&["retrieve", &id, "-o", "copy"]));
    std::thread::sleep(Duration::from_millis(300));
    server.kill();
    failed(get.finish());
    assert_eq!(home.read("copy"), b"old");
}

#[test]
fn a_silent_backend_is_given_up() {
    let server = server::start();
    let home = server::home(&server, "mute");
    let known = home.line_with(&["store", "-"], &noise(5000, 1));
    server.pause().unwrap();
    // The configuration allows five seconds without a byte.
    failed(home.run(&["retrieve", &known, "-o", "copy"]));
    let outcome = home.run_with(&["store", "-"], &noise(6000, 2));
    server.resume().unwrap();
    failed(outcome);
    let mut last = home.run(&["retrieve", &known]);
    let answered = Instant::now();
    while !last.status.success() {
        assert!(answered.elapsed() < PATIENCE, "it does not answer again: {}\n{}", last.stderr, server.end_of_log());
        std::thread::sleep(Duration::from_millis(50));
        last = home.run(&["retrieve", &known]);
    }
}

#[test]
fn a_collection_goes_on_past_a_backend_that_is_down() {
    let server = server::start();
    let home = server::home(&server, "collected");
    let config = String::from_utf8(home.read("tidelock.toml")).unwrap();
    let local = "[backends.zlocal]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n";
    let routes = "[routes.default]\nbackends = [\"zlocal\"]\n";
    home.file("tidelock.toml", format!("{config}\n{local}{routes}"));
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&noise(8 * MIB, 1)).unwrap();
    let unfinished = |least: u64| {
        let files = std::fs::read_dir(home.path("objects/.tmp")).into_iter().flatten().flatten();
        files.filter(|file| file.metadata().is_ok_and(|file| file.len() >= least)).count()
    };
    until("bytes in a temporary file", || unfinished(MIB as u64) > 0);
    store.kill();
    drop(server);
    let collected = home.run(&["gc", "--older-than", "1ms", "--json"]);
    assert_eq!(collected.status.code(), Some(1), "{}", collected.stderr);
    let report = collected.json();
    assert_eq!(report["failed"][0]["backend"], "cloud", "{report}");
    assert_eq!((&report["error"]["kind"], unfinished(0)), (&"unavailable".into(), 0), "{report}");
}

/// Each backend that is down is named, with what is wrong with it.
#[test]
fn gc_and_verify_tell_the_error_of_each_backend() {
    let backends = ["first", "second", "third"].map(|name| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    });
    let route = "[routes.default]\nbackends = [\"first\", \"second\", \"third\"]\ncopies = 3\n";
    let home = Home::with(&[&backends.concat(), route].concat());
    home.line_with(&["store", "-"], b"image");
    for name in ["first", "third"] {
        std::fs::rename(home.path(name), home.path(&format!("{name}-away"))).unwrap();
        std::fs::write(home.path(name), b"no folder").unwrap();
    }
    for command in [["verify", "--json"], ["gc", "--json"]] {
        let said = home.run(&command);
        assert_eq!(said.status.code(), Some(1), "{}", said.stderr);
        let json = said.json();
        let failed = json["failed"].as_array().unwrap();
        let named: Vec<_> = failed.iter().map(|failed| failed["backend"].as_str().unwrap()).collect();
        assert_eq!(named, ["first", "third"], "{json}");
        for name in ["first", "third"] {
            let message = json["error"]["message"].as_str().unwrap();
            assert!(message.contains(&format!("backend `{name}`: ")), "{message}");
            assert!(said.stderr.contains(&format!("backend `{name}`: ")), "{}", said.stderr);
        }
    }
}
