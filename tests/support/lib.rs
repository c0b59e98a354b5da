//! Shared code of the tests: the built program in its own folder ([`program`]), the program as a daemon ([`daemon`]), real
//! servers ([`server`], [`cold`]), faults between them and the host ([`faults`]), odd servers ([`odd`]), what stands in between
//! ([`between`]), programs followed step by step ([`steps`]) and what a loss of power would leave of their files ([`power`]),
//! data ([`data`]).
//!
//! The tests themselves: `command_line` drives the built program as a user does, `service` uses it as a daemon, `library`
//! embeds the host in its own process, `conformance` runs one suite on every adapter, `layers` checks the sources. Their
//! guests are in `fixtures/` and are built with the others.

pub mod between;
pub mod cold;
pub mod daemon;
pub mod data;
pub mod faults;
pub mod odd;
pub mod power;
pub mod program;
pub mod server;
pub mod steps;
