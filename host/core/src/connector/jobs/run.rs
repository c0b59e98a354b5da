//! Takes jobs, runs a few at once, and records how they ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::meter::Meter;
use super::report::{JobCounts, JobOutcome, JobOverview, JobPage, JobReport, MadeObject};
use crate::catalogue::{HeldJob, Job, JobEnd, JobKind, JobState, JobStats, PlacementEvent, Take};
use crate::connector::Host;
use crate::snapshot::Progress;
use crate::types::{Error, Result, SnapshotId};

/// How long a job waits after its first failure, in seconds; twice as long after each further one.
const FIRST_PAUSE: u64 = 60;
/// How long it waits at the most.
const LONGEST_PAUSE: u64 = 6 * 60 * 60;
/// Failures in a row after which a run leaves a backend out.
const FAILURES: u32 = 2;
/// Jobs that are listed at once.
const PAGE: usize = 1000;
/// Snapshots with too few copies for which jobs are enqueued at once.
const COPIES: u32 = 1000;

/// How jobs are run.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Jobs that are run at once; as configured if there is none here.
    pub parallel: Option<u32>,
    /// No further job is begun once so many bytes were read.
    pub bytes: Option<u64>,
    /// Also those that wait for a later time, and those that have failed for good, once each.
    pub all: bool,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
}

/// What all jobs of one run share.
pub(super) struct Run {
    pub(super) meter: Arc<Meter>,
    /// How often each backend has failed in a row. What it keeps waiting would keep the jobs of all others waiting.
    failures: Mutex<BTreeMap<String, u32>>,
}

impl Run {
    pub(super) fn new(host: &Host, bytes_per_second: Option<u64>, progress: Option<Progress>) -> Self {
        let bytes_per_second = bytes_per_second.or(host.inner.job_settings.bytes_per_second);
        Self { meter: Arc::new(Meter::new(bytes_per_second, progress)), failures: Mutex::default() }
    }

    /// Makes sure that a backend has not failed too often in this run.
    ///
    /// # Errors
    /// `unavailable` if it has: its jobs are due again later.
    pub(super) fn check(&self, backend: &str) -> Result<()> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(backend) {
            Some(count) if *count >= FAILURES => {
                Err(Error::unavailable("it has failed before in this run of jobs, and is left out").on_backend(backend))
            }
            _ => Ok(()),
        }
    }

    /// Takes note of how an operation of a backend ended.
    pub(super) fn ended(&self, backend: &str, well: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(backend.to_owned()).or_default();
        *count = if well { 0 } else { count.saturating_add(1) };
    }
}

/// What a job has done that has nothing left to do.
pub(super) struct Worked {
    made: Vec<MadeObject>,
    why: Option<String>,
}

impl Worked {
    /// There was nothing to do, for this reason.
    pub(super) fn nothing(why: &str) -> Self {
        Self { made: Vec::new(), why: Some(why.to_owned()) }
    }

    /// It has made these.
    pub(super) fn made(made: Vec<MadeObject>) -> Self {
        Self { made, why: None }
    }
}

/// A job that is being run. One that is dropped before its end is given up: it is due again.
struct Running<'a> {
    host: &'a Host,
    held: Option<HeldJob>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held {
            self.host.inner.owner.release_job(held);
        }
    }
}

impl Host {
    /// Runs the jobs that are due, each once, those of the snapshots with the fewest live copies first. Snapshots that have
    /// fewer copies than are wanted get a job before.
    ///
    /// # Errors
    /// Errors of the catalogue. What a job meets is in the report, and the job is tried again later.
    pub async fn run_jobs(&self, options: &RunOptions) -> Result<JobReport> {
        let catalogue = &self.inner.catalogue;
        let mut report = JobReport::default();
        let mut asked = if options.all { self.jobs_that_wait().await? } else { Vec::new() };
        self.inner.owner.end_dead().await?;
        if asked.is_empty() && !catalogue.has_due_job().await? {
            return Ok(report);
        }
        let run = Run::new(self, None, options.progress.clone());
        let parallel = options.parallel.unwrap_or(self.inner.job_settings.parallel).max(1) as usize;
        let within = |run: &Run| options.bytes.is_none_or(|most| run.meter.read() < most);
        let mut running = FuturesUnordered::new();
        let mut more = true;
        while more || !running.is_empty() {
            while more && running.len() < parallel && within(&run) {
                let take = match asked.pop() {
                    Some(job) => Take::This(job),
                    None => Take::Due,
                };
                let Some((job, held)) = self.take_job(take).await? else {
                    more = matches!(take, Take::This(_)) || catalogue.enqueue_copies(COPIES).await? > 0;
                    continue;
                };
                running.push(self.work(job, held, &run));
            }
            match running.next().await {
                Some(outcome) => {
                    let outcome = outcome?;
                    // Those that have waited for it are due.
                    more |= !outcome.done && within(&run);
                    report.add(outcome);
                }
                None => break,
            }
        }
        report.bytes = run.meter.read();
        Ok(report)
    }

