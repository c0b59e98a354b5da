//! What the clients who have the token can take of the daemon: bytes, memory and threads.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidelock_tests::daemon::{Daemon, read};
use tidelock_tests::data::{MIB, noise};
use tidelock_tests::program::{Home, until};

use super::strangers::serve;
use super::{home, variant};

/// A frame of zstd that expands to so many bytes of one value, with a window of a power of two and no length.
fn frame(window: u32, total: usize, value: u8) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    let mut bytes = 0xFD2F_B528u32.to_le_bytes().to_vec();
    bytes.extend([0, ((window.ilog2() - 10) << 3) as u8]);
    for number in 1..=total / BLOCK {
        let last = u32::from(number == total / BLOCK);
        // Run-length blocks: three bytes of header, and the value.
        bytes.extend(&((BLOCK as u32) << 3 | 1 << 1 | last).to_le_bytes()[..3]);
        bytes.push(value);
    }
    bytes
}

/// A figure of a process, from `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The bytes of disk of the files without a name that a process has open.
fn unnamed(pid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let unnamed = files.filter(|file| {
        std::fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().ends_with("(deleted)"))
    });
    unnamed.filter_map(|file| std::fs::metadata(file.path()).ok()).map(|file| file.blocks() * 512).sum()
}

/// Runs something, and returns the largest growth of memory and the most bytes of unnamed files meanwhile.
fn watched(pid: u32, run: impl FnOnce()) -> (u64, u64) {
    let before = status(pid, "VmRSS:") << 10;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let watch = std::thread::spawn(move || {
        let (mut memory, mut disk) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            memory = memory.max((status(pid, "VmRSS:") << 10).saturating_sub(before));
            disk = disk.max(unnamed(pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        (memory, disk)
    });
    run();
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap()
}

/// Clients that never end their components hold no swap off, and take of `uploads` and not of memory.
#[test]
fn slow_uploads_of_components_hold_no_swap_off() {
    let home = home("copying", "[service]\nuploads = \"96 MiB\"");
    let daemon = Daemon::start(&home);
    let (server, path) = (&daemon.server, "/v1/adapters/mine");
    let (announced, sent) = (("content-length", "90000000"), noise(16 * MIB, 1));
    // More than may have ever been received at once.
    let begin = || {
        let mut slow = server.connect();
        slow.write_all(server.head("PUT", path, &[announced]).as_bytes()).unwrap();
        slow.write_all(&sent).unwrap();
        slow
    };
    let mut all = Vec::new();
    let (memory, disk) = watched(daemon.pid(), || {
        all = (0..4).map(|_| begin()).collect::<Vec<_>>();
        until("they have arrived", || unnamed(daemon.pid()) >= 4 * sent.len() as u64);
    });
    assert!(memory < 40 << 20, "{memory} bytes of memory");
    assert!(disk <= 80 << 20, "{disk} bytes of disk");
    let report = server.send("PUT", path, &[], &variant("copying", 1)).json(200);
    assert_eq!(report["generation"], 2, "{report}");
    // They count as uploads, and give back what they had.
    let mut more = begin();
    // It may be refused before all is sent.
    let _ = more.write_all(&sent).and_then(|()| more.write_all(&sent));
    read(&mut *more, false).problem(429, "rate-limited");
    drop((all, more));
    until("their bytes are given back", || unnamed(daemon.pid()) < MIB as u64);
    server.store(&noise(90 * MIB, 2));
    daemon.stop();
}

#[test]
fn a_small_delta_takes_no_more_than_uploads_have() {
    let (_home, daemon) = serve("uploads = \"64 MiB\"");
    let server = &daemon.server;
    let apply = format!("/v1/snapshots/{}/apply", server.store(b"x"));
    let most = 64 << 20;
    // A large window, and a small one.
    for window in [1 << 30, 128 << 10] {
        let delta = frame(window, 1 << 30, b'A');
        assert!(delta.len() < 64 << 10);
        let (memory, disk) = watched(daemon.pid(), || {
            server.send("POST", &apply, &[], &delta).problem(413, "invalid");
        });
        assert!(disk <= most + MIB as u64, "{disk} bytes of files with a window of {window}");
        assert!(memory <= most + (32 << 20), "{memory} bytes of memory with a window of {window}");
    }
    // What fits is applied, and zeros take no disk.
    let (_, disk) = watched(daemon.pid(), || {
        let stored = server.send("POST", &apply, &[], &frame(1 << 20, 48 * MIB, 0)).json(201);
        assert_eq!(stored["size"], 48 * MIB);
    });
    assert!(disk <= 2 * MIB as u64, "{disk} bytes of files for zeros");
    // All has been given back.
    server.send("PUT", "/v1/snapshots", &[], &noise(MIB, 1)).json(201);
    daemon.stop();
}

#[test]
fn slow_deltas_hold_no_threads() {
    const SLOW: usize = 64;
    let (_home, daemon) = serve("connections = 100");
    let server = &daemon.server;
    let id = server.store(b"x");
    let before = status(daemon.pid(), "Threads:");
    let head = server.head("POST", &format!("/v1/snapshots/{id}/apply"), &[("content-length", "1000000")]);
    let slow: Vec<_> = (0..SLOW)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&frame(1 << 20, MIB, b'A')[..10]).unwrap();
            stream
        })
        .collect();
    let running = || {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("tidelock_connections ")).unwrap().to_owned();
        line.parse::<usize>().unwrap()
    };
    until("all have come", || running() > SLOW);
    std::thread::sleep(Duration::from_secs(1));
    let threads = status(daemon.pid(), "Threads:");
    assert!(threads < before + SLOW as u64 / 2, "{before} threads, then {threads}");
    assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"x");
    drop(slow);
    daemon.stop();
}

