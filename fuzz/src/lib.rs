//! Untrusted input, and the invariants that hold for all of it.
//!
//! Each module is one target: `run` takes any bytes and panics if an invariant fails. The programs in `fuzz_targets/`
//! pass `run` to libFuzzer. The ordinary tests of this crate run it on the kept inputs: `corpus/NAME`, the seeds
//! of fuzzing, and `regressions/NAME`, which once broke something.
//!
//! | target | input | entry point |
//! | --- | --- | --- |
//! | [`config`] | the operator's file | `Config::parse` |
//! | [`manifest`] | an adapter's author | `Manifest::parse`, `find_manifest` |
//! | [`names`] | ids, ranges, sizes, origins, paths, keys, signatures | their parsers |
//! | [`apply`] | a delta to an image | `apply_zstd`, `apply_sparse` |
//! | [`pages`] | an object in the encoding `pages` | `Pack::open`, `read_pages`; `encode_full`, `encode_delta` |
//! | [`wit_values`] | a guest | every call across the boundary, in both directions, by a real component |
//! | [`http_reply`] | a server of an adapter | the real client, over a real connection |
//!
//! Inputs are readable and writable by people where possible: text stays text, and other parameters of a target
//! are a letter or two before it. So mutations hit the intended part, seeds can be written in an
//! editor, and a crash explains itself.
//!
//! Nothing here is random and nothing depends on the time of day, so an input that failed once fails again, except where
//! a target says otherwise.

// A panic is how a target says that something does not hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod apply;
pub mod config;
pub mod http_reply;
pub mod manifest;
pub mod names;
mod one_line;
pub mod pages;
pub mod wit_values;

#[cfg(test)]
mod kept;
#[doc(hidden)]
pub mod program;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("config", config::run),
    ("manifest", manifest::run),
    ("names", names::run),
    ("apply", apply::run),
    ("pages", pages::run),
    ("wit_values", wit_values::run),
    ("http_reply", http_reply::run),
];
