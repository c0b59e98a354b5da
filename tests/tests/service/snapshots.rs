//! Images in and out: complete, in ranges, interrupted.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::json;
use tidelock_tests::daemon::{Daemon, Server, read};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, keys, until};

#[test]
fn a_stored_image_comes_back_with_the_answers_of_the_command_line() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let image = noise(5 * MIB + 77, 1);
    let answer = server.send("PUT", "/v1/snapshots?name=first&raw", &[], &image);
    let stored = answer.json(201);
    home.file("image", &image);
    let id = home.line(&["id", "image"]);
    assert_eq!(stored["id"], id);
    assert_eq!(answer.header("location"), Some(format!("/v1/snapshots/{id}").as_str()));
    let again = server.send("PUT", "/v1/snapshots", &[], &image).json(200);
    assert_eq!(again["stored_bytes"], 0);

    let answer = server.get(&format!("/v1/snapshots/{id}"));
    assert_same(&answer.body, &image, "by its id");
    assert_eq!(answer.header("etag"), Some(format!("\"{id}\"").as_str()));
    assert_eq!(answer.header("tidelock-source"), Some("local"));
    assert_same(&server.get("/v1/snapshots/first").body, &image, "by its name");
    assert_same(&server.get(&format!("/v1/snapshots/{}", &id[..20])).body, &image, "by the beginning of its id");

    let newer = changed(&image, 2);
    let updated = server.send("POST", "/v1/snapshots/first/update?name=second", &[], &newer).json(201);
    assert_eq!(updated["base"], id);
    home.file("newer", &newer);
    assert_eq!(keys(&updated), keys(&home.json(&["update", &id, "newer"])));
    let head = server.send("HEAD", "/v1/snapshots/second", &[], &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some(newer.len().to_string().as_str())));

    // The command line sees the same, in the same words.
    let stat = server.get("/v1/snapshots/second/stat").json(200);
    assert_eq!(stat, home.json(&["stat", "second"]));
    let listed = server.get("/v1/snapshots").json(200);
    assert_eq!(listed["snapshots"], home.json(&["ls"])["snapshots"]);
    let removed = server.send("DELETE", "/v1/snapshots/first", &[], &[]).json(200);
    // It was also stored without a name, so its id may be in use.
    assert_eq!(removed, json!({"id": id, "placements": 0, "kept": true, "names": [], "needed_by": [], "kept_on": []}));
    server.get("/v1/snapshots/first").problem(404, "not-found");
    let removed = server.send("DELETE", &format!("/v1/snapshots/{id}"), &[], &[]).json(200);
    assert_eq!(
        removed,
        json!({"id": id, "placements": 0, "kept": false, "names": [], "needed_by": [updated["id"]], "kept_on": []})
    );
    server.send("DELETE", "/v1/snapshots/first", &[], &[]).problem(404, "not-found");
    assert_same(&server.get("/v1/snapshots/second").body, &newer, "a change outlives its base");
    daemon.stop();
}

/// Two tenants who store the same image do not take anything from each other.
#[test]
fn one_name_is_removed_and_the_other_keeps_the_bytes() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let image = noise(MIB, 4);
    let id = server.send("PUT", "/v1/snapshots?name=ours", &[], &image).json(201)["id"].clone();
    server.send("PUT", "/v1/snapshots?name=theirs", &[], &image).json(200);
    let stat = server.get("/v1/snapshots/ours/stat").json(200);
    assert_eq!((&stat["name"], &stat["names"]), (&json!("theirs"), &json!(["theirs", "ours"])));
    let by_id = format!("/v1/snapshots/{}", id.as_str().unwrap());
    server.send("DELETE", &by_id, &[], &[]).problem(409, "conflict");
    let removed = server.send("DELETE", "/v1/snapshots/theirs", &[], &[]).json(200);
    assert_eq!(
        removed,
        json!({"id": id, "placements": 0, "kept": true, "names": ["ours"], "needed_by": [], "kept_on": []})
    );
    server.get("/v1/snapshots/theirs").problem(404, "not-found");
    assert_same(&server.get("/v1/snapshots/ours").body, &image, "under the name that is left");
    // A name that moves says from where.
    let moved = server.send("PUT", "/v1/snapshots?name=ours", &[], &noise(MIB, 5)).json(201);
    assert_eq!(moved["name_taken_from"], id);
    assert_same(&server.get(&by_id).body, &image, "what had the name before");
    for name in ["a", "b"] {
        server.send("PUT", &format!("/v1/snapshots?name={name}"), &[], &image).json(200);
    }
    let removed = server.send("DELETE", &format!("{by_id}?all_names"), &[], &[]).json(200);
    assert_eq!((&removed["placements"], &removed["kept"]), (&json!(1), &json!(false)));
    server.get(&by_id).problem(404, "not-found");
    daemon.stop();
}

