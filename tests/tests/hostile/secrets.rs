//! Credentials stay in the host. A guest uses them, looks for them and receives messages of servers and host; then its
//! whole memory is searched for them, and so are the host's logs at level `trace`, every error, and every file that it
//! has written.
//!
//! Not searched: bodies of a granted server. It knows the credential and may disclose it.

use std::io;
use std::sync::{Arc, Mutex};

use tidelock::Host;
use tidelock::config::Config;
use tidelock_tests::program::{files, guest};
use tracing_subscriber::fmt::MakeWriter;

use crate::arena::store;
use crate::planted::{HEADER, Planted, SECRET_KEY, SESSION_TOKEN, backend};
use crate::server::Server;

/// Something that the search has to find: a setting, which a guest may know.
const PLANTED: &str = "planted-where-the-search-has-to-find-it";

/// All that is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The credentials, and the forms in which they could turn up.
fn needles() -> Vec<(&'static str, Vec<u8>)> {
    let bare = HEADER.rsplit(' ').next().unwrap_or(HEADER);
    let mut needles = Vec::new();
    for (name, secret) in [("secret key", SECRET_KEY), ("session token", SESSION_TOKEN), ("header", bare)] {
        needles.push((name, secret.as_bytes().to_vec()));
        needles.push((name, secret.bytes().rev().collect()));
        needles.push((name, secret.replace('/', "%2F").replace('+', "%2B").into_bytes()));
        needles.push((name, format!("{:?}", secret.as_bytes()).into_bytes()));
    }
    needles
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn search(place: &str, haystack: &[u8]) -> Result<(), String> {
    match needles().into_iter().find(|(_, needle)| holds(haystack, needle)) {
        Some((name, needle)) => Err(format!("the {name} is in {place}, as {}", around(haystack, &needle))),
        None => Ok(()),
    }
}

/// What stands before it, to see where it leaked.
fn around(haystack: &[u8], needle: &[u8]) -> String {
    let at = haystack.windows(needle.len()).position(|window| window == needle).unwrap_or_default();
    String::from_utf8_lossy(&haystack[at.saturating_sub(300)..at]).into_owned()
}

pub fn stay_in_the_host() -> Result<(), String> {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    let log: tracing::Dispatch = subscriber.into();
    let here = log.clone();
    // On every thread of the runtime, those for blocking work with them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&here)))
        .enable_all()
        .build()
        .unwrap();
    let _log = tracing::dispatcher::set_default(&log);
    runtime.block_on(async { tokio::spawn(looks(captured)).await.unwrap() })
}

async fn looks(captured: Captured) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let mut text = "data_dir = \"data\"\n".to_owned();
    for (name, act) in [("quiet", "secrets-dump"), ("loud", "secrets-error")] {
        // The setting is what the guest may know; `target` has to be the server.
        let settings = format!("act = \"{act}\", target = \"{}/{PLANTED}\"", server.origin);
        text += &backend(name, &guest("attacker"), &server.origin, &settings, "");
    }
    text += "[routes.default]\nbackends = [\"quiet\"]\n";
    let config = Config::parse(&text, dir.path()).unwrap();
    let host = Host::start(&config, &Planted).await.unwrap();
    store(&host, Some("quiet"), &[7; 13]).await.map_err(|error| format!("{error:?}"))?;
    let error = store(&host, Some("loud"), &[7; 13]).await.expect_err("it was told to fail");
    search("an error", format!("{error:?} {error} {:?}", error.advice()).as_bytes())?;

    // The server got them: they were in use.
    let requests = server.requests().join("\n");
    for (name, sent) in [("header", HEADER), ("session token", SESSION_TOKEN), ("signature", "Signature=")] {
        if !holds(requests.as_bytes(), sent.as_bytes()) {
            return Err(format!("the {name} was never sent: the test shows nothing"));
        }
    }
    for name in ["quiet", "loud"] {
        let memory = std::fs::read(dir.path().join("objects").join(name).join("memory")).unwrap();
        if memory.len() < 1 << 20 || !holds(&memory, PLANTED.as_bytes()) {
            return Err(format!(
                "{} bytes of memory, and not what the guest knows: the search finds nothing",
                memory.len()
            ));
        }
        search("a guest's memory", &memory)?;
    }
    for file in files(dir.path()) {
        search(&file.display().to_string(), &std::fs::read(&file).unwrap_or_default())?;
    }
    let logged = captured.0.lock().unwrap().clone();
    // Both of what the guest says and of what the libraries say at their most talkative.
    for said in ["tidelock::adapter", "TRACE", PLANTED] {
        if !holds(&logged, said.as_bytes()) {
            return Err(format!("{} bytes of log without `{said}`: the search finds nothing", logged.len()));
        }
    }
    search("the log", &logged)?;
    search("what describes the configuration", format!("{config:?} {:?}", host.adapters()).as_bytes())
}
