//! The jobs of the watched catalogue: each call is a point of the scheduler.

use futures::future::BoxFuture;

use super::watched::WatchedCatalogue;
use crate::catalogue::{
    Between, Choice, HeldJob, Job, JobEnd, JobQueue, JobStats, LongChains, NewJob, OwnerToken, Placement,
    PlacementEvent, Reserved, RiskBound, Scrubbed, Take, WantedCopies,
};
use crate::types::{ObjectId, Result, SnapshotId};

impl JobQueue for WatchedCatalogue {
    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.points.point("enqueue").await;
            JobQueue::enqueue(&self.inner, jobs).await
        })
    }

    fn enqueue_copies(&self, limit: u32, configured: Vec<String>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.points.point("enqueue_copies").await;
            JobQueue::enqueue_copies(&self.inner, limit, configured).await
        })
    }

    fn has_due_job(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            self.points.point("has_due_job").await;
            JobQueue::has_due_job(&self.inner).await
        })
    }

    fn take_job(&self, which: Take, token: OwnerToken) -> BoxFuture<'_, Result<Option<Job>>> {
        Box::pin(async move {
            self.points.point("take_job").await;
            JobQueue::take_job(&self.inner, which, token).await
        })
    }

    fn take_job_beside<'a>(
        &'a self,
        which: Take,
        choice: &'a Choice,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<(Job, Between)>>> {
        Box::pin(async move {
            self.points.point("take_job").await;
            JobQueue::take_job_beside(&self.inner, which, choice, token).await
        })
    }

    fn end_job(&self, held: HeldJob, end: JobEnd) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            self.points.point("end_job").await;
            JobQueue::end_job(&self.inner, held, end).await
        })
    }

    fn release_jobs(&self, held: Vec<HeldJob>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.points.point("release_jobs").await;
            JobQueue::release_jobs(&self.inner, held).await
        })
    }

    fn jobs(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            self.points.point("jobs").await;
            JobQueue::jobs(&self.inner, after, limit).await
        })
    }

    fn jobs_of(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            self.points.point("jobs_of").await;
            JobQueue::jobs_of(&self.inner, id).await
        })
    }

    fn cancel_job(&self, id: u64) -> BoxFuture<'_, Result<Option<Job>>> {
        Box::pin(async move {
            self.points.point("cancel_job").await;
            JobQueue::cancel_job(&self.inner, id).await
        })
    }

    fn job_stats(&self, configured: Vec<String>) -> BoxFuture<'_, Result<JobStats>> {
        Box::pin(async move {
            self.points.point("job_stats").await;
            JobQueue::job_stats(&self.inner, configured).await
        })
    }

    fn at_risk(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.points.point("at_risk").await;
            JobQueue::at_risk(&self.inner).await
        })
    }

    fn reserve_risk(
        &self,
        token: OwnerToken,
        bound: RiskBound,
        route: String,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Reserved>> {
        Box::pin(async move {
            self.points.point("reserve_risk").await;
            JobQueue::reserve_risk(&self.inner, token, bound, route, bytes).await
        })
    }

    fn reserve_hot(&self, token: OwnerToken, bytes: u64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.points.point("reserve_hot").await;
            JobQueue::reserve_hot(&self.inner, token, bytes).await
        })
    }

    fn reserved_hot(&self, before: Option<u64>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.points.point("reserved_hot").await;
            JobQueue::reserved_hot(&self.inner, before).await
        })
    }

    fn release_rooms(&self, rooms: Vec<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.points.point("release_rooms").await;
            JobQueue::release_rooms(&self.inner, rooms).await
        })
    }

    fn wanted(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<WantedCopies>>> {
        Box::pin(async move {
            self.points.point("wanted").await;
            JobQueue::wanted(&self.inner, id).await
        })
    }

    fn retire<'a>(&'a self, seen: &'a Placement, relied: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.points.point("retire").await;
            JobQueue::retire(&self.inner, seen, relied).await
        })
    }

    fn retire_for<'a>(&'a self, seen: &'a Placement, by: &'a ObjectId) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.points.point("retire_for").await;
            JobQueue::retire_for(&self.inner, seen, by).await
        })
    }

    fn replaced<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("replaced").await;
            JobQueue::replaced(&self.inner, backend, id).await
        })
    }

    fn all_replaced(&self, after: u64) -> BoxFuture<'_, Result<(Vec<Placement>, Option<u64>)>> {
        Box::pin(async move {
            self.points.point("all_replaced").await;
            JobQueue::all_replaced(&self.inner, after).await
        })
    }

    fn was_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.points.point("was_read").await;
            JobQueue::was_read(&self.inner, seen).await
        })
    }

    fn note_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.points.point("note_read").await;
            JobQueue::note_read(&self.inner, seen).await
        })
    }

    fn long_chains<'a>(
        &'a self,
        backend: &'a str,
        after: u64,
        most: u32,
        limit: u32,
    ) -> BoxFuture<'a, Result<LongChains>> {
        Box::pin(async move {
            self.points.point("long_chains").await;
            JobQueue::long_chains(&self.inner, backend, after, most, limit).await
        })
    }

    fn dependents<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("dependents").await;
            JobQueue::dependents(&self.inner, backend, id).await
        })
    }

    fn events(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<PlacementEvent>>> {
        Box::pin(async move {
            self.points.point("events").await;
            JobQueue::events(&self.inner, id).await
        })
    }

    fn to_scrub<'a>(
        &'a self,
        backend: &'a str,
        after: Option<(u64, u64)>,
        before: u64,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Scrubbed>>> {
        Box::pin(async move {
            self.points.point("to_scrub").await;
            JobQueue::to_scrub(&self.inner, backend, after, before, limit).await
        })
    }

    fn note_scrubbed<'a>(&'a self, placement: &'a Placement, at: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.points.point("note_scrubbed").await;
            JobQueue::note_scrubbed(&self.inner, placement, at).await
        })
    }
}
