//! Talking to a running daemon: over its Unix socket or its address.
//!
//! Answers are passed on unchanged, so that `--json` prints the daemon's answer; problem details become the original
//! errors again, with their hints and exit statuses.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value;

use super::arguments::Remote;
use super::failure::Failure;
use tidelock::capabilities::tls;
use tidelock::runtime::Component;
use tidelock::types::{Error, ErrorKind};
use tidelock_server::SIGNATURE;
use tidelock_server::secrets::read_token;

/// How long connecting may take. A swap itself may take as long as compiling, a canary and a drain take.
const CONNECT: Duration = Duration::from_secs(10);

/// The most bytes of an answer.
const LARGEST: usize = 16 << 20;

/// A running daemon.
pub(super) struct Daemon {
    client: reqwest::Client,
    base: Url,
    token: Option<String>,
    shown: String,
}

impl Daemon {
    /// The daemon that was named, if one was.
    pub(super) fn of(remote: &Remote) -> Result<Option<Self>, Failure> {
        let Some(server) = &remote.server else { return Ok(None) };
        let token = remote.token_file.as_deref().map(read_token).transpose()?;
        let hint = "write unix:PATH, http://ADDRESS:PORT or https://NAME";
        let wrong = |why: &str| Failure::usage(format!("--server {server} {why}"), hint);
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none()).no_proxy();
        let (base, builder) = match server.strip_prefix("unix:") {
            Some("") => return Err(wrong("lacks the path of the socket")),
            // The name is not looked up: the socket is the server.
            Some(path) => ("http://tidelock/".to_owned(), builder.unix_socket(Path::new(path))),
            None => (server.clone(), builder),
        };
        let base = Url::parse(&base).map_err(|_| wrong("is not a daemon address"))?;
        let roots = match base.scheme() {
            "https" => tls::client_config(None)?,
            "http" if base.has_host() => tls::trusting_nobody()?,
            _ => return Err(wrong("is not a daemon address")),
        };
        let client = builder.tls_backend_preconfigured(roots).build();
        let client = client.map_err(|error| Error::other(format!("cannot set up HTTP: {error}")))?;
        let token = token.map(|token| token.as_str().to_owned());
        Ok(Some(Self { client, base, token, shown: server.clone() }))
    }

    /// Returns the answer to `GET`.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Returns the answer to `POST`.
    pub(super) async fn post(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(Method::POST, path, None).await
    }

    /// Returns the answer to a component.
    pub(super) async fn put(&self, path: &[&str], component: Component) -> Result<Value, Failure> {
        self.send(Method::PUT, path, Some(component)).await
    }

    async fn send(&self, method: Method, path: &[&str], component: Option<Component>) -> Result<Value, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(component) = component {
            for signature in &component.signatures {
                request = request.header(SIGNATURE, signature.to_string());
            }
            request = request.header("content-type", "application/wasm").body(component.bytes);
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(self.strange("answers with too many bytes").into());
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match answer {
            Some(answer) if status.is_success() && answer.is_object() => Ok(answer),
            Some(problem) if problem["kind"].is_string() => Err(failed(&problem).into()),
            _ => Err(self.strange(&format!("answers {status}, unlike a tidelock daemon")).into()),
        }
    }

    fn strange(&self, why: &str) -> Error {
        Error::other(format!("{} {why}", self.shown)).hint("check which program listens there")
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let what = format!("no answer from {}: {cause}", self.shown);
        Error::unavailable(what).hint("check that `tidelock serve` is running there")
    }
}

/// Returns the error of problem details.
fn failed(problem: &Value) -> Error {
    let text = |key: &str| problem[key].as_str();
    let kind = ErrorKind::from_name(text("kind").unwrap_or_default());
    let message = text("detail").unwrap_or("the daemon gave no reason");
    let error = Error::new(
        kind,
        match text("operation") {
            Some(operation) => format!("{operation}: {message}"),
            None => message.to_owned(),
        },
    );
    let error = match text("backend") {
        Some(backend) => error.on_backend(backend),
        None => error,
    };
    match text("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(server: &str) -> Result<Option<Daemon>, Failure> {
        Daemon::of(&Remote { server: Some(server.into()), token_file: None })
    }

    #[test]
    fn addresses_are_checked() {
        for server in ["unix:a.sock", "http://127.0.0.1:1", "http://[::1]:1/below/"] {
            assert!(daemon(server).unwrap().is_some(), "{server}");
        }
        for server in ["unix:", "a.sock", "127.0.0.1:1", "ftp://x", ""] {
            assert_eq!(daemon(server).err().unwrap().status(), 2, "{server}");
        }
        assert!(Daemon::of(&Remote { server: None, token_file: None }).unwrap().is_none());
    }

    #[test]
    fn a_problem_becomes_the_error_that_it_was() {
        let problem = serde_json::json!({
            "kind": "denied", "detail": "no signature", "backend": "cloud", "operation": "verify", "hint": "sign it"
        });
        let failure = Failure::from(failed(&problem));
        assert_eq!(failure.status(), 1);
        assert_eq!(failure.text().unwrap(), "error: backend `cloud`: verify: no signature\nhint: sign it\n");
        assert_eq!(Failure::from(failed(&serde_json::json!({"kind": "invalid", "detail": "x"}))).status(), 2);
    }
}
