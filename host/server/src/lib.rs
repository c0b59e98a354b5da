//! The daemon: a host behind HTTP, on a Unix socket or on an address with a token.
//!
//! | room | holds |
//! | --- | --- |
//! | `listen` | sockets: who may open them, and what becomes of a stale one |
//! | `server` | accepting, bounding and ending connections; stopping without breaking what is under way |
//! | `routes` | which request goes where, who may make it, and the OpenAPI document of all that |
//! | `snapshots`, `download`, `adapters`, `health` | the requests |
//! | `upload` | bodies that come in, as images, deltas and components |
//! | `extract` | what a request says beside its body |
//! | `problem` | failures as RFC 9457 problem details |
//! | `metrics` | what Prometheus reads |
//! | `secrets` | files that only their owner may read |
//!
//! Answers have the keys of the command line's `--json`, since both print the same types. `docs/http.md` is for users.
//!
//! What holds for clients that misbehave: an upload that breaks off, stalls or is cut never becomes a snapshot, also where
//! its length was not announced; a download that fails ends in a broken connection, never in a short body; heads of
//! requests are bounded, connections are counted, whoever stalls is cut, and nothing is kept in memory beyond the pieces
//! that are on their way. An operation runs in a task of its own: a client that goes away does not leave one half done.
//!
//! It speaks HTTP/1.1 without TLS. Beyond one machine it belongs behind a proxy that adds it.

mod adapters;
mod download;
mod extract;
mod health;
mod listen;
mod metrics;
mod problem;
mod routes;
pub mod secrets;
mod server;
mod shared;
mod snapshots;
mod upload;

pub use adapters::{AdapterHistory, SIGNATURE};
pub use routes::document;
pub use server::{Ended, Server};
