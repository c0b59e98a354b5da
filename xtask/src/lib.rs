//! The tasks of this repository, as a library: the binary `cargo xtask` and plain `cargo test` go through the same code.
//!
//! What a task needs it sets up itself, once, in a cache directory ([`cache`]), and says so on stderr: a WebAssembly
//! target for rustc ([`wasm`]), the guests ([`guests`], [`languages`]), the host ([`host`]), servers of real backends ([`backends`]).
//! Tests call [`guests::ensure`], [`languages::ensure`], [`host::binary`], [`backends::Seaweed::start`] and [`skip::skip`].
//!
//! Processes are run with `std::process`, not a shell: a path with a space in it is a path. This crate may read the
//! environment; the product's library may not.

pub mod apt;
pub mod backends;
pub mod bench;
pub mod cache;
pub mod checks;
pub mod conformance;
pub mod debian;
pub mod demo;
pub mod fuzz;
pub mod guests;
pub mod host;
pub mod image;
pub mod languages;
pub mod metadata;
pub mod progress;
pub mod run;
pub mod skip;
pub mod suite;
pub mod tally;
pub mod tools;
pub mod wasm;
pub mod wit;
pub mod wit_sync;
