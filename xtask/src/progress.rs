//! Says how far a task is: `step 3 of 6: building tidelock (about 6 minutes the first time, 7 for all that is left)`.
//!
//! Each step has an estimate of what it takes where nothing is built or installed yet, measured on two cores. What is
//! there already counts nothing. The estimates of later steps are scaled by how long the earlier ones took, so that they
//! get better on a machine that is faster or busier.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::say;

/// A step of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    what: &'static str,
    estimate: Duration,
}

impl Step {
    /// A step that takes `seconds` every time.
    pub fn new(what: &'static str, seconds: u64) -> Self {
        Self { what, estimate: Duration::from_secs(seconds) }
    }

    /// A step that takes `seconds` the first time, and next to nothing where `result` is there.
    pub fn once(what: &'static str, seconds: u64, result: &Path) -> Self {
        Self::new(what, if result.exists() { 0 } else { seconds })
    }

    /// The same step, which takes `seconds` at the least.
    pub fn at_least(self, seconds: u64) -> Self {
        Self { estimate: self.estimate.max(Duration::from_secs(seconds)), ..self }
    }
}

/// The steps of a task and which of them has begun.
#[derive(Debug)]
pub struct Progress {
    steps: Vec<Step>,
    begun: usize,
    started: Instant,
}

impl Progress {
    /// A task of these steps, which starts now.
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps, begun: 0, started: Instant::now() }
    }

    /// Begins the next step and reports it on stderr.
    pub fn next(&mut self) {
        if let Some(line) = self.line(self.started.elapsed()) {
            say!("{line}");
        }
        self.begun += 1;
    }

    /// Returns the line to print at the beginning of the next step, `elapsed` after the task started.
    fn line(&self, elapsed: Duration) -> Option<String> {
        let step = self.steps.get(self.begun)?;
        let (done, left) = self.steps.split_at(self.begun);
        let pace = pace(total(done), elapsed);
        let this = minutes(step.estimate.mul_f64(pace));
        let all = minutes(total(left).mul_f64(pace));
        let estimate = match (this, all) {
            (_, None) => String::new(),
            (None, Some(all)) => format!(" (about {all} for all that is left)"),
            (Some(this), Some(all)) if this == all => format!(" (about {this})"),
            (Some(this), Some(all)) => format!(" (about {this}, {all} for all that is left)"),
        };
        Some(format!("step {} of {}: {}{estimate}", self.begun + 1, self.steps.len(), step.what))
    }
}

fn total(steps: &[Step]) -> Duration {
    steps.iter().map(|step| step.estimate).sum()
}

/// How much longer than estimated the finished steps took.
fn pace(estimated: Duration, took: Duration) -> f64 {
    // Short steps tell nothing about long ones.
    if estimated < Duration::from_secs(20) {
        return 1.0;
    }
    (took.as_secs_f64() / estimated.as_secs_f64()).clamp(0.25, 4.0)
}

/// A duration to the minute. Nothing for one that is not worth waiting elsewhere for.
fn minutes(time: Duration) -> Option<String> {
    match (time.as_secs() + 30) / 60 {
        0 => None,
        1 => Some("1 minute".into()),
        minutes => Some(format!("{minutes} minutes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Progress {
        Progress::new(vec![Step::new("one", 60), Step::new("two", 300), Step::new("three", 5)])
    }

    fn at(begun: usize, seconds: u64) -> Option<String> {
        Progress { begun, ..task() }.line(Duration::from_secs(seconds))
    }

    #[test]
    fn a_step_prints_its_time_and_the_time_left() {
        assert_eq!(at(0, 0).unwrap(), "step 1 of 3: one (about 1 minute, 6 minutes for all that is left)");
        assert_eq!(at(1, 60).unwrap(), "step 2 of 3: two (about 5 minutes)");
        assert_eq!(at(2, 360).unwrap(), "step 3 of 3: three");
        assert_eq!(at(3, 365), None);
    }

    #[test]
    fn a_slower_machine_takes_longer_for_the_rest_too() {
        assert_eq!(at(1, 120).unwrap(), "step 2 of 3: two (about 10 minutes)");
        assert_eq!(at(1, 6000).unwrap(), "step 2 of 3: two (about 20 minutes)");
    }

    #[test]
    fn an_existing_file_takes_no_time() {
        assert_eq!(Step::once("one", 60, Path::new("/")), Step::new("one", 0));
        assert_eq!(Step::once("one", 60, Path::new("/no/such/file")), Step::new("one", 60));
    }
}
