//! `tidelock adapter ls`, `swap`, `rollback` and `history`: which adapters serve, and replacing them, here or in a daemon.
//!
//! Without `--server` the change is recorded in the data directory and holds for commands from now on. A daemon that runs
//! would not hear of it, so that is refused where one answers at the configured place.

use serde::Serialize;
use serde_json::Value;

use super::arguments::{Changed, Remote, Swap};
use super::failure::Failure;
use super::input;
use super::output::{self, Facts, Side, TextTable};
use super::remote::Daemon;
use super::session::Session;
use tidelock::config::Listen;
use tidelock::runtime::SwapOptions;
use tidelock::types::Error;
use tidelock::{AdapterInfo, Host};
use tidelock_server::AdapterHistory;

/// Enough of a digest to distinguish two.
const SHORT: usize = "sha256:".len() + 12;

#[derive(Serialize)]
struct Listed {
    adapters: Vec<AdapterInfo>,
}

pub(super) async fn ls(remote: &Remote, session: &Session) -> Result<(), Failure> {
    let answer = match Daemon::of(remote)? {
        Some(daemon) => daemon.get(&["v1", "adapters"]).await?,
        None => {
            let host = session.open().await?;
            for backend in host.backends() {
                host.open_backend(backend).await?;
            }
            value(&Listed { adapters: host.adapters() })?
        }
    };
    if session.json {
        return output::object(&answer);
    }
    let mut table = TextTable::new([
        ("BACKEND", Side::Left),
        ("ADAPTER", Side::Left),
        ("VERSION", Side::Left),
        ("TIER", Side::Left),
        ("CAN", Side::Left),
        ("DIGEST", Side::Left),
    ]);
    for info in rows(&answer, "adapters") {
        let (name, version) = (text(info, "adapter"), text(info, "version"));
        table.row([text(info, "backend"), name, version, text(info, "tier"), abilities(info), digest(info, "digest")]);
    }
    output::text(&table.to_string())
}

pub(super) async fn swap(arguments: &Swap, session: &Session) -> Result<(), Failure> {
    let component = input::component(&arguments.file).await?;
    let bar = session.console.bar("swapping", None);
    let answer = match Daemon::of(&arguments.remote)? {
        Some(daemon) => daemon.put(&["v1", "adapters", &arguments.name], component).await?,
        None => value(&alone(session).await?.swap_with(&arguments.name, component, here()).await?)?,
    };
    drop(bar);
    changed(&answer, session)
}

pub(super) async fn rollback(arguments: &Changed, session: &Session) -> Result<(), Failure> {
    let answer = match Daemon::of(&arguments.remote)? {
        Some(daemon) => daemon.post(&["v1", "adapters", &arguments.name, "rollback"]).await?,
        None => value(&alone(session).await?.rollback_with(&arguments.name, here()).await?)?,
    };
    changed(&answer, session)
}

pub(super) async fn history(arguments: &Changed, session: &Session) -> Result<(), Failure> {
    let name = &arguments.name;
    let answer = match Daemon::of(&arguments.remote)? {
        Some(daemon) => daemon.get(&["v1", "adapters", name, "history"]).await?,
        None => {
            let host = session.open().await?;
            host.open_backend(name).await?;
            value(&AdapterHistory { backend: name.clone(), history: host.history(name)? })?
        }
    };
    if session.json {
        return output::object(&answer);
    }
    let mut table = TextTable::new([
        ("GENERATION", Side::Right),
        ("STATE", Side::Left),
        ("SINCE", Side::Left),
        ("EVENT", Side::Left),
        ("BY", Side::Left),
        ("ADAPTER", Side::Left),
        ("DIGEST", Side::Left),
        ("WHY", Side::Left),
    ]);
    for row in rows(&answer, "history") {
        let generation = row["generation"].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let since = row["since"].as_u64().map(output::moment).unwrap_or_default();
        let adapter = format!("{} {}", text(row, "adapter"), text(row, "version")).trim().to_owned();
        let why = [text(row, "stage"), text(row, "why")];
        let why = why.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(": ");
        let (state, event, by) = (text(row, "state"), text(row, "event"), text(row, "by"));
        table.row([generation, state, since, event, by, adapter, digest(row, "digest"), why]);
    }
    output::text(&table.to_string())
}

/// The host, for a change that no daemon must miss.
async fn alone(session: &Session) -> Result<Host, Failure> {
    let (daemon, found) = match &session.config()?.service.listen {
        Listen::Unix(path) => (format!("unix:{}", path.display()), tokio::net::UnixStream::connect(path).await.is_ok()),
        Listen::Tcp(address) => (format!("http://{address}"), tokio::net::TcpStream::connect(address).await.is_ok()),
    };
    if found {
        let error = Error::conflict("a running daemon serves this configuration and would not notice the change");
        return Err(error.hint(format!("send the change to it with --server {daemon}")).into());
    }
    session.open().await
}

fn here() -> SwapOptions {
    SwapOptions { by: "command line".to_owned(), ..SwapOptions::default() }
}

fn changed(report: &Value, session: &Session) -> Result<(), Failure> {
    if session.json {
        return output::object(report);
    }
    let mut facts = Facts::default();
    facts.add("backend", text(report, "backend"));
    facts.add("generation", report["generation"].as_u64().unwrap_or_default());
    facts.add("from", text(report, "from"));
    facts.add("to", text(report, "to"));
    for stage in rows(report, "stages") {
        facts.add(&text(stage, "stage"), format_args!("{:.1} ms", stage["ms"].as_f64().unwrap_or_default()));
    }
    if let Some(draining) = report["draining"].as_u64().filter(|count| *count > 0) {
        facts.add("draining", format_args!("{draining} operations are still ending on the old one"));
    }
    output::text(&facts.to_string())
}

fn value(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::output(error.into()))
}

fn rows<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(answer: &Value, key: &str) -> String {
    answer[key].as_str().unwrap_or_default().to_owned()
}

/// Whole for a script, short for a person.
fn digest(answer: &Value, key: &str) -> String {
    let digest = text(answer, key);
    if output::is_terminal() { digest.chars().take(SHORT).collect() } else { digest }
}

fn abilities(info: &Value) -> String {
    let features = info["features"].as_object().into_iter().flatten();
    let can = features.filter(|(_, can)| can.as_bool() == Some(true)).map(|(name, _)| name.as_str());
    can.chain(rows(info, "optional").iter().filter_map(Value::as_str)).collect::<Vec<_>>().join(",")
}
