//! The mapping of failed replies to errors.
//!
//! Kubo answers nearly every failure with status 500 and `{"Message", "Code", "Type"}`, of which only the message tells
//! the failures apart. Other statuses (401, 403, 429, 507, …) come from a proxy and have their usual meaning.
//!
//! A block that is not found is `unavailable`, never `not-found`: a peer that has it may be offline. Whether an object
//! exists depends on its pin, which the daemon knows for certain.

use serde_json::Value;
use tidelock_sdk::error::{printable, retry_after_ms};
use tidelock_sdk::http::Response;
use tidelock_sdk::{Error, clock};

/// The most bytes of a failed reply that are read.
const MAX_REASON: usize = 4096;

/// The service that replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The RPC of a daemon.
    Rpc,
    /// A gateway.
    Gateway,
}

/// Returns a successful reply. Fails with the error that another reply means.
pub async fn success(service: Service, response: Response) -> Result<Response, Error> {
    let status = response.status;
    if (200..300).contains(&status) {
        return Ok(response);
    }
    // Only a rate limit needs the time.
    let retry_after = match (status, response.header("retry-after")) {
        (429 | 503, Some(value)) => retry_after_ms(value, clock::now()),
        _ => None,
    };
    let body = response.body.read_at_most(MAX_REASON).await;
    Err(refusal(service, status, retry_after, &body))
}

/// Returns the error that a failed reply means.
pub fn refusal(service: Service, status: u16, retry_after_ms: Option<u64>, body: &[u8]) -> Error {
    let message = message(body);
    let said = message.clone().unwrap_or_else(|| printable(body));
    match (service, status) {
        (Service::Rpc, 500) if message.is_some() => meaning(said),
        // The path is unknown, which does not mean that the object is.
        (Service::Rpc, 404 | 405) => Error::other(
            ["HTTP status ", &status.to_string(), ": this is not the RPC of a Kubo daemon: ", &said].concat(),
        ),
        (Service::Gateway, 404) => {
            Error::unavailable(["the gateway did not find it (HTTP status 404): ", &said].concat())
        }
        // Blocked by the operator of the gateway.
        (Service::Gateway, 410 | 451) => Error::denied(["HTTP status ", &status.to_string(), ": ", &said].concat()),
        (Service::Gateway, 300..400) => Error::other(
            "the gateway redirects (a status of 3xx): set `gateway` to the host that it redirects to, or to an address",
        ),
        _ => Error::from_http_status(status, retry_after_ms, said),
    }
}

/// Returns the message in Kubo's JSON.
fn message(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.get("Message")?.as_str().map(|text| printable(text.as_bytes()))
}

/// Returns the error that a message of Kubo means.
fn meaning(message: String) -> Error {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["not pinned"]) {
        Error::not_found(message)
    } else if says(&["context deadline exceeded", "context canceled"]) {
        Error::unavailable(["not found in time, neither at the daemon nor at a peer: ", &message].concat())
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
        refusal(Service::Rpc, 500, None, body.as_bytes())
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
            matches!(kubo("Post \"x\": context deadline exceeded"), Error::Unavailable(why) if why.contains("at a peer"))
        );
        assert!(matches!(kubo("invalid path \"x\": invalid cid: illegal base32 data"), Error::Invalid(_)));
        assert!(matches!(kubo("write /repo/x: no space left on device"), Error::Unavailable(_)));
    }

    #[test]
    fn statuses() {
        let of = |service, status, body: &[u8]| refusal(service, status, Some(5), body);
        assert!(matches!(of(Service::Rpc, 500, b"<html>"), Error::Unavailable(_)));
        assert!(matches!(of(Service::Rpc, 403, b"403 - Forbidden"), Error::Denied(why) if why.contains("Forbidden")));
        assert!(matches!(of(Service::Rpc, 404, b"404 page not found"), Error::Other(_)));
        assert!(matches!(of(Service::Rpc, 405, b""), Error::Other(_)));
        assert!(matches!(of(Service::Rpc, 429, b""), Error::RateLimited(limit) if limit.retry_after_ms == Some(5)));
        assert!(matches!(of(Service::Rpc, 507, b""), Error::InsufficientBalance(_)));
        assert!(matches!(of(Service::Rpc, 503, b""), Error::RateLimited(_)));
        assert!(matches!(refusal(Service::Rpc, 503, None, b""), Error::Unavailable(_)));
        // The page of a proxy does not say which status it has.
        for (service, status) in
            [(Service::Rpc, 502), (Service::Rpc, 413), (Service::Gateway, 404), (Service::Gateway, 451)]
        {
            let told = format!("{:?}", of(service, status, b"<html>oops</html>"));
            assert!(told.contains(&status.to_string()) && told.contains("oops"), "{told}");
        }
        assert!(matches!(of(Service::Gateway, 404, b""), Error::Unavailable(_)));
        assert!(matches!(of(Service::Gateway, 410, b""), Error::Denied(_)));
        assert!(matches!(of(Service::Gateway, 301, b""), Error::Other(_)));
        assert!(matches!(of(Service::Gateway, 504, b""), Error::Unavailable(_)));
        assert!(matches!(of(Service::Gateway, 500, b"{\"Message\":\"not pinned\"}"), Error::Unavailable(_)));
    }
}
