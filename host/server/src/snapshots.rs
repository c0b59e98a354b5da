//! Storing, changing, describing, listing and removing snapshots.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Named, Parameters, switch};
use super::lanes::{Begun, Lane};
use super::problem::{Details, Problem};
use super::room::Share;
use super::shared::Shared;
use super::upload;
use tidelock::catalogue::SnapshotPage;
use tidelock::types::Error;
use tidelock::{Host, Removed, SnapshotStat, StoreBase, StoreOptions, Stored};

/// Default number of snapshots in a response.
const PAGE: usize = 1000;

/// Options of a store.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct StoreHow {
    /// What the image is stored as a change of: `auto`, for what is found where the route's encoding is `pages` and is taken if that
    /// pays; `none`; or a snapshot, as an update. Default: `none`.
    base: Option<String>,
    /// The route, which selects the backends. Default: `default`.
    route: Option<String>,
    /// A name, usable in place of the id. A snapshot can have several; one that another snapshot has is taken from it.
    name: Option<String>,
    /// Store the bytes unchanged, so that other programs can use the object.
    #[serde(deserialize_with = "switch")]
    raw: bool,
    /// Store an image of no bytes that comes without a Content-Length, instead of refusing it.
    #[serde(rename = "allow-empty", deserialize_with = "switch")]
    #[param(rename = "allow-empty")]
    allow_empty: bool,
}

/// Options of an update.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// The route, which selects the backends. Default: `default`.
    route: Option<String>,
    /// A name, usable in place of the id. A snapshot can have several; one that another snapshot has is taken from it.
    name: Option<String>,
    /// Store the bytes unchanged, so that other programs can use the object.
    #[serde(deserialize_with = "switch")]
    raw: bool,
    /// Store an image of no bytes that comes without a Content-Length, instead of refusing it.
    #[serde(rename = "allow-empty", deserialize_with = "switch")]
    #[param(rename = "allow-empty")]
    allow_empty: bool,
}

impl How {
    fn options(self, begun: Begun) -> StoreOptions {
        let Self { route, name, raw, .. } = self;
        StoreOptions { route, name, raw, begun: Some(begun), ..StoreOptions::default() }
    }
}

/// Options of an apply.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyHow {
    /// The format of the delta. Default: `zstd`.
    #[param(inline)]
    format: Format,
    /// The route, which selects the backends. Default: `default`.
    route: Option<String>,
    /// A name, usable in place of the id. A snapshot can have several; one that another snapshot has is taken from it.
    name: Option<String>,
    /// Store the bytes unchanged, so that other programs can use the object.
    #[serde(deserialize_with = "switch")]
    raw: bool,
}

/// The format of a delta.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// Output of `zstd --patch-from=BASE`.
    #[default]
    Zstd,
    /// A file with holes. HTTP does not preserve holes: fails with `unsupported`.
    Sparse,
}

/// A page of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Begin after the page that returned this as `next`.
    after: Option<u64>,
    /// Maximum number of snapshots, up to 10,000. Default: 1,000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// Store an image
