//! Parameters of requests beside the body, with errors as problem details.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;
use tidelock::types::Error;

/// The name of a snapshot or a backend in the path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let wrong = |rejection: PathRejection| Error::invalid(rejection.body_text());
        Ok(Self(path.map_err(wrong)?.0))
    }
}

/// The query. Unknown parameters are errors, like unknown keys of a configuration.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let wrong = |rejection: QueryRejection| Error::invalid(rejection.body_text());
        Ok(Self(query.map_err(wrong)?.0))
    }
}

/// A switch: `?raw`, `?raw=true` and `?raw=1` are on; `?raw=false` and `?raw=0` are off.
pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(D::Error::custom("write `true` or `false`")),
    }
}
