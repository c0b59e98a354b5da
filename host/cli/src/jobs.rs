//! `tidelock jobs`: what is still to be done in the background.

use serde::Serialize;

use super::arguments::{Jobs, JobsCommand, RunJobs};
use super::failure::Failure;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::catalogue::JobState;
use tidelock::types::{Error, format_bytes};
use tidelock::{Host, JobOutcome, JobOverview, JobReport, RunOptions};

/// Jobs that are taken from the catalogue, and aligned with each other, at once.
const PAGE: usize = 1000;

pub(super) async fn run(arguments: Jobs, session: &Session) -> Result<(), Failure> {
    let (host, _empty) = session.open_any().await?;
    match arguments.command.unwrap_or(JobsCommand::Ls) {
        JobsCommand::Ls if session.json => objects(&host).await,
        JobsCommand::Ls => table(&host).await,
        JobsCommand::Run(arguments) => run_jobs(&arguments, &host, session).await,
        JobsCommand::Cancel { job } => {
            let job = host.cancel_job(job).await?;
            match session.json {
                true => output::object(&job),
                false => output::line(format_args!("cancelled: {} of {}", job.kind.name(), job.snapshot)),
            }
        }
    }
}

async fn table(host: &Host) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = host.jobs(after, PAGE).await?;
        if page.jobs.is_empty() {
            return Ok(());
        }
        let mut table = TextTable::new([
            ("JOB", Side::Right),
            ("KIND", Side::Left),
            ("STATE", Side::Left),
            ("COPIES", Side::Right),
            ("CREATED", Side::Left),
            ("NOT BEFORE", Side::Left),
            ("SNAPSHOT", Side::Left),
            ("BACKEND", Side::Left),
            ("WHY", Side::Left),
        ]);
        for job in page.jobs {
            table.row([
                job.id.to_string(),
                job.kind.name().to_owned(),
                job.state.name().to_owned(),
                job.copies.to_string(),
                output::moment(job.created),
                match job.state {
                    JobState::Waiting => output::moment(job.not_before),
                    JobState::Queued | JobState::Running | JobState::Failed => "-".to_owned(),
                },
                job.snapshot.to_string(),
                job.backend.unwrap_or_else(|| "-".to_owned()),
                job.reason.unwrap_or_default(),
            ]);
        }
        let text = table.to_string();
        // Only the first page has a heading.
        output::text(if after.is_none() { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) })?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn objects(host: &Host) -> Result<(), Failure> {
    output::list("jobs", async |list| {
        let mut after = None;
        loop {
            let page = host.jobs(after, PAGE).await?;
            page.jobs.iter().try_for_each(|job| list.add(job))?;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    })
    .await
}

/// A run of jobs, and what it has left.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    ran: JobReport,
    #[serde(flatten)]
    left: Left,
}

/// Jobs that a run has left.
#[derive(Debug, Clone, Copy, Serialize)]
struct Left {
    /// Those that wait for a time.
    waiting: u64,
    /// When the first of them is due (seconds since 1970-01-01 UTC).
    next: Option<u64>,
    /// Those that are not tried again by themselves.
    failed_for_good: u64,
}

impl Left {
    fn of(overview: &JobOverview) -> Self {
        let count = |wanted| {
            let those = overview.jobs.iter().filter(|(_, state, _)| *state == wanted);
            those.map(|(_, _, count)| count).sum()
        };
        Self { waiting: count(JobState::Waiting), next: overview.next, failed_for_good: count(JobState::Failed) }
    }
}

async fn run_jobs(arguments: &RunJobs, host: &Host, session: &Session) -> Result<(), Failure> {
    let bar = session.console.bar("running jobs", None);
    let options = RunOptions {
        parallel: arguments.parallel,
        bytes: arguments.bytes,
        all: arguments.all,
        progress: bar.progress(),
    };
    let ran = host.run_jobs(&options).await?;
    drop(bar);
    let report = Report { ran, left: Left::of(&host.job_overview().await?) };
    let verdict = verdict(&report.ran).map(Failure::from);
    output::outcome(session.json, &report, |Report { ran, left }| describe(ran, *left), verdict)
}

/// Jobs that are not done are a failure, so that a script notices them.
fn verdict(ran: &JobReport) -> Option<Error> {
    let first = ran.outcomes.iter().find(|outcome| !outcome.done);
    let why = first.and_then(|outcome| outcome.why.clone()).unwrap_or_default();
    let error = || Error::unavailable(format!("{} of {} jobs are not done: {why}", ran.failed, ran.done + ran.failed));
    (ran.failed > 0).then(|| error().hint("they are tried again later; `tidelock jobs ls` says when, and why"))
}

fn describe(ran: &JobReport, left: Left) -> String {
    let mut text = format!("done: {} jobs, {} read\n", ran.done, format_bytes(ran.bytes));
    for JobOutcome { kind, snapshot, made, why, .. } in &ran.outcomes {
        let kind = kind.name();
        for object in made {
            let (size, from) = (format_bytes(object.bytes), &object.from);
            text += &format!("{kind} of {snapshot}: {size} on {}, from {from}\n", object.backend);
        }
        if let Some(why) = why {
            text += &format!("{kind} of {snapshot}: {why}\n");
        }
    }
    if left.waiting > 0 {
        let (jobs, them) = if left.waiting == 1 { ("job waits", "it") } else { ("jobs wait", "them") };
        let until = left.next.map(output::moment).unwrap_or_default();
        let first = if left.waiting == 1 { "" } else { ", the first of them" };
        text += &format!("{} {jobs}{first} until {until}; `--all` runs {them} now\n", left.waiting);
    }
    if left.failed_for_good > 0 {
        text += &format!("failed for good: {}; `--all` runs them once more\n", left.failed_for_good);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock::catalogue::JobKind;
    use tidelock::types::SnapshotId;

    #[test]
    fn a_job_that_is_not_done_is_a_failure() {
        let outcome = JobOutcome {
            job: 1,
            kind: JobKind::Copy,
            snapshot: SnapshotId::from_bytes([1; 32]),
            backend: None,
            object: None,
            done: false,
            made: Vec::new(),
            why: Some("cloud: no route".to_owned()),
        };
        let ran = JobReport { done: 2, failed: 1, outcomes: vec![outcome], ..JobReport::default() };
        assert_eq!(verdict(&ran).unwrap().to_string(), "1 of 3 jobs are not done: cloud: no route");
        let none = Left { waiting: 0, next: None, failed_for_good: 0 };
        let text = describe(&ran, none);
        assert!(text.contains("copy of tl1") && text.contains("no route") && !text.contains("--all"), "{text}");
        let text = describe(&JobReport::default(), Left { waiting: 1, next: Some(0), ..none });
        assert!(text.ends_with("\n1 job waits until 1970-01-01 00:00:00Z; `--all` runs it now\n"), "{text}");
        let text = describe(&JobReport::default(), Left { waiting: 2, next: Some(0), failed_for_good: 1 });
        assert!(text.contains("\n2 jobs wait, the first of them until 1970") && text.contains("failed for good: 1"));
        assert!(verdict(&JobReport { done: 2, ..JobReport::default() }).is_none());
    }
}
