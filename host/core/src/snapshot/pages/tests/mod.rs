//! Packs written and read back.

mod hostile;
mod images;
mod kinds;
mod limits;
mod stored;
mod support;
mod trips;
mod unproven;
mod vectors;