/// Two lengths: the body is what the chunks say, and nothing behind it is taken for a further request.
#[test]
fn a_request_with_two_lengths_is_the_last_of_its_connection() {
    let (_home, daemon) = serve("");
    let server = &daemon.server;
    for headers in [
        [("content-length", "4"), ("transfer-encoding", "chunked")],
        [("transfer-encoding", "chunked"), ("content-length", "4")],
    ] {
        let mut stream = server.connect();
        let mut both = server.head("PUT", "/v1/snapshots", &headers) + "1\r\na\r\n0\r\n\r\n";
        both += &server.head("PUT", "/v1/snapshots?name=smuggled", &[("content-length", "0")]);
        stream.write_all(both.as_bytes()).unwrap();
        let answer = read(&mut *stream, false);
        assert_eq!(answer.header("connection"), Some("close"));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{}", String::from_utf8_lossy(&rest));
    }
    server.get("/v1/snapshots/smuggled").problem(404, "not-found");
    daemon.stop();
}

#[test]
fn the_bytes_of_uploads_are_bounded() {
    let (home, daemon) = serve("uploads = \"2 MiB\"");
    let server = &daemon.server;
    let image = noise(MIB, 1);
    let id = server.store(&image);
    let problem = server.send("PUT", "/v1/snapshots", &[], &noise(3 * MIB, 2)).problem(413, "invalid");
    assert!(problem["hint"].as_str().unwrap().contains("uploads"), "{problem}");
    // Without a length it is told when it has come to too much.
    let mut stream = server.connect();
    stream.write_all(server.head("PUT", "/v1/snapshots", &[("transfer-encoding", "chunked")]).as_bytes()).unwrap();
    for number in 0..12 {
        let chunk = noise(MIB / 4, number);
        let sent =
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).and_then(|()| stream.write_all(&chunk));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            break;
        }
    }
    read(&mut *stream, false).problem(413, "invalid");
    // The copies of a delta count too.
    let apply = format!("/v1/snapshots/{id}/apply");
    server.send("POST", &apply, &[], &frame(128 << 10, 3 * MIB, b'A')).problem(413, "invalid");
    // Who announces bytes has none of the room yet.
    let mut slow = server.connect();
    slow.write_all(server.head("PUT", "/v1/snapshots", &[("content-length", "1900000")]).as_bytes()).unwrap();
    slow.write_all(&[7; 1100]).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(server.send("PUT", "/v1/snapshots", &[], &image).status, 200);
    }
    // While so many are under way, another has to come later.
    slow.write_all(&[7; 1_800_000]).unwrap();
    until("it is told to come later", || {
        let answer = server.send("PUT", "/v1/snapshots", &[], &image);
        answer.status == 429 && answer.header("retry-after").is_some()
    });
    drop(slow);
    until("there is room again", || server.send("PUT", "/v1/snapshots", &[], &image).status == 200);
    assert_eq!(home.objects().len(), 1);
    daemon.stop();
}

/// Clients that leave their operations behind and come again: no more operations run than there may be connections.
#[test]
fn operations_of_clients_that_left_do_not_add_up() {
    const PLACES: usize = 8;
    // A server that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let home = Home::with(&format!(
        "data_dir = \"tidelock-data\"\n[service]\nconnections = {PLACES}\n\
         [backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
         [backends.silent]\nadapter = \"s3\"\ngrants.bucket.objects = {{ endpoint = \"http://127.0.0.1:{port}\", \
         region = \"us-east-1\", bucket = \"vm\", prefix = \"a/\", path_style = true }}\n\
         [routes.default]\nbackends = [\"local\"]\n[routes.silent]\nbackends = [\"silent\"]\n"
    ));
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let running = || -> usize {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("tidelock_operations_running{operation=\"store\"} "));
        line.map_or(0, |number| number.parse().unwrap())
    };
    let mut most = 0;
    for _ in 0..5 * PLACES {
        let mut client = server.connect();
        let head = server.head("PUT", "/v1/snapshots?route=silent", &[("content-length", "1")]);
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop(client);
        let running = running();
        assert!(running < PLACES, "{running}");
        most = most.max(running);
    }
    assert!(most > 0, "nothing was asked of the server");
    // Those who read are served all the same, and those who store elsewhere have places of their own.
    assert_eq!(server.get("/v1/snapshots").status, 200);
    server.store(b"elsewhere");
    daemon.kill();
}
