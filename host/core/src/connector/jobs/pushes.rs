//! Jobs in the foreground of a store that waits for what others have left to be pushed.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::run::RunOptions;
use crate::connector::Host;
use crate::connector::store::Pushes;
use crate::types::Result;

/// Runs the jobs that are due.
pub(in crate::connector) struct DueJobs;

impl Pushes for DueJobs {
    fn push<'h>(&self, host: &'h Host) -> BoxFuture<'h, Result<u64>> {
        let one = RunOptions { parallel: Some(1), ..RunOptions::default() };
        async move { Ok(host.run_jobs(&one).await?.done) }.boxed()
    }
}
