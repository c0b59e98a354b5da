//! Adapters replaced over HTTP and with the command line, under load and killed in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tidelock_tests::daemon::{Daemon, Server};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::{Home, keys, until};

use crate::{home, variant};

fn serving(server: &Server) -> (String, u64) {
    let adapters = server.get("/v1/adapters").json(200);
    let mine = &adapters["adapters"][0];
    (mine["digest"].as_str().unwrap().to_owned(), mine["generation"].as_u64().unwrap())
}

#[test]
fn nothing_is_lost_while_adapters_change_over_http() {
    let home = home("copying", "");
    let daemon = Daemon::start(&home);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4_u64)
        .map(|client| {
            let (server, stop, done) = (daemon.server.clone(), stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let image = noise(200_000 + round as usize, client * 1_000_000 + round);
                    let id = server.store(&image);
                    let answer = server.get(&format!("/v1/snapshots/{id}"));
                    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                    assert_same(&answer.body, &image, "across a swap");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (mut digest, mut generation) = serving(&daemon.server);
    for turn in 0..10 {
        let before = done.load(Ordering::Relaxed);
        until("operations of this generation", || {
            done.load(Ordering::Relaxed) >= before + 4 || clients.iter().any(|client| client.is_finished())
        });
        let report = daemon.server.send("PUT", "/v1/adapters/mine", &[], &variant("copying", turn % 2)).json(200);
        assert_eq!((&report["from"], &report["generation"]), (&json!(digest), &json!(generation + 1)), "{report}");
        (digest, generation) = serving(&daemon.server);
        assert_eq!(report["to"], digest);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no operation fails");
    }
    let history = daemon.server.get("/v1/adapters/mine/history").json(200);
    assert_eq!(history["history"].as_array().unwrap().len(), 11, "{history}");
    assert_eq!((&history["history"][0]["by"], &history["history"][0]["state"]), (&json!("http"), &json!("serving")));
    daemon.stop();
}

#[test]
fn a_component_that_cannot_serve_is_refused_with_its_stage() {
    let home = home("copying", "");
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let before = serving(server);
    let put = |component: &[u8], headers: &[(&str, &str)]| server.send("PUT", "/v1/adapters/mine", headers, component);
    let core = wat::parse_str("(module)").unwrap();
    for (component, status, kind) in [(&b""[..], 400, "invalid"), (b"noise", 400, "invalid"), (&core, 400, "invalid")] {
        let problem = put(component, &[]).problem(status, kind);
        assert_eq!((&problem["backend"], &problem["operation"]), (&json!("mine"), &json!("compile")), "{problem}");
        assert_eq!(serving(server), before);
    }
    put(&variant("copying", 1), &[("tidelock-signature", "nonsense")]).problem(400, "invalid");
    server.send("POST", "/v1/adapters/mine/rollback", &[], b"").problem(409, "conflict");
    // Announced, not sent: it is not even begun to be read.
    let mut stream = server.connect();
    let head = server.head("PUT", "/v1/adapters/mine", &[("content-length", "300000000")]);
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    tidelock_tests::daemon::read(&mut *stream, false).problem(413, "invalid");
    assert_eq!(serving(server), before);
    daemon.stop();
}

#[test]
fn the_command_line_swaps_in_a_daemon() {
    let home = home("copying", "");
    let daemon = Daemon::start(&home);
    home.file("next.wasm", variant("copying", 1));
    let at = ["--server", "unix:tidelock.sock"];
    let with = |words: &[&'static str]| [words, &at].concat();
    let before = serving(&daemon.server).0;
    let report = home.json(&with(&["adapter", "swap", "mine", "next.wasm"]));
    assert_eq!((&report["backend"], &report["from"]), (&json!("mine"), &json!(before)), "{report}");
    assert_eq!(report["to"], serving(&daemon.server).0);
    let stages: Vec<&str> = report["stages"].as_array().unwrap().iter().filter_map(|s| s["stage"].as_str()).collect();
    assert_eq!(&stages[..4], ["verify", "compile", "check", "probe"], "{stages:?}");
    let back = home.json(&with(&["adapter", "rollback", "mine"]));
    assert_eq!((keys(&back), &back["to"]), (keys(&report), &json!(before)));
    let events = |found: &Value| -> Vec<String> {
        let rows = found["history"].as_array().unwrap().iter();
        rows.map(|row| row["event"].as_str().unwrap().to_owned()).collect()
    };
    let history = home.json(&with(&["adapter", "history", "mine"]));
    assert_eq!(events(&history), ["rollback", "swap", "configured"], "{history}");
    assert_eq!(home.json(&with(&["adapter", "ls"]))["adapters"][0]["digest"], before);
    let text = String::from_utf8(home.bytes(&with(&["adapter", "history", "mine"]))).unwrap();
    assert!(text.contains("GENERATION") && text.contains("configured"), "{text}");
    let text = String::from_utf8(home.bytes(&with(&["adapter", "swap", "mine", "next.wasm"]))).unwrap();
    assert!(text.contains("generation") && text.contains("probe"), "{text}");

    // Behind its back nothing changes.
    let said = home.refused(1, &["adapter", "swap", "mine", "next.wasm"]);
    assert!(said.contains("--server unix:"), "{said}");
    let said = home.refused(2, &with(&["adapter", "swap", "nobody", "next.wasm"]));
    assert!(said.contains("use one of mine"), "{said}");
    home.file("bad.wasm", "noise");
    let said = home.refused(2, &with(&["adapter", "swap", "mine", "bad.wasm"]));
    assert!(said.contains("mine") && said.contains("component"), "{said}");
    daemon.stop();
    let said = home.refused(1, &with(&["adapter", "rollback", "mine"]));
    assert!(said.contains("tidelock serve"), "{said}");

    // Without a daemon the change applies to later commands.
    let report = home.json(&["adapter", "rollback", "mine"]);
    let daemon = Daemon::start(&home);
    assert_eq!(serving(&daemon.server).0, report["to"].as_str().unwrap());
    let history = daemon.server.get("/v1/adapters/mine/history").json(200);
    assert_eq!(history["history"][0]["by"], "command line", "{history}");
    daemon.stop();
}

#[test]
fn a_component_that_is_put_into_the_watched_folder_serves() {
    let home = home("copying", "adapters_dir = \"adapters.d\"");
    let daemon = Daemon::start(&home);
    let before = serving(&daemon.server).1;
    std::fs::write(home.path("adapters.d/mine.wasm.new"), variant("copying", 7)).unwrap();
    std::fs::rename(home.path("adapters.d/mine.wasm.new"), home.path("adapters.d/mine.wasm")).unwrap();
    until("it serves", || serving(&daemon.server).1 == before + 1);
    daemon.stop();
}

/// What is written to the log when a stage begins.
fn begun(daemon: &Daemon, stage: &str) -> bool {
    daemon.said().lines().any(|line| line.contains("swap") && line.contains(&format!("stage={stage}")))
}

#[test]
fn killed_in_a_swap_it_starts_on_the_old_or_the_new_one() {
    let home = home("copying", "");
    for (number, stage) in ["verify", "compile", "check", "probe", "publish", "drain", "free"].into_iter().enumerate() {
        killed(&home, stage, number as u8);
    }
}

#[test]
fn killed_in_a_canary_it_starts_on_the_old_one() {
    let home = home("copying", "");
    let config = std::fs::read_to_string(home.path("tidelock.toml")).unwrap();
    let canary = "swap = { canary = { share = 0.5, duration = \"1h\" }, ";
    home.file("tidelock.toml", config.replace("swap = { ", canary));
    let (old, _, found) = killed(&home, "canary", 0);
    assert_eq!(found, old, "what was on trial has not taken over");
}

/// Kills the program when a stage of a swap has begun, and starts it again. Gives what served before, what was to serve,
/// and what serves.
fn killed(home: &Home, stage: &str, number: u8) -> (String, String, String) {
    let daemon = Daemon::start(home);
    let old = serving(&daemon.server).0;
    let image = noise(300_000, number.into());
    let id = daemon.server.store(&image);
    // Never seen before, so that it has to be compiled.
    let next = variant("copying", number);
    let new = tidelock::runtime::ComponentDigest::of(&next).to_string();
    let server = daemon.server.clone();
    let asking = std::thread::spawn(move || {
        let mut stream = server.connect();
        let head = server.head("PUT", "/v1/adapters/mine", &[("content-length", &next.len().to_string())]);
        let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
        let _ = std::io::Write::write_all(&mut stream, &next);
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    });
    until("the stage begins", || begun(&daemon, stage));
    daemon.kill();
    asking.join().unwrap();
    // The socket of the one that was killed still lies there.
    assert!(home.path("tidelock.sock").exists());
    let daemon = Daemon::start(home);
    let found = serving(&daemon.server).0;
    assert!([&old, &new].contains(&&found), "{stage}: {found} is neither {old} nor {new}");
    assert_same(&daemon.server.get(&format!("/v1/snapshots/{id}")).body, &image, "what was acknowledged");
    let history = daemon.server.get("/v1/adapters/mine/history").json(200);
    let rows = history["history"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["state"] == "serving").count(), 1, "{history}");
    if stage != "canary" {
        let report = daemon.server.send("PUT", "/v1/adapters/mine", &[], &variant("copying", 100 + number)).json(200);
        assert_eq!(report["from"], found, "it can be swapped again");
    }
    daemon.stop();
    (old, new, found)
}

#[test]
fn a_signature_travels_in_a_header() {
    let home = Home::new();
    let public = home.line(&["adapter", "keygen", "key"]);
    let public = public.split_whitespace().last().unwrap().to_owned();
    let config = format!(
        "[trust.keys]\nme = \"{public}\"\n[backends.mine]\nadapter = \"./mine.wasm\"\nsigned_by = [\"me\"]\n\
         grants.directory.objects = {{ path = \"objects\" }}\n"
    );
    home.file("tidelock.toml", config);
    home.file("mine.wasm", variant("copying", 1));
    home.bytes(&["adapter", "sign", "mine.wasm", "--key", "key"]);
    let daemon = Daemon::start(&home);
    let next = variant("copying", 2);
    home.file("next.wasm", &next);
    daemon.server.send("PUT", "/v1/adapters/mine", &[], &next).problem(403, "denied");
    home.refused(1, &["adapter", "swap", "mine", "next.wasm", "--server", "unix:tidelock.sock"]);
    home.bytes(&["adapter", "sign", "next.wasm", "--key", "key"]);
    home.bytes(&["adapter", "swap", "mine", "next.wasm", "--server", "unix:tidelock.sock"]);
    assert_eq!(serving(&daemon.server).1, 2);
    daemon.stop();
}
