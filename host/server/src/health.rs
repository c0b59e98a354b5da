//! Liveness, readiness and metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::MEDIA_TYPE;
use super::problem::{Details, Problem};
use super::shared::Shared;
use tidelock::types::Error;

/// The state of the daemon.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `ready`.
    status: &'static str,
    /// The backends that could not be used when they were last seen, although each route has one that could.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unusable: Vec<String>,
}

/// Whether the daemon is running
///
/// Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "daemon", security(()),
    responses((status = 200, description = "The daemon is running", body = Health))
)]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", unusable: Vec::new() })
}

/// Whether the daemon accepts requests, all backends are open, and each route has one that could be used when it was last seen
///
/// Asks no backend. Needs no token, so it only names backends and routes; the reasons are in the log.
#[utoipa::path(
    get, path = "/readyz", tag = "daemon", security(()),
    responses(
        (status = 200, description = "The daemon is ready", body = Health),
        (status = 503, description = "The daemon is stopping, a backend is not open, or a route has none that can be used", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(shared): State<Shared>) -> Result<Json<Health>, Problem> {
    if shared.is_draining() {
        return Err(Error::unavailable("the daemon is stopping").into());
    }
    let host = &shared.host;
    if let Some(name) = host.backends().find(|name| !host.is_open(name)) {
        let error = Error::unavailable("the backend is not open").on_backend(name);
        return Err(error.hint("see the log for the reason").into());
    }
    if let Some(route) = host.routes_without_backend().first() {
        let error = Error::unavailable(format!("no backend of the route `{route}` can be used"));
        return Err(error.hint("see the log for the reason").into());
    }
    let unusable = host.backends().filter(|name| !host.is_usable(name)).map(str::to_owned).collect();
    Ok(Json(Health { status: "ready", unusable }))
}

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "daemon",
    responses((status = 200, description = "In the OpenMetrics text format", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.host.job_overview().await {
        Ok(overview) => shared.metrics.jobs(&overview, shared.host.job_counts()),
        // The others are worth having all the same.
        Err(error) => tracing::warn!(%error, "jobs cannot be counted"),
    }
    // One that cannot be looked at keeps its last numbers.
    let hot = shared.host.hot_stats().await.unwrap_or_default();
    ([(CONTENT_TYPE, MEDIA_TYPE)], shared.metrics.text(&shared.host.adapters(), hot))
}
