//! What a stranger can send, against what must hold whatever it is.
//!
//! Each module is one target: `run` takes any bytes and panics if something does not hold. The programs in `fuzz_targets/`
//! hand `run` to libFuzzer. The ordinary tests of this crate run it over the kept inputs: `corpus/NAME`, from which
//! fuzzing starts, and `regressions/NAME`, which once broke something.
//!
//! | target | whose bytes | through which door |
//! | --- | --- | --- |
//! | [`config`] | the operator's file | `Config::parse` |
//! | [`manifest`] | an adapter's author | `Manifest::parse`, `find_manifest` |
//! | [`names`] | ids, ranges, sizes, origins, paths, keys, signatures | their parsers |
//! | [`apply`] | a change to an image | `apply_zstd`, `apply_sparse` |
//! | [`wit_values`] | a guest | every call across the border, both ways, by a real component |
//! | [`http_reply`] | a server that an adapter talks to | the real client, over a real connection |
//!
//! Inputs are meant to be read and written by people where that is possible: text stays text, and what else a target has
//! to know stands in a letter or two before it. So a mutation hits what it is aimed at, a seed can be made with an
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
    ("wit_values", wit_values::run),
    ("http_reply", http_reply::run),
];
