//! The daemon as its clients meet it: `tidelock serve`, over its socket and over TCP.

mod access;
mod adapters;
mod bounds;
mod cold;
mod document;
mod snapshots;
mod stopping;
mod strangers;

use tidelock_tests::program::{Home, guest};

/// A component that differs from the one that was built in its digest alone: an empty custom section is added.
fn variant(name: &str, number: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(guest(name)).expect("a guest");
    // Section 0, its length, the length of its name, its name, its content.
    bytes.extend([0, 9, 7]);
    bytes.extend(b"version");
    bytes.push(number);
    bytes
}

/// One backend `mine` with a guest that was built for the tests.
fn home(name: &str, more: &str) -> Home {
    let home = Home::with(&format!(
        "data_dir = \"tidelock-data\"\n{more}\n[backends.mine]\nadapter = \"./mine.wasm\"\n\
         grants.directory.objects = {{ path = \"tidelock-data/objects\" }}\nswap = {{ drain = \"60s\" }}\n",
    ));
    home.file("mine.wasm", std::fs::read(guest(name)).expect("a guest"));
    home
}
