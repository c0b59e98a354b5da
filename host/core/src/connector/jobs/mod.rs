//! Running jobs: work that is recorded in the catalogue, and that no command waits for ([`JobQueue`]).
//!
//! | module | contents |
//! | --- | --- |
//! | `run` | takes jobs, runs a few at once, and records how they ended |
//! | `failures` | which backends a run leaves out for a while |
//! | `places` | how many go on at once, and between which backends |
//! | `wakings` | how often a job may be begun before its time |
//! | `repair` | a good copy in place of a bad placement |
//! | `rebase` | a full pack in place of one that takes pages from others |
//! | `copies` | snapshots that have too few copies, or are in the hot tier alone |
//! | `holders` | which copies count, and how many each route wants |
//! | `source` | where a copy is read from: a placement, every byte of it checked, or the same pack elsewhere |
//! | `background` | what a daemon does of this by itself |
//! | `pushes` | jobs for a store that waits for them |
//! | `meter` | how much is read, and how fast |
//! | `scrub` | reading everything that is stored, again and again |
//! | `report` | what is said of it |
//!
//! A job says what to look at. Whoever runs it looks at how things are then, so that one that is run twice, by a host that stood
//! still or after a crash at any point, does no harm: its objects have intents like those of any store, are recorded in one
//! transaction that makes sure of the job, and are found by `gc` otherwise.
//!
//! [`JobQueue`]: crate::catalogue::JobQueue

mod background;
mod copies;
mod failures;
mod holders;
mod hot_packs;
mod meter;
mod places;
mod pushes;
mod rebase;
mod remake;
mod repair;
mod report;
mod run;
mod scrub;
mod source;
mod this_run;
mod wakings;

pub use report::{
    JobCounts, JobOutcome, JobOverview, JobPage, JobReport, MadeObject, RebaseReport, RepairReport, ScrubReport,
};
pub use run::RunOptions;
pub use scrub::ScrubOptions;

pub(super) use pushes::DueJobs;
pub(super) use report::Totals;
