//! Metrics in the OpenMetrics text format. Labels have few values: operations, kinds of failure, statuses
//! and the names of backends, never input of a client.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use tidelock::catalogue::{JobKind, JobState};
use tidelock::types::{Error, ErrorKind};
use tidelock::{AdapterInfo, HotStats, JobCounts, JobOverview};

/// The media type of [`Metrics::text`].
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from an object in a local folder to an image over a slow line.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Swapped {
    backend: String,
    event: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobBytes {
    what: &'static str,
}

/// All counters of one daemon.
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    operations: Family<Done, Counter>,
    running: Family<Operation, Gauge>,
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
    bytes: Family<Way, Counter>,
    responses: Family<Status, Counter>,
    swaps: Family<Swapped, Counter>,
    generations: Family<BackendLabels, Gauge>,
    jobs: Family<JobLabels, Gauge>,
    job_bytes: Family<JobBytes, Counter>,
    under_number: Gauge,
    at_risk: Gauge,
    hot: Hot,
    /// Connections that are open.
    pub(super) connections: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let made = Self {
            registry: Mutex::new(Registry::with_prefix("tidelock")),
            operations: Family::default(),
            running: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            bytes: Family::default(),
            responses: Family::default(),
            swaps: Family::default(),
            generations: Family::default(),
            jobs: Family::default(),
            job_bytes: Family::default(),
            under_number: Gauge::default(),
            at_risk: Gauge::default(),
            hot: Hot::default(),
            connections: Gauge::default(),
        };
        let mut registry = made.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("operations", "Completed operations, by outcome", made.operations.clone());
        registry.register("operations_running", "Operations in progress", made.running.clone());
        let seconds = made.seconds.clone();
        registry.register_with_unit("operation_duration", "Durations of operations", Unit::Seconds, seconds);
        registry.register_with_unit("transferred", "Bytes of images and deltas", Unit::Bytes, made.bytes.clone());
        registry.register("http_responses", "Responses by status", made.responses.clone());
        registry.register("swaps", "Swaps and rollbacks requested over HTTP", made.swaps.clone());
        registry.register("adapter_generation", "The current generation", made.generations.clone());
        registry.register("jobs", "Jobs by kind and state", made.jobs.clone());
        let bytes = made.job_bytes.clone();
        registry.register_with_unit(
            "job",
            "Bytes that jobs have stored, and that scrubs have read",
            Unit::Bytes,
            bytes,
        );
        let under_number = made.under_number.clone();
        registry.register("snapshots_under_number", "Snapshots with fewer copies than are wanted", under_number);
        let at_risk = made.at_risk.clone();
        registry.register_with_unit("at_risk", "Acknowledged bytes on this machine alone", Unit::Bytes, at_risk);
        registry.register("connections", "Open connections", made.connections.clone());
        made.hot.register(&mut registry);
        drop(registry);
        made
    }

    /// Counts an operation from now on.
    pub(super) fn begin(&self, operation: &'static str) -> Running {
        let running = self.running.get_or_create(&Operation { operation }).clone();
        running.inc();
        Running {
            operation,
            began: Instant::now(),
            running,
            operations: self.operations.clone(),
            seconds: self.seconds.clone(),
            ended: false,
        }
    }

    /// Bytes that came in.
    pub(super) fn received(&self) -> Counter {
        self.bytes.get_or_create(&Way { direction: "received" }).clone()
    }

    /// Bytes that went out.
    pub(super) fn sent(&self) -> Counter {
        self.bytes.get_or_create(&Way { direction: "sent" }).clone()
    }

    pub(super) fn responded(&self, status: u16) {
        self.responses.get_or_create(&Status { status }).inc();
    }

    /// A swap or a rollback of a backend that there is.
    pub(super) fn swapped(&self, backend: &str, event: &'static str, failed: Option<&Error>) {
        let outcome = outcome(failed);
        self.swaps.get_or_create(&Swapped { backend: backend.to_owned(), event, outcome }).inc();
    }

    /// How many jobs there are, and what was done so far.
    pub(super) fn jobs(&self, overview: &JobOverview, counts: JobCounts) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for kind in JobKind::ALL {
            for state in JobState::ALL {
                let found = overview.jobs.iter().find(|(of, in_state, _)| (*of, *in_state) == (kind, state));
                let labels = JobLabels { kind: kind.name(), state: state.name() };
                self.jobs.get_or_create(&labels).set(found.map_or(0, |(_, _, count)| number(*count)));
            }
        }
        let JobCounts { repaired_bytes, copied_bytes, rebased_bytes, scrubbed_bytes } = counts;
        let all = [
            ("repaired", repaired_bytes),
            ("copied", copied_bytes),
            ("rebased", rebased_bytes),
            ("scrubbed", scrubbed_bytes),
        ];
        for (what, bytes) in all {
            let counter = self.job_bytes.get_or_create(&JobBytes { what }).clone();
            counter.inc_by(bytes.saturating_sub(counter.get()));
        }
        self.under_number.set(number(overview.under_number));
        self.at_risk.set(number(overview.at_risk));
    }

    /// Everything, as Prometheus takes it.
    pub(super) fn text(&self, adapters: &[AdapterInfo], hot: Option<HotStats>) -> String {
        if let Some(hot) = hot {
            self.hot.set(&hot);
        }
        for adapter in adapters {
            let label = BackendLabels { backend: adapter.backend.clone() };
            let number = i64::try_from(adapter.generation).unwrap_or(i64::MAX);
            self.generations.get_or_create(&label).set(number);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

/// The hot tier. All are zero where there is none.
#[derive(Default)]
struct Hot {
    capacity: Gauge,
    bytes: Gauge,
    entries: Gauge,
    hits: Counter,
    evictions: Counter,
}

impl Hot {
    fn register(&self, registry: &mut Registry) {
        let bytes = || Unit::Bytes;
        registry.register_with_unit("hot_capacity", "What the hot tier may take", bytes(), self.capacity.clone());
        registry.register_with_unit("hot_used", "What the hot tier takes", bytes(), self.bytes.clone());
        registry.register("hot_entries", "Objects of the hot tier", self.entries.clone());
        registry.register("hot_hits", "Objects of the hot tier that were opened to be read", self.hits.clone());
        registry.register("hot_evictions", "Objects that made room for others", self.evictions.clone());
    }

    fn set(&self, stats: &HotStats) {
        let gauge = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.capacity, stats.capacity);
        gauge(&self.bytes, stats.bytes);
        gauge(&self.entries, stats.entries);
        self.hits.inner().store(stats.hits, Ordering::Relaxed);
        self.evictions.inner().store(stats.evictions, Ordering::Relaxed);
    }
}

/// An operation that is counted. One that is dropped before its end counts as `cancelled`.
pub(super) struct Running {
    operation: &'static str,
    began: Instant,
    running: Gauge,
    operations: Family<Done, Counter>,
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
    ended: bool,
}

impl Running {
    /// It has ended, well or not.
    pub(super) fn end(mut self, failed: Option<&Error>) {
        self.count(outcome(failed));
    }

    fn count(&mut self, outcome: &'static str) {
        self.ended = true;
        self.running.dec();
        self.operations.get_or_create(&Done { operation: self.operation, outcome }).inc();
        let seconds = self.began.elapsed().as_secs_f64();
        self.seconds.get_or_create(&Operation { operation: self.operation }).observe(seconds);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.count(ErrorKind::Cancelled.name());
        }
    }
}

fn outcome(failed: Option<&Error>) -> &'static str {
    failed.map_or("ok", |error| error.kind().name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_how_they_ended() {
        let metrics = Metrics::new();
        metrics.begin("store").end(None);
        metrics.begin("store").end(Some(&Error::denied("x")));
        drop(metrics.begin("retrieve"));
        let open = metrics.begin("remove");
        metrics.received().inc_by(7);
        let text = metrics.text(&[], None);
        for line in [
            "tidelock_operations_total{operation=\"store\",outcome=\"ok\"} 1",
            "tidelock_operations_total{operation=\"store\",outcome=\"denied\"} 1",
            "tidelock_operations_total{operation=\"retrieve\",outcome=\"cancelled\"} 1",
            "tidelock_operations_running{operation=\"remove\"} 1",
            "tidelock_operations_running{operation=\"store\"} 0",
            "tidelock_transferred_bytes_total{direction=\"received\"} 7",
            "tidelock_operation_duration_seconds_count{operation=\"store\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        open.end(None);
        assert!(metrics.text(&[], None).contains("tidelock_operations_running{operation=\"remove\"} 0"));
    }
}
