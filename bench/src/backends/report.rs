//! The output of `bench backends`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Contest, Lap, Latencies, MIB, Rounds, median, quantile, rounded};
use crate::report::machine;

/// In milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Half take less.
    pub p50: f64,
    /// One in a hundred takes more.
    pub p99: f64,
}

/// One native client. Rates in MiB/s are medians.
#[derive(Debug, Clone, Serialize)]
pub struct Client {
    /// The snapshot.
    pub name: &'static str,
    /// Storing a large object.
    pub store: f64,
    /// Reading one.
    pub retrieve: f64,
}

/// One backend. Rates in MiB/s are medians.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub backend: &'static str,
    /// Reading an object of 4 KiB through the adapter.
    pub latency_ms: Quantiles,
    /// Storing one.
    pub store_latency_ms: Quantiles,
    /// Reading one with the quickest native client.
    pub native_latency_ms: Quantiles,
    /// Storing a large object through the adapter.
    pub store: f64,
    /// Reading one.
    pub retrieve: f64,
    /// Storing with the fastest native client.
    pub native_store: f64,
    /// Which that is.
    pub native_store_client: &'static str,
    /// Reading with the fastest native client.
    pub native_retrieve: f64,
    /// Which that is.
    pub native_retrieve_client: &'static str,
    /// The median of the adapter's rates to those of that client, round by round.
    pub store_ratio: f64,
    /// The same of reading.
    pub retrieve_ratio: f64,
    /// The lesser of the two.
    pub ratio: f64,
    /// Every native client.
    pub clients: Vec<Client>,
}

/// Every backend.
#[derive(Debug)]
pub struct Backends {
    /// A large object's bytes.
    pub bytes: u64,
    /// Rounds that count.
    pub rounds: usize,
    /// Those that were measured.
    pub rows: Vec<Row>,
    /// Those that cannot be had here, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Those that could not be measured to the end, and why.
    pub failed: Vec<(&'static str, String)>,
}

pub(super) fn row(contest: &Contest, latencies: &Latencies, rounds: &Rounds) -> Row {
    let store = |lap: &Lap| lap.store;
    let retrieve = |lap: &Lap| lap.retrieve;
    let ms = |laps: &[Lap], of: fn(&Lap) -> f64| {
        let ms: Vec<f64> = laps.iter().map(|lap| of(lap) * 1e3).collect();
        Quantiles { p50: rounded(quantile(&ms, 0.5), 3), p99: rounded(quantile(&ms, 0.99), 3) }
    };
    let ours = latencies.0.first().map_or(&[][..], Vec::as_slice);
    let quickest = latencies.0.iter().skip(1).map(|laps| ms(laps, retrieve)).min_by(|a, b| a.p50.total_cmp(&b.p50));
    let (store, retrieve) = (way(contest, rounds, store), way(contest, rounds, retrieve));
    Row {
        backend: contest.backend,
        latency_ms: ms(ours, |lap| lap.retrieve),
        store_latency_ms: ms(ours, |lap| lap.store),
        native_latency_ms: quickest.unwrap_or(Quantiles { p50: 0.0, p99: 0.0 }),
        store: store.ours,
        retrieve: retrieve.ours,
        native_store: store.native,
        native_store_client: store.client,
        native_retrieve: retrieve.native,
        native_retrieve_client: retrieve.client,
        store_ratio: store.ratio,
        retrieve_ratio: retrieve.ratio,
        ratio: store.ratio.min(retrieve.ratio),
        clients: clients(contest, rounds),
    }
}

fn clients(contest: &Contest, rounds: &Rounds) -> Vec<Client> {
    let rate = |laps: &[Lap], of: fn(&Lap) -> f64| rounded(median(&rates(rounds, laps, of)), 0);
    let natives = contest.natives.iter().zip(rounds.laps.iter().skip(1));
    natives
        .map(|(native, laps)| Client {
            name: native.name(),
            store: rate(laps, |lap| lap.store),
            retrieve: rate(laps, |lap| lap.retrieve),
        })
        .collect()
}

/// MiB/s in each round.
fn rates(rounds: &Rounds, laps: &[Lap], of: fn(&Lap) -> f64) -> Vec<f64> {
    laps.iter().map(|lap| rounds.size as f64 / MIB as f64 / of(lap)).collect()
}

struct Way {
    ours: f64,
    native: f64,
    client: &'static str,
    ratio: f64,
}

fn way(contest: &Contest, rounds: &Rounds, of: fn(&Lap) -> f64) -> Way {
    let rates: Vec<Vec<f64>> = rounds.laps.iter().map(|laps| rates(rounds, laps, of)).collect();
    let ours = rates.first().cloned().unwrap_or_default();
    let natives = contest.natives.iter().zip(rates.iter().skip(1));
    let fastest = natives.max_by(|a, b| median(a.1).total_cmp(&median(b.1)));
    let (client, theirs) = fastest.map_or(("", Vec::new()), |(native, rates)| (native.name(), rates.clone()));
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    Way {
        ours: rounded(median(&ours), 0),
        native: rounded(median(&theirs), 0),
        client,
        ratio: rounded(median(&ratios), 3),
    }
}

impl Backends {
    /// The object.
    pub fn object(&self) -> Value {
        let why = |list: &[(&str, String)]| -> Vec<Value> {
            list.iter().map(|(backend, why)| json!({"backend": backend, "why": why})).collect()
        };
        let (skipped, failed) = (why(&self.skipped), why(&self.failed));
        json!({"rows": self.rows, "skipped": skipped, "failed": failed, "bytes": self.bytes, "rounds": self.rounds, "machine": machine()})
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} MiB, {} rounds: MiB/s, medians; 4 KiB: ms, p50 / p99\n\n{:<9}{:>18}{:>18}{:>9}{:>9}{:>8}{:>10}{:>10}{:>8}   {}\n",
            self.bytes / MIB,
            self.rounds,
            "",
            "read 4 KiB",
            "natively",
            "store",
            "native",
            "ratio",
            "retrieve",
            "native",
            "ratio",
            "native clients"
        );
        for row in &self.rows {
            let [ours, native] =
                [row.latency_ms, row.native_latency_ms].map(|q| format!("{:.2} / {:.2}", q.p50, q.p99));
            let clients = match row.native_store_client == row.native_retrieve_client {
                true => row.native_store_client.to_owned(),
                false => format!("{}; {}", row.native_store_client, row.native_retrieve_client),
            };
            let _ = writeln!(
                text,
                "{:<9}{ours:>18}{native:>18}{:>9}{:>9}{:>8.3}{:>10}{:>10}{:>8.3}   {clients}",
                row.backend,
                row.store,
                row.native_store,
                row.store_ratio,
                row.retrieve,
                row.native_retrieve,
                row.retrieve_ratio,
            );
        }
        for row in self.rows.iter().filter(|row| row.clients.len() > 1) {
            for Client { name, store, retrieve } in &row.clients {
                let _ = writeln!(text, "{:<9}{name}: store {store}, retrieve {retrieve}", row.backend);
            }
        }
        for (backend, why) in &self.skipped {
            let _ = writeln!(text, "{backend:<9}SKIPPED: {why}");
        }
        for (backend, why) in &self.failed {
            let _ = writeln!(text, "{backend:<9}FAILED: {why}");
        }
        text + "aim: every ratio at least 0.95\n"
    }
}