#[test]
fn parts_are_given_byte_for_byte() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let image = noise(5 * MIB + 77, 3);
    let path = format!("/v1/snapshots/{}", server.store(&image));
    let len = image.len();
    let part = |range: &str| server.send("GET", &path, &[("range", range)], &[]);
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=0-".to_owned(), 0, len),
        (format!("bytes={}-", len - 1), len - 1, len),
        (format!("bytes={}-{}", 2 * MIB - 3, 2 * MIB + 3), 2 * MIB - 3, 2 * MIB + 4),
        (format!("bytes=1-{}", len * 2), 1, len),
        ("bytes=-1000".to_owned(), len - 1000, len),
        (format!("bytes=-{}", len * 2), 0, len),
    ] {
        let answer = part(&range);
        assert_eq!(answer.status, 206, "{range}: {}", String::from_utf8_lossy(&answer.body));
        assert_same(&answer.body, &image[from..to], &range);
        let said = format!("bytes {from}-{}/{len}", to - 1);
        assert_eq!(answer.header("content-range"), Some(said.as_str()), "{range}");
        assert_eq!(answer.header("content-length"), Some((to - from).to_string().as_str()), "{range}");
    }
    for range in [format!("bytes={len}-"), "bytes=-0".into(), "bytes=9-3".into(), "bytes=0-1,3-4".into()] {
        let answer = part(&range);
        answer.problem(416, "invalid");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{len}").as_str()), "{range}");
    }
    // What is not about bytes is not about us, and a part of something else is not wanted.
    assert_eq!(part("lines=1-2").body.len(), len);
    let tag = server.send("HEAD", &path, &[], &[]).header("etag").unwrap().to_owned();
    let if_range = |tag: &str| server.send("GET", &path, &[("range", "bytes=0-9"), ("if-range", tag)], &[]);
    assert_eq!((if_range(&tag).status, if_range("\"other\"").status), (206, 200));
    let unchanged = server.send("GET", &path, &[("if-none-match", &tag)], &[]);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    daemon.stop();
}

#[test]
fn an_empty_image_and_an_image_of_unknown_length() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let id = server.store(b"");
    assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"");
    server.send("GET", &format!("/v1/snapshots/{id}"), &[("range", "bytes=0-")], &[]).problem(416, "invalid");
    let image = noise(3 * MIB + 5, 4);
    let mut stream = server.connect();
    let head = server.head("PUT", "/v1/snapshots", &[("transfer-encoding", "chunked"), ("connection", "close")]);
    stream.write_all(head.as_bytes()).unwrap();
    for chunk in image.chunks(300_007) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let id = read(&mut *stream, false).json(201)["id"].as_str().unwrap().to_owned();
    assert_same(&server.get(&format!("/v1/snapshots/{id}")).body, &image, "in chunks");
    daemon.stop();
}

/// Sends a part of an image and breaks off, with or without an announced length.
fn break_off(server: &Server, image: &[u8], announced: bool) {
    let mut stream = server.connect();
    let length = image.len().to_string();
    let how = if announced { ("content-length", length.as_str()) } else { ("transfer-encoding", "chunked") };
    stream.write_all(server.head("PUT", "/v1/snapshots", &[how]).as_bytes()).unwrap();
    let part = &image[..image.len() / 2];
    if announced {
        stream.write_all(part).unwrap();
    } else {
        stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).unwrap();
        stream.write_all(part).unwrap();
        // Between two chunks: all that came is well-formed, and only the last chunk is missing.
        stream.write_all(b"\r\n").unwrap();
    }
}

#[test]
fn a_broken_off_upload_leaves_nothing() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let image = noise(9 * MIB, 5);
    for announced in [true, false] {
        break_off(server, &image, announced);
        until("the upload has failed", || {
            let text = String::from_utf8(server.get("/metrics").body).unwrap();
            let running = text.lines().any(|line| line == "tidelock_operations_running{operation=\"store\"} 0");
            let failed = text.lines().filter(|line| line.starts_with("tidelock_operations_total{operation=\"store\""));
            let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
            assert!(!text.contains("operation=\"store\",outcome=\"ok\""), "{text}");
            running && failed.map(count).sum::<u32>() == if announced { 1 } else { 2 }
        });
        assert_eq!(server.get("/v1/snapshots").json(200)["snapshots"], json!([]));
        assert!(home.objects().is_empty() && home.leftovers().is_empty(), "{:?}", home.leftovers());
    }
    // Nothing is left in the books either, although the daemon lives.
    let books = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    let intents: u64 = books.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).unwrap();
    assert_eq!(intents, 0);
    server.store(&image);
    daemon.stop();
}

