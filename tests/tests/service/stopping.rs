//! Stopping: gracefully, within a deadline, at once, and by a crash.

use std::io::{Read, Write};

use tidelock_tests::daemon::{Daemon, Stream, read};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, until};

const LARGE: usize = 48 * MIB;

fn config(drain: &str) -> Home {
    Home::with(&format!(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"tidelock-data/objects\" }}\n\
         [service]\ndrain = \"{drain}\"\n",
    ))
}

/// A download that has begun and is not read on: more than the buffers on the way take.
fn slow_download(daemon: &Daemon, image: &[u8]) -> Box<dyn Stream> {
    let id = daemon.server.store(image);
    let mut stream = daemon.server.connect();
    stream.write_all(daemon.server.head("GET", &format!("/v1/snapshots/{id}"), &[]).as_bytes()).unwrap();
    until("the download has begun", || {
        let text = String::from_utf8(daemon.server.get("/metrics").body).unwrap();
        text.contains("tidelock_operations_running{operation=\"retrieve\"} 1") && text.contains("direction=\"sent\"")
    });
    stream
}

#[test]
fn a_stop_lets_a_slow_download_and_a_slow_upload_end() {
    let home = config("120s");
    let mut daemon = Daemon::start(&home);
    let image = noise(LARGE, 1);
    let mut download = slow_download(&daemon, &image);
    let other = noise(3 * MIB, 2);
    let mut upload = daemon.server.connect();
    let length = other.len().to_string();
    let head = daemon.server.head("PUT", "/v1/snapshots", &[("content-length", &length)]);
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(&other[..MIB]).unwrap();
    until("the upload has begun", || {
        String::from_utf8(daemon.server.get("/metrics").body).unwrap().contains("direction=\"received\"")
    });
    // One that waits with nothing under way is not waited for.
    let mut idle = daemon.server.connect();
    daemon.ask_to_stop();
    until("nobody listens any more", || daemon.server.try_connect().is_err());
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty());
    assert!(daemon.runs(), "it waits for the two");
    // A successor can begin while the old one ends.
    let successor = Daemon::start(&home);
    assert_eq!(successor.server.get("/readyz").status, 200);
    let answer = read(&mut *download, false);
    assert!(answer.whole);
    assert_same(&answer.body, &image, "to the end of a slow download");
    upload.write_all(&other[MIB..]).unwrap();
    let id = read(&mut *upload, false).json(201)["id"].as_str().unwrap().to_owned();
    daemon.finish().success(&["serve"]);
    assert_same(&successor.server.get(&format!("/v1/snapshots/{id}")).body, &other, "what the old one took last");
    successor.stop();
}

#[test]
fn requests_are_aborted_at_the_deadline() {
    let home = config("200ms");
    let daemon = Daemon::start(&home);
    let image = noise(LARGE, 3);
    let mut download = slow_download(&daemon, &image);
    // In chunks, and between two of them: only a broken connection tells that more was to come.
    let mut upload = daemon.server.connect();
    let head = daemon.server.head("PUT", "/v1/snapshots", &[("transfer-encoding", "chunked")]);
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(format!("{:x}\r\n", MIB).as_bytes()).unwrap();
    upload.write_all(&noise(MIB, 4)).unwrap();
    upload.write_all(b"\r\n").unwrap();
    until("the upload has begun", || {
        let text = String::from_utf8(daemon.server.get("/metrics").body).unwrap();
        text.contains("tidelock_operations_running{operation=\"store\"} 1")
    });
    daemon.ask_to_stop();
    let outcome = daemon.finish();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("drain"), "{}", outcome.stderr);
    assert!(!read(&mut *download, false).whole, "an aborted download does not look whole");
    let listed = home.json(&["ls"]);
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "the aborted upload is not a snapshot: {listed}");
    assert_eq!(home.objects().len(), 1);
}

#[test]
fn a_second_word_cuts_at_once() {
    let home = config("10m");
    let mut daemon = Daemon::start(&home);
    let image = noise(LARGE, 5);
    let mut download = slow_download(&daemon, &image);
    daemon.ask_to_stop();
    until("nobody listens any more", || daemon.server.try_connect().is_err());
    assert!(daemon.runs());
    daemon.ask_to_stop();
    let outcome = daemon.finish();
    assert_eq!(outcome.status.code(), Some(143), "{}", outcome.stderr);
    assert!(!read(&mut *download, false).whole);
}

#[test]
fn killed_it_starts_again_on_the_same_socket() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let image = noise(3 * MIB, 6);
    let id = daemon.server.store(&image);
    let mut upload = daemon.server.connect();
    let head = daemon.server.head("PUT", "/v1/snapshots", &[("content-length", "9000000")]);
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(&image).unwrap();
    until("the upload has begun", || {
        let text = String::from_utf8(daemon.server.get("/metrics").body).unwrap();
        text.contains("tidelock_operations_running{operation=\"store\"} 1")
    });
    daemon.kill();
    assert!(home.path("tidelock.sock").exists(), "a killed one leaves its socket");
    let daemon = Daemon::start(&home);
    assert_same(&daemon.server.get(&format!("/v1/snapshots/{id}")).body, &image, "what was acknowledged");
    assert_eq!(daemon.server.get("/v1/snapshots").json(200)["snapshots"].as_array().unwrap().len(), 1);
    daemon.stop();
}
