//! The tasks of this repository, as a library: `cargo xtask` and `cargo test` share the same code.
//!
//! Each task sets up its dependencies, once, in a cache directory ([`cache`]), and prints them on stderr: a WebAssembly
//! target for rustc ([`wasm`]), the guests ([`guests`], [`languages`]), the host ([`host`]), servers of real backends ([`backends`]).
//! Tests call [`guests::ensure`], [`languages::ensure`], [`host::binary`], [`backends::Seaweed::start`] and [`skip::skip`].
//!
//! Processes are run with `std::process`, not a shell: paths can contain spaces. This crate may read the
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