    /// The jobs that wait and those that have failed.
    async fn jobs_that_wait(&self) -> Result<Vec<u64>> {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = self.inner.catalogue.jobs(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let waits = |job: &&Job| matches!(job.state, JobState::Waiting | JobState::Failed);
            found.extend(page.iter().filter(waits).map(|job| job.id));
        }
        // The oldest is taken first.
        found.reverse();
        Ok(found)
    }

    /// Runs one job; `None` if it cannot be taken.
    pub(super) async fn run_one(&self, take: Take, run: &Run) -> Result<Option<JobOutcome>> {
        match self.take_job(take).await? {
            Some((job, held)) => self.work(job, held, run).await.map(Some),
            None => Ok(None),
        }
    }

    async fn take_job(&self, take: Take) -> Result<Option<(Job, HeldJob)>> {
        let token = self.inner.owner.current().await?;
        let job = self.inner.catalogue.take_job(take, token).await?;
        Ok(job.map(|job| (HeldJob { id: job.id, token }, job)).map(|(held, job)| (job, held)))
    }

    async fn work(&self, job: Job, held: HeldJob, run: &Run) -> Result<JobOutcome> {
        let mut running = Running { host: self, held: Some(held) };
        let worked = match job.kind {
            JobKind::Repair => Box::pin(self.run_repair(&job, held, run)).await,
            JobKind::Copy | JobKind::Push => Box::pin(self.run_copies(&job, held, run)).await,
        };
        let (made, done, why) = match worked {
            Ok(Worked { made, why }) => (made, true, why),
            Err(error) => (Vec::new(), false, Some(told(&error))),
        };
        let end = match (&why, done) {
            (Some(why), false) => self.later(&job, why),
            _ => JobEnd::Done,
        };
        if let (Some(why), false) = (&why, done) {
            tracing::warn!(job = job.id, kind = job.kind.name(), snapshot = %job.snapshot, why, "the job failed");
        }
        let ended = self.inner.catalogue.end_job(held, end).await?;
        running.held = None;
        let why = match ended {
            true => why,
            false => Some("it was cancelled, or taken over by another host".to_owned()),
        };
        let Job { id, kind, snapshot, backend, object, .. } = job;
        Ok(JobOutcome { job: id, kind, snapshot, backend, object, done: done && ended, made, why })
    }

    /// When a job that has failed is tried again.
    fn later(&self, job: &Job, why: &str) -> JobEnd {
        let pause = FIRST_PAUSE.saturating_mul(1 << (job.attempts.saturating_sub(1)).min(16)).min(LONGEST_PAUSE);
        JobEnd::Wait(self.inner.platform.unix_seconds().saturating_add(pause), why.to_owned())
    }

    /// Returns jobs in the order in which they were enqueued, at most `limit` of them; `after` is a page's `next`.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn jobs(&self, after: Option<u64>, limit: usize) -> Result<JobPage> {
        let limit = limit.clamp(1, 9_999);
        let mut jobs = self.inner.catalogue.jobs(after.unwrap_or(0), limit + 1).await?;
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok(JobPage { next: jobs.last().filter(|_| more).map(|job| job.id), jobs })
    }

    /// Removes a job. What runs it can record nothing any more. A job comes back if its reason arises anew.
    ///
    /// # Errors
    /// `not-found`.
    pub async fn cancel_job(&self, job: u64) -> Result<Job> {
        let cancelled = self.inner.catalogue.cancel_job(job).await?;
        cancelled
            .ok_or_else(|| Error::not_found(format!("no job {job}")).hint("run `tidelock jobs ls` to list the jobs"))
    }

    /// Returns whether there is a job that is due. Changes nothing.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn has_due_job(&self) -> Result<bool> {
        self.inner.catalogue.has_due_job().await
    }

    /// Returns how many jobs there are, and what is in danger.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn job_overview(&self) -> Result<JobOverview> {
        let JobStats { jobs, under_number, at_risk } = self.inner.catalogue.job_stats().await?;
        Ok(JobOverview { jobs, under_number, at_risk })
    }

    /// Returns what the jobs and scrubs of this host have done.
    pub fn job_counts(&self) -> JobCounts {
        self.inner.jobs.counts()
    }

    /// Returns what happened to the placements of a snapshot, the latest first, at most 100 events.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn placement_events(&self, id: SnapshotId) -> Result<Vec<PlacementEvent>> {
        self.inner.catalogue.events(id).await
    }
}

/// A failure in one sentence.
fn told(error: &Error) -> String {
    match error.backend() {
        Some(backend) => format!("{backend}: {}", error.message()),
        None => error.message().to_owned(),
    }
}
