//! Parts of requests and answers that only the OpenAPI document describes: code reads them in another way.

use utoipa::{IntoParams, ToSchema};

/// Bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)]
pub(super) struct Binary(String);

/// Which snapshot.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct Id {
    /// A snapshot id, an unambiguous prefix of one, or the name of a snapshot.
    id: String,
}

/// Which backend.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct Name {
    /// A backend's name.
    name: String,
}

/// Headers of a request for a snapshot.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub(super) struct Conditions {
    /// The range: `bytes=A-B`, `bytes=A-` or `bytes=-N`.
    #[param(rename = "Range")]
    range: Option<String>,
    /// The entity tag required for a range; otherwise the whole snapshot is sent.
    #[param(rename = "If-Range")]
    if_range: Option<String>,
    /// Entity tags known to the client.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Headers of a component.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub(super) struct Signatures {
    /// A detached signature of the component; can be repeated.
    #[param(rename = "tidelock-signature")]
    signature: Option<String>,
}
