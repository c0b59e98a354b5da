//! What a backend that is slow, silent or endless, and readers that pause, take from the other backends of a host: nothing.
//!
//! What is slow here never ends by itself while a test waits, so that the others cannot be served after it.

use std::fs;
use std::io::{Read as _, Write as _};

use serde_json::Value;
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::odd::{Odd, Request, Then, when};
use tidelock_tests::program::{Home, until};

/// A bucket `cloud` of a server, and the folders `good` and `third`, with these routes.
pub(super) fn home(server: &Odd, routes: &str) -> Home {
    let folder = |name: &str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    let mut home = Home::with(&format!(
        "data_dir = \"tidelock-data\"\n{}{}[backends.cloud]\nadapter = \"s3\"\n\
         [backends.cloud.grants.bucket.objects]\nendpoint = \"{}\"\nbucket = \"b\"\npath_style = true\n\
         credentials = {{ env = \"CLOUD\" }}\n{routes}",
        folder("good"),
        folder("third"),
        server.endpoint
    ));
    home.env("CLOUD_ACCESS_KEY_ID", "AK");
    home.env("CLOUD_SECRET_ACCESS_KEY", "hush-hush");
    for name in ["http_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        home.env(name, "");
    }
    home
}

/// Bytes that take half as many when they are compressed.
fn text(len: usize, seed: u64) -> Vec<u8> {
    noise(len / 2, seed).iter().flat_map(|byte| [b'a' + (byte & 15), b'a' + (byte >> 4)]).collect()
}

pub(super) fn placements(home: &Home, id: &str) -> Vec<Value> {
    home.json(&["stat", id])["placements"].as_array().unwrap().clone()
}

pub(super) fn jobs(home: &Home) -> Vec<Value> {
    home.json(&["jobs"])["jobs"].as_array().unwrap().clone()
}

/// How many jobs are being run.
pub(super) fn running(home: &Home) -> usize {
    jobs(home).iter().filter(|job| job["state"] == "running").count()
}

/// Routes on which a copy is left to a job: one with the bucket, one without.
pub(super) const ROUTES: &str = "[routes.default]\nbackends = [\"cloud\", \"good\"]\ncopies = 2\nack = 1\n\
                                 [routes.fine]\nbackends = [\"good\", \"third\"]\ncopies = 2\nack = 1\n";

/// Returns whether a request is for the bytes of a snapshot.
pub(super) fn is_read(request: &Request) -> bool {
    request.operation() == "Get" && request.key.contains("snap-")
}

#[test]
fn jobs_of_a_backend_that_is_slow_hold_up_none_of_others() {
    let server = Odd::start(vec![]);
    let home = home(&server, ROUTES);
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    // Copies of these can only be made from what trickles for ten minutes. There are more than jobs that run at once.
    for seed in 0..5 {
        home.line_with(&["store", "-"], &noise(MIB, seed));
    }
    let daemon = Daemon::start(&home);
    until("the slow jobs run", || running(&home) >= 2);
    for seed in 10..13 {
        let stored = daemon.server.send("PUT", "/v1/snapshots?route=fine", &[], &noise(MIB, seed)).json(201);
        let id = stored["id"].as_str().unwrap().to_owned();
        until("it has its copy", || placements(&home, &id).len() == 2);
    }
    assert!(running(&home) >= 2, "the slow ones still run");
    // The same of a run in the foreground.
    drop(daemon);
    home.line_with(&["store", "-", "--route", "fine"], &noise(MIB, 20));
    let mut run = tidelock_tests::program::Running::start(home.command(&["jobs", "run", "--parallel", "2"]));
    until("all copies on the third", || home.objects_below("third").len() == 4);
    assert!(run.runs(), "{}", run.said());
}

#[test]
fn a_backend_that_fails_at_the_end_takes_no_scrub_of_others() {
    let server = Odd::start(vec![]);
    let home = home(&server, "[routes.default]\nbackends = [\"cloud\"]\n[routes.fine]\nbackends = [\"good\"]\n");
    home.line_with(&["store", "-"], &noise(8 * MIB, 1));
    // The one that waits the longest is read first.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for seed in 2..5 {
        home.line_with(&["store", "-", "--route", "fine"], &noise(MIB, seed));
    }
    server.rule(when(is_read, usize::MAX, Then::Short(100)));
    let scrub = home.run(&["scrub", "--bytes", "4MiB", "--json"]).json();
    assert_eq!((&scrub["checked"], &scrub["complete"]), (&3.into(), &true.into()), "{scrub}");
    assert_eq!(scrub["unreachable"].as_array().map(Vec::len), Some(1), "{scrub}");
}

