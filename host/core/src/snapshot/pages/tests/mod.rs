//! Packs written and read back.

mod hostile;
mod images;
mod kinds;
mod limits;
mod support;
mod trips;
mod vectors;
