//! Accepting, bounding and ending connections; graceful stop.
//!
//! A stop: the socket is closed (so that a successor can take it at once), connections made by then are the last, and
//! `/readyz` returns 503 → idle connections are closed, the others after their request → operations whose client has
//! disconnected end too → what remains at the deadline, or at a second signal, is aborted.
//!
//! An abort fails both sides: a download ends with a closed connection, an upload with an error of its body, since hyper
//! ends the body of a dropped connection with an error, never with an end.

use std::time::Duration;

use axum::Extension;
use futures::future::join_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listen::{Listener, Stream};
use super::routes;
use super::secrets::{Token, read_token};
use super::shared::Shared;
use super::visitors::{Places, Visitor};
use tidelock::Host;
use tidelock::config;
use tidelock::types::Result;

/// hyper's buffer per connection and direction, and so the maximum size of a request head.
const BUFFER: usize = 256 << 10;

/// Header fields of one request.
const HEADERS: usize = 64;

/// How long accepting pauses when the system has no more descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// How often backends that could not be opened are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long operations have to end after their connections were cut.
const CONCLUDE: Duration = Duration::from_secs(2);

/// A daemon that listens and does not answer yet.
pub struct Server {
    listener: Listener,
    address: String,
    shared: Shared,
    connections: usize,
    drain: Duration,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were aborted during a request, at the deadline or at a second signal.
    pub cut: usize,
}

impl Server {
    /// Listens. Connections wait until [`Self::run`].
    ///
    /// # Errors
    /// `conflict` if another process listens there; `invalid` for an invalid token; errors of the system.
    pub async fn bind(host: Host, service: &config::Service) -> Result<Self> {
        service.check()?;
        let token = service.token_file.as_deref().map(read_token).transpose()?;
        let (listener, address) = Listener::open(&service.listen).await?;
        Ok(Self {
            listener,
            address,
            shared: Shared::new(host, token.map(|token| Token::new(&token)), service),
            connections: service.connections as usize,
            drain: service.drain,
        })
    }

    /// Where it listens: `unix:/path`, or `http://address:port` with the port that was found.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Serves until `stop`, then lets requests in progress end until the deadline, or until `cut`.
    pub async fn run(self, stop: impl Future<Output = ()>, cut: impl Future<Output = ()>) -> Ended {
        let Self { listener, shared, connections, drain, .. } = self;
        let (stopping, cutting) = (CancellationToken::new(), CancellationToken::new());
        let clients = Clients {
            shared: shared.clone(),
            router: routes::router(shared.clone()),
            places: Places::new(connections, shared.idle),
            open: TaskTracker::new(),
            stopping: stopping.clone(),
            cutting: cutting.clone(),
        };
        let opening = tokio::spawn(keep_looking(shared.host.clone()));
        let host = shared.host.clone();
        // Jobs that are cut by a stop are due again.
        let working = tokio::spawn(async move { host.run_in_background().await });
        tokio::select! {
            biased;
            () = stop => {}
            () = clients.accept(&listener) => {}
        }
        opening.abort();
        working.abort();
        shared.drain();
        stopping.cancel();
        for stream in listener.close() {
            clients.serve(stream, clients.places.last());
        }
        clients.open.close();
        shared.operations.close();
        let ended = async {
            clients.open.wait().await;
            shared.operations.wait().await;
        };
        tokio::select! {
            biased;
            () = ended => return Ended { cut: 0 },
            () = cut => tracing::warn!("second signal: aborting operations in progress"),
            () = tokio::time::sleep(drain) => tracing::warn!(?drain, "the drain deadline has passed"),
        }
        let cut = clients.open.len();
        cutting.cancel();
        clients.open.wait().await;
        // Uploads fail now; give them time to clean up.
        let _ = tokio::time::timeout(CONCLUDE, shared.operations.wait()).await;
        Ended { cut: cut.max(usize::from(!shared.operations.is_empty())) }
    }
}

/// Looks at each backend once, and from then on at those that are not open or could not be used when they were last seen, so that
/// the daemon becomes ready without a request that needs them.
async fn keep_looking(host: Host) {
    let look = async |name: &str| {
        let before = host.is_usable(name);
        match host.look_at_backend(name).await {
            Ok(()) if !before => tracing::info!(backend = name, "it can be used now"),
            Ok(()) => {}
            Err(error) if before => tracing::warn!(backend = name, hint = error.advice(), "it cannot be used: {error}"),
            Err(error) => tracing::debug!(backend = name, %error, "it still cannot be used"),
        }
    };
    join_all(host.backends().map(look)).await;
    loop {
        tokio::time::sleep(AGAIN).await;
        join_all(host.backends().filter(|name| !host.is_usable(name)).map(look)).await;
    }
}

struct Clients {
    shared: Shared,
    router: axum::Router,
    places: Places,
    open: TaskTracker,
    stopping: CancellationToken,
    cutting: CancellationToken,
}

impl Clients {
    /// Takes clients for ever. Without a token each waits for a place before it is accepted; with one, they get theirs when
    /// they have shown it.
    async fn accept(&self, listener: &Listener) {
        let all_known = self.shared.token.is_none();
        loop {
            let known = match all_known {
                true => self.places.known().await,
                false => None,
            };
            match listener.accept().await {
                Ok((stream, origin)) => {
                    self.serve(stream, known.unwrap_or_else(|| self.places.stranger(origin)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn serve(&self, stream: Stream, visitor: Visitor) {
        let (shared, cutting) = (self.shared.clone(), self.cutting.clone());
        let router = self.router.clone().layer(Extension(visitor.clone()));
        let (speaker, idle, stopping) = (visitor.clone(), shared.idle, self.stopping.clone());
        let serving = async move {
            if speaker.came_as_stranger() {
                let spoken = tokio::select! {
                    biased;
                    spoken = stream.has_spoken() => spoken,
                    () = stopping.cancelled() => false,
                };
                if !spoken {
                    return;
                }
                speaker.speaks();
            }
            serve(stream, router, idle, stopping).await;
        };
        self.open.spawn(async move {
            let connections = shared.metrics.connections.clone();
            connections.inc();
            tokio::select! {
                () = serving => {}
                () = cutting.cancelled() => {}
                () = visitor.must_leave() => tracing::debug!("a connection without the token was closed"),
            }
            connections.dec();
        });
    }
}

/// One connection, to its end.
async fn serve(stream: Stream, router: axum::Router, idle: Duration, stopping: CancellationToken) {
    let mut stream = TimeoutStream::new(stream);
    // A client that does not read its response. Reading its request is bounded in `upload`.
    stream.set_write_timeout(Some(idle));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        // First, so that a request that is there already is begun before it is heard that no further one will be.
        biased;
        outcome = connection.as_mut() => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}