#[test]
fn readers_that_pause_keep_no_pack_of_another_backend_waiting() {
    let server = Odd::start(vec![]);
    let routes = "[routes.default]\nbackends = [\"third\"]\nencoding = \"pages\"\nprofile = \"random\"\n\
                  [routes.fine]\nbackends = [\"good\"]\nencoding = \"pages\"\nprofile = \"random\"\n";
    let home = home(&server, routes);
    let (large, small) = (text(48 * MIB, 1), text(32 * MIB, 2));
    let slow = home.line_with(&["store", "-"], &large);
    let other = home.line_with(&["store", "-", "--route", "fine"], &small);
    assert_eq!(placements(&home, &slow)[0]["encoding"], "pages");
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let path = format!("/v1/snapshots/{slow}");
    let head = server.head("GET", &path, &[("connection", "close")]);
    // As many as may decode at once.
    let mut readers: Vec<_> = (0..4).map(|_| server.connect()).collect();
    readers.iter_mut().for_each(|reader| reader.write_all(head.as_bytes()).unwrap());
    let mut taken = vec![Vec::new(); readers.len()];
    for step in 0..16 {
        for (reader, taken) in readers.iter_mut().zip(&mut taken) {
            reader.take(MIB as u64).read_to_end(taken).unwrap();
        }
        // They have time to take all that they can.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let at = (2 * step + 1) * MIB;
        let range = format!("bytes={at}-{}", at + 99);
        let found = server.send("GET", &format!("/v1/snapshots/{other}"), &[("range", &range)], &[]);
        assert_eq!(found.status, 206, "step {step}");
        assert_same(&found.body, &small[at..at + 100], "of the other pack");
    }
    // None of them was cut off meanwhile.
    for (mut reader, mut taken) in readers.into_iter().zip(taken) {
        reader.read_to_end(&mut taken).unwrap();
        let body = taken.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_same(&taken[body..], &large, "what a slow reader got");
    }
}

/// Makes the footer of a pack say that its metadata is as large as it may be, and that much of the object is metadata.
fn with_much_metadata(pack: &[u8]) -> Vec<u8> {
    let end = pack.len() - 128;
    let mut footer = pack[end..].to_vec();
    let columns = 3 << 20;
    footer[..8].copy_from_slice(&(4u64 << 40).to_le_bytes());
    footer[40..48].copy_from_slice(&((end - columns) as u64).to_le_bytes());
    footer[48..52].copy_from_slice(&0u32.to_le_bytes());
    footer[52..56].copy_from_slice(&(columns as u32).to_le_bytes());
    footer[56..60].copy_from_slice(&(64u32 << 20).to_le_bytes());
    let check = blake3::hash(&footer[..96]);
    footer[96..120].copy_from_slice(&check.as_bytes()[..24]);
    [&pack[..end], &footer].concat()
}

#[test]
fn metadata_that_trickles_keeps_no_pack_of_another_backend_shut() {
    let server = Odd::start(vec![]);
    let home = home(
        &server,
        "[routes.default]\nbackends = [\"cloud\"]\nencoding = \"pages\"\n\
         [routes.fine]\nbackends = [\"good\"]\nencoding = \"pages\"\n",
    );
    // Small enough for one request.
    let bad = home.line_with(&["store", "-"], &noise(4 * MIB, 1));
    let others: Vec<_> = (2..4).map(|seed| (seed, text(MIB, seed))).collect();
    let others = others.iter().map(|(_, bytes)| (home.line_with(&["store", "-", "--route", "fine"], bytes), bytes));
    let others: Vec<_> = others.collect();
    let (key, pack) = server.objects().into_iter().find(|(_, bytes)| bytes.len() > 4 * MIB).unwrap();
    server.put(&key, with_much_metadata(&pack));
    // The metadata comes at 2 KiB a second; what is fetched of the end comes at once.
    let end = pack.len() - (1 << 20);
    let is_metadata = move |request: &Request| {
        let start = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
        is_read(request) && start.and_then(|start| start.parse::<usize>().ok()).is_some_and(|start| start < end)
    };
    server.rule(when(is_metadata, usize::MAX, Then::Trickle));
    let daemon = Daemon::start(&home);
    let address = daemon.server.clone();
    let reader = std::thread::spawn(move || {
        let mut stream = address.connect();
        let head = address.head("GET", &format!("/v1/snapshots/{bad}"), &[("range", "bytes=0-99")]);
        stream.write_all(head.as_bytes()).unwrap();
        stream
    });
    let is_asked = || server.requests().iter().any(is_metadata);
    until("its metadata is asked for", is_asked);
    for (id, bytes) in others {
        let found = daemon.server.send("GET", &format!("/v1/snapshots/{id}"), &[("range", "bytes=0-99")], &[]);
        assert_eq!(found.status, 206, "{}", String::from_utf8_lossy(&found.body));
        assert_same(&found.body, &bytes[..100], "of the other pack");
    }
    drop(reader.join());
}

#[test]
fn a_pack_that_is_copied_has_an_end() {
    let server = Odd::start(vec![]);
    let routes = "[routes.default]\nbackends = [\"good\", \"cloud\"]\ncopies = 2\nencoding = \"pages\"\n";
    let home = home(&server, routes);
    let image = text(4 * MIB, 1);
    let id = home.line_with(&["store", "-"], &image);
    let all = placements(&home, &id);
    assert!(all.len() == 2 && all.iter().all(|placement| placement["encoding"] == "pages"), "{all:?}");
    let object = home.objects_below("good").into_iter().find(|path| path.extension().is_none()).unwrap();
    let mut bytes = fs::read(&object).unwrap();
    bytes[4000..4004].iter_mut().for_each(|byte| *byte ^= 1);
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();
    // Parts are as they were stored; the whole never ends.
    let is_whole = |request: &Request| is_read(request) && !request.headers.contains_key("range");
    server.rule(when(is_whole, usize::MAX, Then::Long(1 << 30)));
    home.run(&["repair", &id]);
    // What the sockets hold, of each attempt.
    assert!(server.zeros() < 128 << 20, "{} bytes were taken", server.zeros());
    assert_same(&home.bytes(&["retrieve", &id]), &image, "the image");
}
