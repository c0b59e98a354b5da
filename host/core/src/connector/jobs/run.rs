//! Takes jobs, runs a few at once, and records how they ended.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::places::Free;
use super::report::{JobCounts, JobOutcome, JobOverview, JobPage, JobReport, MadeObject};
use super::this_run::{LONGEST_PAUSE, Run};
use crate::catalogue::{
    Between, Choice, HeldJob, Job, JobEnd, JobKind, JobState, JobStats, NewJob, OwnerToken, Placement, PlacementEvent,
    Take,
};
use crate::config::{HOT, Route};
use crate::connector::Host;
use crate::snapshot::Progress;
use crate::snapshot::pages::Profile;
use crate::types::{Error, Result, SnapshotId};

/// How long a job waits after its first failure, in seconds; twice as long after each further one.
const FIRST_PAUSE: u64 = 60;
/// How long one waits that others were in the way of, in seconds.
const BUSY_PAUSE: u64 = 10;
/// How often a run looks for further jobs while none of its own ends.
const LOOK: Duration = Duration::from_secs(2);
/// Jobs that are listed at once.
const PAGE: usize = 1000;
/// Snapshots with too few copies for which jobs are enqueued at once.
const COPIES: u32 = 1000;

/// How jobs are run.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Jobs that are run at once, as configured if there is none here; and beyond them one for each two backends that no other
    /// goes on between.
    pub parallel: Option<u32>,
    /// No further job is begun once so many bytes were read.
    pub bytes: Option<u64>,
    /// Also those that wait for a later time, and those that have failed for good, once each.
    pub all: bool,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
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
    /// Runs the jobs that are due, those of the snapshots with the fewest live copies first. Snapshots that have
    /// fewer copies than are wanted get a job before.
    ///
    /// # Errors
    /// Errors of the catalogue. What a job meets is in the report, and the job is tried again later.
    pub async fn run_jobs(&self, options: &RunOptions) -> Result<JobReport> {
        let catalogue = &self.inner.catalogue;
        let mut report = JobReport::default();
        let mut asked = if options.all { self.jobs_that_wait().await? } else { VecDeque::new() };
        self.inner.owner.end_dead().await?;
        if asked.is_empty()
            && !catalogue.has_due_job().await?
            && catalogue.enqueue_copies(COPIES, self.configured_names()).await? == 0
        {
            return Ok(report);
        }
        let run = Run::new(self, None, options.progress.clone());
        let parallel = options.parallel.unwrap_or(self.inner.job_settings.parallel).max(1) as usize;
        let within = |run: &Run| options.bytes.is_none_or(|most| run.meter.read() < most);
        let mut running = FuturesUnordered::new();
        loop {
            while within(&run)
                && let Some((job, held, run)) = self.next_job(&run, parallel, &mut asked).await?
            {
                running.push(self.work(job, held, run));
            }
            if running.is_empty() {
                break;
            }
            // There may be something for the others while one does not end.
            if let Ok(Some(ended)) = tokio::time::timeout(LOOK, running.next()).await
                && let Some(outcome) = ended?
            {
                report.add(outcome);
            }
        }
        report.bytes = run.meter.read();
        Ok(report)
    }

    /// Takes the next job that there is a place for, those that were asked for before others.
    async fn next_job(
        &self,
        run: &Run,
        parallel: usize,
        asked: &mut VecDeque<u64>,
    ) -> Result<Option<(Job, HeldJob, Run)>> {
        let catalogue = &self.inner.catalogue;
        let (not_between, beyond) = match run.places.free(parallel) {
            Free::Any => (Vec::new(), false),
            Free::Beside(others) => (others, true),
            Free::Nothing => return Ok(None),
        };
        let on = |route: &Route| {
            let may = |backend: &&String| *backend != HOT && !run.leaves_out(backend);
            route.backends.iter().filter(may).cloned().collect()
        };
        let routes = self.inner.routes.iter().map(|(name, route)| (name.clone(), on(route))).collect();
        let choice = Choice { routes, not_between, without: self.inner.jobs.wakings.waiting() };
        let token = self.inner.owner.current().await?;
        for _ in 0..asked.len() {
            let Some(this) = asked.pop_front() else { break };
            match catalogue.take_job_beside(Take::This(this), &choice, token).await? {
                Some((job, between)) => return Ok(Some(begun(job, between, token, run, beyond))),
                // It is gone, or another host runs it.
                None if !beyond => {}
                None => asked.push_back(this),
            }
        }
        loop {
            if let Some((job, between)) = catalogue.take_job_beside(Take::Due, &choice, token).await? {
                return Ok(Some(begun(job, between, token, run, beyond)));
            }
            if catalogue.enqueue_copies(COPIES, self.configured_names()).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The jobs that wait and those that have failed.
    async fn jobs_that_wait(&self) -> Result<VecDeque<u64>> {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = self.inner.catalogue.jobs(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let waits = |job: &&Job| matches!(job.state, JobState::Waiting | JobState::Failed);
            found.extend(page.iter().filter(waits).map(|job| (job.copies, job.attempts, job.id)));
        }
        // In the order in which they would be due.
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, _, job)| job).collect())
    }

    /// Enqueues the job of a kind for a placement, unless it is there already, and returns it.
    pub(super) async fn job_for(&self, kind: JobKind, of: &Placement) -> Result<Option<Job>> {
        let (backend, object) = (Some(of.backend.clone()), Some(of.object.clone()));
        let new = NewJob { kind, snapshot: of.snapshot, backend, object };
        let catalogue = &self.inner.catalogue;
        catalogue.enqueue(vec![new.clone()]).await?;
        let jobs = catalogue.jobs_of(of.snapshot).await?.into_iter();
        Ok(jobs.into_iter().find(|job| job.kind == kind && job.backend == new.backend && job.object == new.object))
    }

    /// Runs one job; `None` if it cannot be taken.
    pub(super) async fn run_one(&self, take: Take, run: &Run) -> Result<Option<JobOutcome>> {
        let token = self.inner.owner.current().await?;
        let Some(job) = self.inner.catalogue.take_job(take, token).await? else { return Ok(None) };
        let (job, held, run) = begun(job, Between::default(), token, run, false);
        self.work(job, held, run).await
    }

    async fn work(&self, job: Job, held: HeldJob, run: Run) -> Result<Option<JobOutcome>> {
        let run = &run;
        let mut running = Running { host: self, held: Some(held) };
        let worked = match job.kind {
            JobKind::Repair => Box::pin(self.run_repair(&job, held, run)).await,
            JobKind::Copy | JobKind::Push => Box::pin(self.run_copies(&job, held, run)).await,
            JobKind::RebaseCompact => Box::pin(self.run_rebase(&job, Profile::Compact, held, run)).await,
            JobKind::RebaseRandom => Box::pin(self.run_rebase(&job, Profile::Random, held, run)).await,
        };
        let (made, done, why) = match worked {
            Ok(Worked { made, why }) => (made, true, why),
            Err(error) => (Vec::new(), false, Some(told(&error))),
        };
        let end = match &why {
            Some(why) if !done => {
                // Others were in the way, or the backend was left out: that is no attempt.
                let busy = run.was_refused().then_some(BUSY_PAUSE);
                match busy.or_else(|| run.untried()) {
                    Some(pause) => {
                        JobEnd::Untried(self.inner.platform.unix_seconds().saturating_add(pause), why.clone())
                    }
                    None => self.later(&job, why),
                }
            }
            _ => JobEnd::Done,
        };
        if let (JobEnd::Wait(until, _) | JobEnd::Untried(until, _), true) = (&end, job.was_woken() && run.has_tried()) {
            let pause = until.saturating_sub(self.inner.platform.unix_seconds());
            self.inner.jobs.wakings.note(job.id, Duration::from_secs(pause));
        }
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
        Ok(Some(JobOutcome { job: id, kind, snapshot, backend, object, done: done && ended, made, why }))
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

    /// Removes a job. What runs it can record nothing any more. A job comes back if its reason arises anew. A push is left as one that
    /// has failed, since its snapshot is at risk still.
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
        let JobStats { jobs, under_number, at_risk, next } =
            self.inner.catalogue.job_stats(self.configured_names()).await?;
        Ok(JobOverview { jobs, under_number, at_risk, next })
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

/// A job that was taken, with its place.
fn begun(job: Job, between: Between, token: OwnerToken, run: &Run, beyond: bool) -> (Job, HeldJob, Run) {
    let held = HeldJob { id: job.id, token };
    (job, held, run.of_job(between, beyond))
}

/// A failure in one sentence.
fn told(error: &Error) -> String {
    match error.backend() {
        Some(backend) => format!("{backend}: {}", error.message()),
        None => error.message().to_owned(),
    }
}
