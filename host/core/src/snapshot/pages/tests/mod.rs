//! Packs written and read back.

mod bench;
mod support;
mod trips;
