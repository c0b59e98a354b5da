//! The directory on a real server (NFS-Ganesha), with faults put between the two, and on servers that lie.

mod fake;
mod faults;
mod hostile;
mod proxy;
mod real;

use std::time::Duration;

use bytes::Bytes;
use futures::stream::StreamExt;
use xtask::backends::{Ganesha, ganesha};

use super::*;
use tidelock_types::files::Entry;
use tidelock_types::{Error, ErrorKind};

/// A server of the test's own; none, said aloud, where it cannot run.
fn server(test: &str) -> Option<Ganesha> {
    if let Some(why) = ganesha::why_not() {
        xtask::skip::skip(test, &why);
        return None;
    }
    Some(Ganesha::start().unwrap())
}

fn grant(server: &Ganesha) -> NfsGrant {
    // However slow the machine, a server that is there is not given up.
    let (stall_timeout, patience) = (Duration::from_secs(600), Duration::from_secs(600));
    let grant = NfsGrant::parse(&server.url(), Some(server.mount_port)).unwrap();
    NfsGrant { stall_timeout, patience, ..grant }
}

fn open(server: &Ganesha) -> NfsDirectory {
    NfsDirectory::open(grant(server))
}

async fn read(directory: &NfsDirectory, path: &str, range: Option<ByteRange>) -> Result<Bytes> {
    directory.read(path, range).await?.body.collect(100 << 20).await
}

async fn write(directory: &NfsDirectory, path: &str, data: impl Into<Bytes>) -> Result<u64> {
    directory.write(path, Body::from_bytes(data), WriteOptions::default()).await
}

/// The temporary files, by the server's own folder.
fn left_over(server: &Ganesha) -> usize {
    std::fs::read_dir(server.export().join(".tmp")).map_or(0, Iterator::count)
}

/// Waits until nothing temporary is left: a write that is dropped clears up behind itself.
async fn cleared(server: &Ganesha) {
    for _ in 0..60_000 {
        if left_over(server) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} temporary files are left", left_over(server));
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n / 7) as u8 ^ (n >> 16) as u8).collect::<Vec<u8>>().into()
}

/// A body that gives a chunk and then never another.
fn stuck() -> Body {
    let first = futures::stream::iter([Ok(pattern(9 << 20))]);
    Body::new(first.chain(futures::stream::pending()), None)
}

fn file(name: &str, size: u64) -> (String, bool, u64) {
    (name.to_owned(), false, size)
}

fn shown(entries: &[Entry]) -> Vec<(String, bool, u64)> {
    entries.iter().map(|entry| (entry.name.clone(), entry.is_directory, entry.size)).collect()
}
