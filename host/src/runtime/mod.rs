//! x
mod wit;
