//! What the tests share: the built program in a folder of its own ([`program`]), the program as a daemon ([`daemon`]), real
//! servers ([`server`], [`cold`]), what goes wrong between them and us ([`faults`]), data ([`data`]).
//!
//! The tests themselves: `command_line` drives the built program as a user does, `service` talks to it as a daemon, `library`
//! embeds the host in its own process, `conformance` asks every adapter the same, `layers` reads the sources. Guests that
//! they need are in `fixtures/` and are built with the others.

pub mod cold;
pub mod daemon;
pub mod data;
pub mod faults;
pub mod program;
pub mod server;
