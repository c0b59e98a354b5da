//! Arguments of the commands that do what is due in the background.

use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::with_hint;
use tidelock::config::PackProfile;
use tidelock::types::parse_bytes;

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List the jobs, oldest first (the default).
    Ls,
    /// Run the jobs that are due, once each. Exit status 1 if some are not done.
    Run(RunJobs),
    /// Remove a job. It comes back if its reason arises anew. A push is left as one that has failed: what it is about is at risk.
    Cancel {
        /// The number of the job.
        #[arg(value_name = "JOB")]
        job: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunJobs {
    /// Also run jobs that wait for a later time after a failure, and those that have failed for good.
    #[arg(long)]
    pub(crate) all: bool,
    /// How many are run at once; beyond them, one for each two backends that no other goes on between [default: as configured].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) parallel: Option<u32>,
    /// Begin no further job once so many bytes were read, for example 10GiB.
    #[arg(long, value_name = "N", value_parser = bytes)]
    pub(crate) bytes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Read no further object of a backend once so many bytes of it were read, as 10GiB: the next scrub goes on there [default: all].
    #[arg(long, value_name = "N", value_parser = bytes)]
    pub(crate) bytes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rebase {
    /// The snapshot.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// What the new packs are made for: few bytes, or cheap reads of single pages [default: as the snapshot's route says].
    #[arg(long, value_enum)]
    pub(crate) profile: Option<Profile>,
}

/// What packs are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Few bytes.
    Compact,
    /// Cheap reads of single pages.
    Random,
}

impl From<Profile> for PackProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Compact => Self::Compact,
            Profile::Random => Self::Random,
        }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(with_hint)
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The backend.
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: String,
    /// Also snapshots that have their last copy there: they are lost.
    #[arg(long)]
    pub(crate) lose_snapshots: bool,
}
