//! The built program as a user meets it: arguments, standard streams, exit statuses, and what it leaves on disk.
//!
//! One binary with a room for each matter, since each test binary links xtask anew and may start a server of its own.

mod components;
mod configuration;
mod deltas;
mod glacier;
mod import;
mod interop;
mod killed;
mod outages;
mod refusals;
mod s3;
mod snapshots;
mod trust;
