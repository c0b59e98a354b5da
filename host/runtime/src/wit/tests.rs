//! What host calls count for, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::call::begins;
use super::granted;
use crate::body_handle::Origin;
use crate::operation::held::BackendUsages;
use crate::operation::state::{Environment, OperationState};
use crate::operation::usage::Usage;
use tidelock_capabilities::Capabilities;
use tidelock_capabilities::directory::{Directory, File, FileInfo, Page, WriteOptions};
use tidelock_types::{Body, ByteRange, Limits, Platform, Result};

/// A directory that answers nothing but `read`, and that says that it holds this.
struct Silent {
    write: u64,
    open: u64,
    read: u64,
    listing: u64,
}

impl Directory for Silent {
    fn write<'a>(&'a self, _: &'a str, _: Body, _: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(std::future::pending())
    }

    fn read<'a>(&'a self, _: &'a str, _: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        let body = Body::from_bytes(Bytes::from_static(b"some"));
        Box::pin(async move { Ok(File { info: FileInfo { size: 4, modified: None }, body }) })
    }

    fn stat<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(std::future::pending())
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }

    fn list_entries<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(std::future::pending())
    }

    fn write_holds(&self, _: Option<u64>) -> u64 {
        self.write
    }

    fn open_holds(&self, _: Option<u64>) -> u64 {
        self.open
    }

    fn read_holds(&self, _: Option<u64>) -> u64 {
        self.read
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        self.listing * u64::from(limit)
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(std::future::pending())
    }
}

/// The store of an operation with these limits, which has the directory `d`.
fn store(limits: Limits, directory: Silent) -> wasmtime::Store<OperationState> {
    let mut capabilities = Capabilities::none();
    capabilities.provide_directory("d", Arc::new(directory));
    let usage = Arc::new(Usage::new(&limits, Instant::now()));
    let environment = Arc::new(Environment {
        backend: "b".into(),
        settings: BTreeMap::new(),
        capabilities,
        usages: BackendUsages::new(&limits),
        serves: AtomicBool::new(true),
        limits,
        platform: Platform::system(),
        through_guest: AtomicU64::new(0),
    });
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    OperationState::store(&wasmtime::Engine::new(&config).unwrap(), &environment, usage)
}

const NOTHING: Silent = Silent { write: 0, open: 0, read: 0, listing: 0 };

/// A guest may drop a call; what it counted for goes with it, however often.
#[test]
fn a_call_that_is_dropped_is_no_longer_in_flight() {
    let mut store = store(Limits { calls_in_flight: 2, ..Limits::default() }, NOTHING);
    for _ in 0..100 {
        let waiting = granted::stat(store.data_mut(), "d".into(), "f".into()).now_or_never();
        assert!(waiting.is_none(), "{waiting:?}");
    }
    let read = granted::read(store.data_mut(), "d".into(), "f".into(), None).now_or_never();
    assert!(read.unwrap().unwrap().is_ok());
    // Those that are under way count.
    let under_way = [(); 2].map(|()| begins(store.data_mut(), 0).unwrap());
    assert!(begins(store.data_mut(), 0).is_err());
    drop(under_way);
}

/// What a directory says that it holds is charged, whatever kind of directory it is.
#[test]
fn what_a_directory_holds_is_charged() {
    const MIB: u64 = 1 << 20;
    let with = |directory| store(Limits { held_bytes: 8 * MIB, ..Limits::default() }, directory);
    let write = |directory| {
        let mut store = with(directory);
        let data = store.data_mut().hold(Body::new(futures::stream::pending(), None), Origin::Guest).unwrap();
        let options = super::bindings::tidelock::storage::directory::WriteOptions { size: None, if_absent: false };
        granted::write(store.data_mut(), "d".into(), "f".into(), data, options)
            .now_or_never()
            .map(|ended| ended.is_err())
    };
    assert_eq!(write(Silent { write: 7 * MIB, ..NOTHING }), None);
    assert_eq!(write(Silent { write: 9 * MIB, ..NOTHING }), Some(true));
    let read = |directory| {
        granted::read(with(directory).data_mut(), "d".into(), "f".into(), None)
            .now_or_never()
            .map(|ended| ended.is_err())
    };
    assert_eq!(read(Silent { open: 7 * MIB, read: 7 * MIB, ..NOTHING }), Some(false));
    assert_eq!(read(Silent { open: 9 * MIB, ..NOTHING }), Some(true));
    assert_eq!(read(Silent { read: 9 * MIB, ..NOTHING }), Some(true));
    // A page is made so short that two of them can be held.
    let lists = |listing, pages: usize| {
        let mut store = with(Silent { listing, ..NOTHING });
        let held = |store: &mut wasmtime::Store<OperationState>| begins(store.data_mut(), 4 * MIB).unwrap();
        let _others: Vec<_> = (1..pages).map(|_| held(&mut store)).collect();
        let listing = granted::list_entries(store.data_mut(), "d".into(), String::new(), None, 100);
        listing.now_or_never().map(|ended| ended.is_err())
    };
    assert_eq!(lists(MIB, 1), None);
    assert_eq!(lists(MIB, 2), None);
    assert_eq!(lists(MIB, 3), Some(true));
    assert_eq!(lists(9 * MIB, 1), Some(true));
}
