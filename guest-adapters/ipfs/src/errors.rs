//! What refusals mean.
//!
//! Kubo answers nearly every failure with status 500 and `{"Message", "Code", "Type"}`: what it means stands in the
//! message alone. Statuses that a proxy before it gives (401, 403, 429, 507, …) mean what they mean everywhere.
//!
//! That a block was not found is `unavailable` and never `not-found`: a peer that has it may be away. Whether an object is
//! there is a question of pins, which the daemon knows for certain.

use serde_json::Value;
use tidelock_sdk::error::{printable, retry_after_ms};
use tidelock_sdk::http::Response;
use tidelock_sdk::{Error, clock};

/// The most bytes of a refusal that are read.
const MAX_REASON: usize = 4096;

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The RPC of a daemon.
    Rpc,
    /// A gateway.
    Gateway,
}

/// A reply that is a success, or what the refusal means.
pub async fn success(who: Who, response: Response) -> Result<Response, Error> {
    let status = response.status;
    if (200..300).contains(&status) {
        return Ok(response);
    }
    // Only a rate limit needs the time.
    let retry_after = match (status, response.header("retry-after")) {
        (429, Some(value)) => retry_after_ms(value, clock::now()),
        _ => None,
    };
    let body = response.body.read_at_most(MAX_REASON).await;
    Err(refusal(who, status, retry_after, &body))
}

/// What a refusal means.
pub fn refusal(who: Who, status: u16, retry_after_ms: Option<u64>, body: &[u8]) -> Error {
    let message = message(body);
    let said = message.clone().unwrap_or_else(|| printable(body));
    match (who, status) {
        (Who::Rpc, 500) if message.is_some() => meaning(said),
        // There is no such path: that says nothing about an object.
        (Who::Rpc, 404 | 405) => Error::other(
            ["HTTP status ", &status.to_string(), ": this is not the RPC of a Kubo daemon: ", &said].concat(),
        ),
        (Who::Gateway, 404) => Error::unavailable(["the gateway does not find it: ", &said].concat()),
        // Blocked by whoever runs the gateway.
        (Who::Gateway, 410 | 451) => Error::denied(said),
        (Who::Gateway, 300..400) => Error::other(
            "the gateway redirects elsewhere: in `gateway`, use an address or the host that it redirects to",
        ),
        _ => Error::from_http_status(status, retry_after_ms, said),
    }
}

/// The message of Kubo's JSON.
fn message(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.get("Message")?.as_str().map(|text| printable(text.as_bytes()))
}

/// What a message means.
fn meaning(message: String) -> Error {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["not pinned"]) {
        Error::not_found(message)
    } else if says(&["context deadline exceeded", "context canceled"]) {
        Error::unavailable(["not found in time, here or at any peer: ", &message].concat())
    } else if says(&["invalid path", "invalid cid", "illegal base", "invalid argument"]) {
        Error::invalid(message)
    } else {
        Error::unavailable(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubo(message: &str) -> Error {
        let body = serde_json::json!({ "Message": message, "Code": 0, "Type": "error" }).to_string();
        refusal(Who::Rpc, 500, None, body.as_bytes())
    }

    #[test]
    fn messages_of_kubo() {
        assert!(matches!(kubo("path 'bafy' is not pinned"), Error::NotFound(_)));
        assert!(matches!(kubo("not pinned or pinned indirectly"), Error::NotFound(_)));
        assert!(matches!(
            kubo("block was not found locally (offline): ipld: could not find bafk"),
            Error::Unavailable(_)
        ));
        assert!(
            matches!(kubo("Post \"x\": context deadline exceeded"), Error::Unavailable(why) if why.contains("any peer"))
        );
        assert!(matches!(kubo("invalid path \"x\": invalid cid: illegal base32 data"), Error::Invalid(_)));
        assert!(matches!(kubo("write /repo/x: no space left on device"), Error::Unavailable(_)));
    }

    #[test]
    fn statuses() {
        let of = |who, status, body: &[u8]| refusal(who, status, Some(5), body);
        assert!(matches!(of(Who::Rpc, 500, b"<html>"), Error::Unavailable(_)));
        assert!(matches!(of(Who::Rpc, 403, b"403 - Forbidden"), Error::Denied(why) if why.contains("Forbidden")));
        assert!(matches!(of(Who::Rpc, 404, b"404 page not found"), Error::Other(_)));
        assert!(matches!(of(Who::Rpc, 405, b""), Error::Other(_)));
        assert!(matches!(of(Who::Rpc, 429, b""), Error::RateLimited(limit) if limit.retry_after_ms == Some(5)));
        assert!(matches!(of(Who::Rpc, 507, b""), Error::InsufficientBalance(_)));
        assert!(matches!(of(Who::Rpc, 503, b""), Error::Unavailable(_)));
        assert!(matches!(of(Who::Gateway, 404, b""), Error::Unavailable(_)));
        assert!(matches!(of(Who::Gateway, 410, b""), Error::Denied(_)));
        assert!(matches!(of(Who::Gateway, 301, b""), Error::Other(_)));
        assert!(matches!(of(Who::Gateway, 504, b""), Error::Unavailable(_)));
        assert!(matches!(of(Who::Gateway, 500, b"{\"Message\":\"not pinned\"}"), Error::Unavailable(_)));
    }
}
