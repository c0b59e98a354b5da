//! The daemon: a host behind HTTP, on a Unix socket or on an address with a token.
//!
//! | module | contents |
//! | --- | --- |
//! | `listen` | sockets: their permissions, and stale ones |
//! | `server` | accepting, bounding and ending connections; graceful stop |
//! | `visitors` | who may hold a connection |
//! | `routes` | routing, authorization, and the OpenAPI document |
//! | `snapshots`, `download`, `adapters`, `jobs`, `health` | the requests |
//! | `described` | parts of requests that only the OpenAPI document describes |
//! | `upload` | request bodies: images, deltas and components |
//! | `lanes` | places for operations, with a share for each route and backend |
//! | `room` | how many bytes of uploads may be on their way |
//! | `extract` | parameters of a request beside its body |
//! | `problem` | failures as RFC 9457 problem details |
//! | `metrics` | metrics for Prometheus |
//! | `secrets` | files readable only by their owner and its group |
//!
//! Answers have the keys of the command line's `--json`, since both print the same types. `docs/http.md` is for users.
//!
//! Misbehaving clients: an upload that ends early, stalls or is aborted never becomes a snapshot, even without an
//! announced length; a failed download closes the connection and never ends as a short body; request heads and
//! connections are bounded, stalling clients are disconnected, and only the pieces in transit are kept in memory. An
//! operation runs in its own task: a client that disconnects does not leave one half done.
//!
//! It speaks HTTP/1.1 without TLS. Beyond one machine it belongs behind a proxy that adds it.

mod adapters;
mod described;
mod download;
mod extract;
mod health;
mod jobs;
mod lanes;
mod listen;
mod metrics;
mod problem;
mod room;
mod routes;
pub mod secrets;
mod server;
mod shared;
mod snapshots;
mod upload;
mod visitors;

pub use adapters::{AdapterHistory, SIGNATURE};
pub use routes::document;
pub use server::{Ended, Server};
