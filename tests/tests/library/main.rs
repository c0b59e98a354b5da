//! The host embedded in this process: what cannot be seen from outside of it.

mod hosts;
mod sandbox;
mod splice;
mod support;
mod swap;
