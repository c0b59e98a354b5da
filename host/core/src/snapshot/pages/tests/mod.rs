//! Packs written and read back.

mod bench;
mod hostile;
mod support;
mod trips;
mod vectors;
