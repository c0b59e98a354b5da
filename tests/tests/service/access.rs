//! Access control, and responses to malformed requests.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use tidelock_tests::daemon::{Daemon, Server};
use tidelock_tests::program::Home;

const TOKEN: &str = "0123456789abcdef-token";

fn with_token() -> (Home, Daemon) {
    let home = Home::new();
    let file = home.file("token", format!("{TOKEN}\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::with(&home, &["--listen", "127.0.0.1:0", "--token-file", "token"], Some(TOKEN));
    (home, daemon)
}

#[test]
fn over_tcp_the_token_is_demanded() {
    let (_home, daemon) = with_token();
    let server = &daemon.server;
    assert!(server.address.starts_with("http://127.0.0.1:"), "{}", server.address);
    let id = server.store(b"x");
    assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"x");
    for token in [None, Some(""), Some("0123456789abcdef-toke"), Some("0123456789abcdef-token2")] {
        let stranger = Server { address: server.address.clone(), token: token.map(str::to_owned) };
        for (method, path) in [
            ("GET", "/v1/snapshots"),
            ("PUT", "/v1/snapshots"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/nowhere"),
            ("PUT", "/v1/adapters/local"),
            ("POST", "/v1/adapters/local/rollback"),
        ] {
            let answer = stranger.send(method, path, &[], b"");
            answer.problem(401, "denied");
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
        assert_eq!(stranger.send("HEAD", &format!("/v1/snapshots/{id}"), &[], b"").status, 401);
        // Monitoring needs no secret.
        assert_eq!(stranger.get("/healthz").status, 200);
        assert_eq!(stranger.get("/readyz").status, 200);
    }
    let basic = Server { address: server.address.clone(), token: None };
    let answer = basic.send("GET", "/v1/snapshots", &[("authorization", &format!("Digest {TOKEN}"))], b"");
    answer.problem(401, "denied");
    assert!(!daemon.said().contains(TOKEN));
    daemon.stop();
}

#[test]
fn a_socket_is_for_its_owner_alone() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let socket = home.path("tidelock.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let said = home.refused(1, &["serve"]);
    assert!(said.contains("another process listens") && said.contains("--listen"), "{said}");
    assert_eq!(daemon.server.get("/healthz").status, 200, "the first one serves on");
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn an_invalid_listen_address_is_refused_at_once() {
    let home = Home::new();
    let said = home.refused(2, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("token_file"), "{said}");
    let said = home.refused(2, &["serve", "--listen", "nowhere"]);
    assert!(said.contains("unix:"), "{said}");
    home.file("token", TOKEN);
    std::fs::set_permissions(home.path("token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = home.refused(2, &["serve", "--listen", "127.0.0.1:0", "--token-file", "token"]);
    assert!(said.contains("chmod 600") && !said.contains(TOKEN), "{said}");
    let long = format!("unix:{}", "x".repeat(200));
    let said = home.refused(2, &["serve", "--listen", &long]);
    assert!(said.contains("107 bytes"), "{said}");
    // Not a backend can be opened: nothing to serve.
    let home = Home::with("[backends.mine]\nadapter = \"./absent.wasm\"\n");
    let said = home.refused(1, &["serve"]);
    assert!(said.contains("absent.wasm"), "{said}");
}

#[test]
fn a_daemon_serves_with_the_backends_that_it_has() {
    let grant = "grants.directory.objects = { path = \"objects\" }";
    let home = Home::with(&format!(
        "[backends.good]\nadapter = \"fs\"\n{grant}\n[backends.bad]\nadapter = \"./absent.wasm\"\n{grant}\n\
         [routes.default]\nbackends = [\"good\"]\n[routes.bad]\nbackends = [\"bad\"]\n",
    ));
    let said = home.refused(1, &["serve", "--check"]);
    assert!(said.contains("absent.wasm") && said.contains("bad"), "{said}");
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let problem = server.get("/readyz").problem(503, "unavailable");
    assert_eq!(problem["backend"], "bad", "{problem}");
    let id = server.store(b"x");
    assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"x");
    server.send("PUT", "/v1/snapshots?route=bad", &[], b"y").problem(502, "not-found");
    // Once it can be opened, the daemon is ready by itself.
    let fs = std::fs::read(tidelock_tests::program::guest("fs")).unwrap();
    home.file("absent.wasm", fs);
    tidelock_tests::program::until("the daemon is ready", || server.get("/readyz").status == 200);
    daemon.stop();
    assert_eq!(home.line(&["serve", "--check"]), "ready");
}

#[test]
fn invalid_requests_are_refused_with_the_reason() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    server.get("/nowhere").problem(404, "not-found");
    let answer = server.send("PATCH", "/v1/snapshots", &[], b"");
    answer.problem(405, "unsupported");
    let allowed = answer.header("allow").unwrap_or_default();
    assert!(allowed.contains("GET") && allowed.contains("PUT"), "{allowed}");
    for path in ["/v1/snapshots?nmae=x", "/v1/snapshots?raw=perhaps", "/v1/snapshots?name=tl1x", "/v1/snapshots?name="]
    {
        server.send("PUT", path, &[], b"x").problem(400, "invalid");
    }
    let problem = server.send("PUT", "/v1/snapshots?route=nowhere", &[], b"x").problem(400, "invalid");
    assert!(problem["hint"].as_str().unwrap().contains("default"), "{problem}");
    server.get("/v1/snapshots?limit=many").problem(400, "invalid");
    server.get("/v1/snapshots/%ff").problem(400, "invalid");
    server.send("PUT", "/v1/snapshots", &[("content-encoding", "gzip")], b"x").problem(415, "unsupported");
    server.send("PUT", "/v1/snapshots", &[("content-range", "bytes 0-0/2")], b"x").problem(400, "invalid");
    // Every header of a name, and every element of each, says what the bytes are.
    let plain = ("content-encoding", "identity");
    for encoded in [&[plain, ("content-encoding", "gzip")][..], &[("content-encoding", "identity, br")]] {
        server.send("PUT", "/v1/snapshots", encoded, b"x").problem(415, "unsupported");
    }
    let forms = ["Multipart/Form-Data; boundary=x", "a/b, multipart/form-data", "application/x-www-form-urlencoded"];
    for form in forms {
        let types = [("content-type", "a/b"), ("content-type", form)];
        server.send("PUT", "/v1/snapshots", &types, b"x").problem(415, "unsupported");
    }
    for unchecked in
        ["content-md5", "repr-digest", "x-amz-checksum-sha256", "X-Amz-Checksum-Crc32", "x-amz-content-sha256"]
    {
        server.send("PUT", "/v1/snapshots", &[(unchecked, "x")], b"x").problem(501, "unsupported");
    }
    server.send("PUT", "/v1/snapshots", &[("trailer", "a, x-amz-checksum-crc32c")], b"x").problem(501, "unsupported");
    // A cursor beyond all there are.
    let last = u64::MAX;
    assert_eq!(server.get(&format!("/v1/jobs?after={last}")).json(200)["jobs"].as_array().map(Vec::len), Some(0));
    assert_eq!(server.get(&format!("/v1/snapshots?after={last}")).json(200)["next"], serde_json::Value::Null);
    server.send("DELETE", &format!("/v1/jobs/{last}"), &[], b"").problem(404, "not-found");
    let unknown = format!("tl1{}", "a".repeat(52));
    for (method, path) in [("GET", ""), ("DELETE", ""), ("GET", "/stat"), ("POST", "/update"), ("POST", "/apply")] {
        server.send(method, &format!("/v1/snapshots/{unknown}{path}"), &[], b"").problem(404, "not-found");
    }
    server.send("PUT", "/v1/adapters/nobody", &[], b"x").problem(404, "not-found");
    assert_eq!(server.get("/v1/snapshots").json(200)["snapshots"].as_array().unwrap().len(), 0);
    daemon.stop();
}

#[test]
fn heads_are_bounded() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let long = "x".repeat(1 << 20);
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    for head in [
        format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", many.concat()),
    ] {
        let mut stream = server.connect();
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(server.get("/healthz").status, 200);
    daemon.stop();
}
