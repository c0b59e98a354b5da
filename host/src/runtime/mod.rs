//! x
mod engine;
mod limits;
mod state;
mod stream;
mod wit;