#[test]
fn a_client_that_stalls_is_cut() {
    let home = Home::with(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"tidelock-data/objects\" }\n\
         [service]\nidle = \"300ms\"\n",
    );
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    // In the middle of a body.
    let mut stream = server.connect();
    stream.write_all(server.head("PUT", "/v1/snapshots", &[("content-length", "1000")]).as_bytes()).unwrap();
    stream.write_all(b"x").unwrap();
    read(&mut *stream, false).problem(408, "timed-out");
    // In the middle of a head, and before it.
    for begin in ["GET / HTT", ""] {
        let mut stream = server.connect();
        stream.write_all(begin.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    // While it is given something: more than the buffers on the way take.
    let image = noise(32 * MIB, 6);
    let id = server.store(&image);
    let mut stream = server.connect();
    stream.write_all(server.head("GET", &format!("/v1/snapshots/{id}"), &[]).as_bytes()).unwrap();
    until("the download was given up", || {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        text.contains("tidelock_operations_total{operation=\"retrieve\",outcome=\"cancelled\"} 1")
    });
    assert!(!read(&mut *stream, false).whole);
    assert_eq!(server.get("/v1/snapshots").json(200)["snapshots"].as_array().unwrap().len(), 1);
    daemon.stop();
}

#[test]
fn a_download_that_fails_breaks_instead_of_ending() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let image = noise(9 * MIB, 7);
    let id = server.store(&image);
    let object = home.objects().pop().unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[7 * MIB] ^= 1;
    std::fs::set_permissions(&object, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&object, &bytes).unwrap();
    let answer = server.get(&format!("/v1/snapshots/{id}"));
    assert!(!answer.whole && answer.body.len() < image.len(), "{} bytes", answer.body.len());
    assert!(image.starts_with(&answer.body), "no wrong byte came out");
    // What fails before the first byte can say so. The catalogue knows it, the backend has lost it.
    std::fs::remove_file(&object).unwrap();
    let problem = server.get(&format!("/v1/snapshots/{id}")).problem(502, "not-found");
    assert_eq!(problem["backend"], "local", "{problem}");
    daemon.stop();
}

#[test]
fn a_delta_is_applied() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let (old, new) = (noise(3 * MIB, 8), changed(&noise(3 * MIB, 8), 9));
    let base = server.store(&old);
    home.file("old", &old);
    home.file("new", &new);
    let arguments = ["-q", "--patch-from=old", "new", "-o", "delta"];
    let made = Command::new("zstd").args(arguments).current_dir(home.path(".")).status();
    if !made.is_ok_and(|status| status.success()) {
        return xtask::skip::skip("a_delta_is_applied", "there is no zstd");
    }
    let delta = home.read("delta");
    let applied = server.send("POST", &format!("/v1/snapshots/{base}/apply?format=zstd"), &[], &delta).json(201);
    assert_eq!((&applied["base"], &applied["delta_bytes"]), (&json!(base), &json!(delta.len())));
    let id = applied["id"].as_str().unwrap();
    assert_same(&server.get(&format!("/v1/snapshots/{id}")).body, &new, "what the delta makes");
    // Half of one, whole in HTTP's eyes.
    let half = &delta[..delta.len() / 2];
    server.send("POST", &format!("/v1/snapshots/{base}/apply"), &[], half).problem(400, "invalid");
    server.send("POST", &format!("/v1/snapshots/{base}/apply?format=sparse"), &[], &delta).problem(501, "unsupported");
    assert_eq!(server.get("/v1/snapshots").json(200)["snapshots"].as_array().unwrap().len(), 2);
    daemon.stop();
}

#[test]
fn the_list_comes_in_pages() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let ids: Vec<String> = (0..5).map(|seed| daemon.server.store(&noise(1000, seed))).collect();
    let (mut found, mut path) = (Vec::new(), "/v1/snapshots?limit=2".to_owned());
    loop {
        let page = daemon.server.get(&path).json(200);
        let snapshots = page["snapshots"].as_array().unwrap();
        assert!(snapshots.len() <= 2);
        found.extend(snapshots.iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_u64() else { break };
        path = format!("/v1/snapshots?limit=2&after={next}");
    }
    assert_eq!(found, ids);
    daemon.stop();
}
