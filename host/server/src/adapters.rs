//! Which adapters serve, and replacing them.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Named;
use super::problem::{Details, Problem};
use super::shared::Shared;
use super::upload;
use tidelock::runtime::{Component, HistoryEntry, MAX_SIGNATURES, Signature, SwapOptions, SwapReport};
use tidelock::types::{Error, Result};
use tidelock::{AdapterInfo, Host};

/// The header with a detached signature. Can be repeated.
pub const SIGNATURE: &str = "tidelock-signature";

/// Origin of swaps, in the history.
const HTTP: &str = "http";

/// The backends that are open.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Adapters {
    /// Sorted by the name of the backend.
    adapters: Vec<AdapterInfo>,
}

/// The swap log of a backend.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterHistory {
    /// The backend.
    pub backend: String,
    /// Newest first.
    pub history: Vec<HistoryEntry>,
}

/// List the backends and their adapters
///
/// A backend that failed to open is missing here; `/readyz` names it.
#[utoipa::path(
    get, path = "/v1/adapters", tag = "adapters",
    responses(
        (status = 200, description = "The open backends", body = Adapters),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(shared): State<Shared>) -> Json<Adapters> {
    Json(Adapters { adapters: shared.host.adapters() })
}

/// Swap an adapter
///
/// Operations in progress end on the old generation. A component that fails a stage never serves, and the response
/// names the stage. Signatures are sent in `tidelock-signature` headers, one each.
#[utoipa::path(
    put, path = "/v1/adapters/{name}", tag = "adapters", params(super::described::Name, super::described::Signatures),
    request_body(content = inline(super::described::Binary), content_type = "application/wasm", description = "The component, at most 256 MiB"),
    responses(
        (status = 200, description = "The new generation serves", body = SwapReport),
        (status = "default", description = "The old generation keeps serving", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn swap(
    State(shared): State<Shared>,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SwapReport>, Problem> {
    // Before 256 MiB are read for nothing.
    shared.host.history(&name)?;
    let signatures = signatures(&headers)?;
    let staged = upload::component(&shared, &headers, body).await?;
    let change = |host: Host, backend: String, options| async move {
        let bytes = staged.read().await?;
        host.swap_with(&backend, Component { bytes, signatures }, options).await
    };
    changed(&shared, name, "swap", change).await
}

/// Return to the previous adapter
#[utoipa::path(
    post, path = "/v1/adapters/{name}/rollback", tag = "adapters", params(super::described::Name),
    responses(
        (status = 200, description = "The new generation serves", body = SwapReport),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(State(shared): State<Shared>, Named(name): Named) -> Result<Json<SwapReport>, Problem> {
    shared.host.history(&name)?;
    let change = |host: Host, backend: String, options| async move { host.rollback_with(&backend, options).await };
    changed(&shared, name, "rollback", change).await
}

/// The swap log of a backend
#[utoipa::path(
    get, path = "/v1/adapters/{name}/history", tag = "adapters", params(super::described::Name),
    responses(
        (status = 200, description = "Newest first", body = AdapterHistory),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn history(State(shared): State<Shared>, Named(name): Named) -> Result<Json<AdapterHistory>, Problem> {
    // The history before the start is only known once the backend is open.
    shared.host.open_backend(&name).await?;
    let history = shared.host.history(&name)?;
    Ok(Json(AdapterHistory { backend: name, history }))
}

/// Runs a swap or rollback of a backend, and counts it.
async fn changed<F>(
    shared: &Shared,
    backend: String,
    event: &'static str,
    change: impl FnOnce(Host, String, SwapOptions) -> F,
) -> Result<Json<SwapReport>, Problem>
where
    F: Future<Output = Result<SwapReport>> + Send + 'static,
{
    let change = change(shared.host.clone(), backend.clone(), told(&backend));
    let turn = shared.turn(&backend);
    // Whoever waits has done nothing yet, and goes with the client. One change of each backend runs: that is their bound, so
    // that operations of backends which do not answer cannot hold off the change that would help.
    let turn = turn.lock_owned().await;
    let work = async move {
        let _turn = turn;
        change.await
    };
    let outcome = shared.run_change(event, work).await;
    shared.metrics.swapped(&backend, event, outcome.as_ref().err());
    Ok(Json(outcome?))
}

fn told(backend: &str) -> SwapOptions {
    let backend = backend.to_owned();
    let on_stage = Arc::new(move |stage| tracing::info!(backend, %stage, "swap"));
    SwapOptions { by: HTTP.to_owned(), on_stage: Some(on_stage), ..SwapOptions::default() }
}

fn signatures(headers: &HeaderMap) -> Result<Vec<Signature>> {
    let given = headers.get_all(SIGNATURE);
    if given.iter().count() > MAX_SIGNATURES {
        return Err(Error::invalid(format!("more than {MAX_SIGNATURES} headers `{SIGNATURE}`")));
    }
    let wrong = || Error::invalid(format!("a header `{SIGNATURE}` is not a signature"));
    let parse = |text: &str| text.trim().parse::<Signature>().map_err(|error| wrong().hint(error.to_string()));
    given.iter().map(|value| value.to_str().map_err(|_| wrong()).and_then(parse)).collect()
}
