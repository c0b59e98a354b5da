//! Routing, authorization, and the OpenAPI document.
//!
//! A route and its entry in the OpenAPI document come from one macro, so that neither can be without the other.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::shared::Shared;
use super::visitors::Visitor;
use super::{adapters, download, health, jobs, snapshots};
use tidelock::types::Error;

/// Paths without a token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(about())
        .routes(routes!(snapshots::store, snapshots::list))
        .routes(routes!(download::get, download::head, snapshots::remove))
        .routes(routes!(snapshots::stat))
        .routes(routes!(snapshots::update))
        .routes(routes!(snapshots::apply))
        .routes(routes!(adapters::list))
        .routes(routes!(adapters::swap))
        .routes(routes!(adapters::rollback))
        .routes(routes!(adapters::history))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::cancel))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi))
}

fn about() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Tidelock")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Stores the snapshots of virtual machines and agents through sandboxed adapters."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The content of the configured `token_file`. A Unix socket without one needs none."))
        .build();
    let mut components = Components::new();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]))
        .build()
}

/// Returns the OpenAPI document of the daemon as JSON, as `/openapi.json` does.
pub fn document() -> String {
    let mut text = documented().into_openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "daemon",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document())
}

/// Everything that the daemon answers.
pub(super) fn router(shared: Shared) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(shared.clone(), admit))
        .with_state(shared)
}

async fn unknown(uri: Uri) -> Problem {
    Error::not_found(format!("no such path: {}", uri.path())).hint("see /openapi.json for the paths").into()
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let error = Error::unsupported(format!("{method} is not supported at {}", uri.path()));
    Problem::from(error.hint("see /openapi.json for the methods")).status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Lets requests with the token through, and counts and logs their outcomes.
async fn admit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = if may(&shared, &path, request.headers()) {
        // Paths that are open to everybody do not make a client known.
        let visitor = request.extensions().get::<Visitor>().filter(|_| !OPEN.contains(&&*path)).cloned();
        let known = match visitor {
            Some(visitor) => visitor.introduce().await,
            None => Ok(()),
        };
        match known {
            Ok(()) => next.run(request).await,
            Err(error) => {
                let mut refused = Problem::from(error).into_response();
                // It has no place, and must not stay.
                refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                refused
            }
        }
    } else {
        let error = Error::denied("the token is missing or wrong").hint("send `Authorization: Bearer TOKEN`");
        let problem = Problem::from(error).status(StatusCode::UNAUTHORIZED);
        problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidelock\"")).into_response()
    };
    let status = response.status().as_u16();
    shared.metrics.responded(status);
    tracing::debug!(%method, path, status, "request");
    response
}

fn may(shared: &Shared, path: &str, headers: &HeaderMap) -> bool {
    let Some(token) = &shared.token else { return true };
    if OPEN.contains(&path) {
        return true;
    }
    let given = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    match given.split_at_checked("bearer ".len()) {
        Some((scheme, given)) => scheme.eq_ignore_ascii_case(b"bearer ") && token.is(given.trim_ascii()),
        None => false,
    }
}
