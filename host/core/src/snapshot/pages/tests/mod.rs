//! Packs written and read back.

mod bench;
mod hostile;
mod images;
mod kinds;
mod support;
mod trips;
mod vectors;