///
/// Nothing becomes visible until the whole body is durable; an incomplete body leaves nothing.
#[utoipa::path(
    put, path = "/v1/snapshots", tag = "snapshots", params(StoreHow),
    request_body(content = inline(super::described::Binary), content_type = "application/octet-stream", description = "The image"),
    responses(
        (status = 201, description = "Stored", body = Stored),
        (status = 200, description = "The snapshot existed already; nothing was stored", body = Stored),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn store(
    State(shared): State<Shared>,
    Parameters(how): Parameters<StoreHow>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let StoreHow { base, route, name, raw, allow_empty } = how;
    let (image, share) = upload::image(&shared, &headers, body, allow_empty)?;
    let host = shared.host.clone();
    let (lane, begun) = (Lane::route(route.as_deref()), Begun::default());
    let options = How { route, name, raw, allow_empty }.options(begun.clone());
    let work = async move {
        let base = match base.as_deref() {
            None | Some("none") => StoreBase::None,
            Some("auto") => StoreBase::Auto,
            Some(base) => StoreBase::Snapshot(host.find(base).await?),
        };
        host.store(image, StoreOptions { base: Some(base), ..options }).await
    };
    answer(shared.run("store", lane, Some(begun), work).await, &share)
}

/// Store a changed image
///
/// The body is the whole new image. Only what has changed is stored, where the backend allows it.
#[utoipa::path(
    post, path = "/v1/snapshots/{id}/update", tag = "snapshots", params(super::described::Id, How),
    request_body(content = inline(super::described::Binary), content_type = "application/octet-stream", description = "The new image"),
    responses(
        (status = 201, description = "Stored", body = Stored),
        (status = 200, description = "The snapshot existed already; nothing was stored", body = Stored),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn update(
    State(shared): State<Shared>,
    Named(base): Named,
    Parameters(how): Parameters<How>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let (image, share) = upload::image(&shared, &headers, body, how.allow_empty)?;
    let host = shared.host.clone();
    let (lane, begun) = (Lane::route(how.route.as_deref()), Begun::default());
    let options = how.options(begun.clone());
    let work = async move {
        let base = host.find(&base).await?;
        host.update(base, image, options).await
    };
    answer(shared.run("update", lane, Some(begun), work).await, &share)
}

/// Apply a delta to a snapshot
#[utoipa::path(
    post, path = "/v1/snapshots/{id}/apply", tag = "snapshots", params(super::described::Id, ApplyHow),
    request_body(content = inline(super::described::Binary), content_type = "application/octet-stream", description = "The delta"),
    responses(
        (status = 201, description = "Stored", body = Stored),
        (status = 200, description = "The snapshot existed already; nothing was stored", body = Stored),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn apply(
    State(shared): State<Shared>,
    Named(base): Named,
    Parameters(how): Parameters<ApplyHow>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    if matches!(how.format, Format::Sparse) {
        let error = Error::unsupported("a sparse delta cannot be sent over HTTP, which has no holes");
        return Err(error.hint("send a delta of `zstd --patch-from`, or the whole image to `update`").into());
    }
    let (delta, share) = upload::delta(&shared, &headers, body)?;
    let host = shared.host.clone();
    let (lane, begun) = (Lane::route(how.route.as_deref()), Begun::default());
    let options = How { route: how.route, name: how.name, raw: how.raw, allow_empty: false }.options(begun.clone());
    let staged = share.clone();
    let work = async move {
        let base = host.find(&base).await?;
        // The copy of the base, the memory of the window and the new image are what the client makes them: they count too.
        let room = Arc::new(move |bytes| match staged.take(bytes) {
            true => Ok(()),
            false => Err(Error::unavailable("there is no room for the images of a delta")),
        });
        host.apply_within(base, delta, options, room).await
    };
    answer(shared.run("apply", lane, Some(begun), work).await, &share)
}

/// The answer to an upload. One for which there was no room has failed because of that, whatever it says.
fn answer(stored: Result<Stored, Error>, share: &Share) -> Result<impl IntoResponse + use<>, Problem> {
    match stored {
        Ok(stored) => Ok(created(stored)),
        Err(error) => Err(share.refusal().unwrap_or_else(|| error.into())),
    }
}

fn created(stored: Stored) -> impl IntoResponse + use<> {
    let status = if stored.stored_bytes == 0 && stored.size > 0 { StatusCode::OK } else { StatusCode::CREATED };
    (status, [(LOCATION, format!("/v1/snapshots/{}", stored.id))], Json(stored))
}

/// List snapshots
///
/// In the order of their first store.
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "snapshots", params(Part),
    responses(
        (status = 200, description = "A page of snapshots; `next` is null on the last one", body = SnapshotPage),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Parameters(part): Parameters<Part>,
) -> Result<Json<SnapshotPage>, Problem> {
    Ok(Json(shared.host.list(part.after, part.limit.unwrap_or(PAGE)).await?))
}

/// Describe a snapshot
///
/// Answered from the catalogue, without access to a backend.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}/stat", tag = "snapshots", params(super::described::Id),
    responses(
        (status = 200, description = "The snapshot and its placements", body = SnapshotStat),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stat(State(shared): State<Shared>, Named(id): Named) -> Result<Json<SnapshotStat>, Problem> {
    let id = shared.host.find(&id).await?;
    Ok(Json(shared.host.stat(id).await?))
}

/// Options of a removal.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RemovalHow {
    /// Remove the snapshot with all of its names.
    #[serde(deserialize_with = "switch")]
    all_names: bool,
}

/// Remove a name, or a snapshot from every backend
///
/// A name alone is removed, and the snapshot with its last name, unless it was also stored without one. The id of a snapshot
/// with several names is refused with `conflict` unless `all_names` is set.
#[utoipa::path(
    delete, path = "/v1/snapshots/{id}", tag = "snapshots", params(super::described::Id, RemovalHow),
    responses(
        (status = 200, description = "The name or the snapshot was removed", body = Removed),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn remove(
    State(shared): State<Shared>,
    Named(id): Named,
    Parameters(how): Parameters<RemovalHow>,
) -> Result<Json<Removed>, Problem> {
    let host = shared.host.clone();
    let lane = Lane::backends(backends_of(&host, &id).await);
    let work = async move { host.remove_by(&id, how.all_names).await };
    Ok(Json(shared.run("remove", lane, None, work).await?))
}

/// The backends that hold a snapshot. What fails here fails in the operation too.
async fn backends_of(host: &Host, id: &str) -> Vec<String> {
    let Ok(id) = host.find(id).await else { return Vec::new() };
    host.backends_of(id).await.unwrap_or_default()
}
