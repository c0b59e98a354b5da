//! Jobs: what is still to be done in the background.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Named, Parameters};
use super::problem::{Details, Problem};
use super::shared::Shared;
use tidelock::JobPage;
use tidelock::catalogue::Job;
use tidelock::types::Error;

/// Jobs of one page.
const PAGE: usize = 1000;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// The cursor of the page: the `next` of the one before.
    after: Option<u64>,
    /// The number of jobs on the page, at most 9,999. Default: 1,000.
    #[param(minimum = 1, maximum = 9_999)]
    limit: Option<usize>,
}

/// Which job.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct Number {
    /// The number of the job.
    id: u64,
}

/// List jobs
///
/// Repairs, and copies that are still to be made, in the order in which they were enqueued.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(Part),
    responses(
        (status = 200, description = "A page of jobs; `next` is null on the last one", body = JobPage),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Parameters(part): Parameters<Part>,
) -> Result<Json<JobPage>, Problem> {
    Ok(Json(shared.host.jobs(part.after, part.limit.unwrap_or(PAGE)).await?))
}

/// Cancel a job
///
/// What runs it can record nothing any more. It comes back if its reason arises anew. A push is left as one that has failed.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", params(Number),
    responses(
        (status = 200, description = "The job as it was", body = Job),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(State(shared): State<Shared>, Named(id): Named) -> Result<Json<Job>, Problem> {
    let number = id.parse::<u64>();
    let number = number.map_err(|_| Error::invalid("a job is named by its number").hint("see /v1/jobs"))?;
    Ok(Json(shared.host.cancel_job(number).await?))
}
