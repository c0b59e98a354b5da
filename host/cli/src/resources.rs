//! What the program needs of the system before it begins, and what it gives back: threads, file descriptors and memory.
//!
//! A runtime that cannot have its threads panics, or never does the work that it has put aside for them. So it is made only
//! where the threads are to be had, and those for blocking work are started at once and kept: what comes later may have to
//! wait for one of them, and always finds one.

use std::fs::File;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use tidelock::types::Error;

/// Threads for blocking work that are started with the runtime.
const BLOCKING: usize = 4;

/// How long they may take to start. No more than a guard against waiting for ever.
const START: Duration = Duration::from_secs(20);

/// How long threads for blocking work are kept when there is nothing to do: there may be no others to be had.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The descriptors that a runtime and its signal handling take (7), with some to spare. Without them, it panics.
const DESCRIPTORS: usize = 10;

/// The stack of a thread that is only to show that it can be had.
const TRIAL_STACK: usize = 64 << 10;

/// Makes the runtime, with its threads.
///
/// # Errors
/// `unavailable` and others if the system has no threads for it.
pub(super) fn runtime() -> Result<Runtime, Error> {
    try_descriptors(DESCRIPTORS).map_err(|error| Error::io("cannot set up the program", error))?;
    let workers = thread::available_parallelism().map_or(1, usize::from);
    try_threads(workers + BLOCKING).map_err(no_threads)?;
    let runtime = Builder::new_multi_thread().enable_all().thread_keep_alive(KEPT).build().map_err(no_threads)?;
    if runtime.block_on(start_blocking()) {
        return Ok(runtime);
    }
    // Work that no thread has taken must not be waited for.
    runtime.shutdown_background();
    Err(no_threads(io::ErrorKind::WouldBlock.into()))
}

fn no_threads(error: io::Error) -> Error {
    let error = Error::io("cannot start threads", error);
    // Something else may be what is short.
    if error.advice().is_some() { error } else { error.hint("allow this user more threads (ulimit -u)") }
}

/// Opens so many files at once, and closes them.
fn try_descriptors(count: usize) -> io::Result<()> {
    let opened: io::Result<Vec<File>> = (0..count).map(|_| File::open("/dev/null")).collect();
    match opened {
        // Without a `/dev/null`, nothing is known.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.map(drop),
    }
}

/// Starts so many threads at once, and ends them.
fn try_threads(count: usize) -> io::Result<()> {
    let mut started = Vec::with_capacity(count);
    for _ in 0..count {
        let (end, ended) = sync_channel::<()>(0);
        let wait = move || {
            let _ = ended.recv();
        };
        started.push((end, thread::Builder::new().stack_size(TRIAL_STACK).spawn(wait)?));
    }
    for (end, thread) in started {
        drop(end);
        let _ = thread.join();
    }
    Ok(())
}

/// Starts the threads for blocking work. Returns whether they have started.
async fn start_blocking() -> bool {
    let (arrive, arrived) = tokio::sync::watch::channel(0_usize);
    let waiting = (0..BLOCKING).map(|_| {
        let (arrive, mut go) = (arrive.clone(), arrived.clone());
        tokio::task::spawn_blocking(move || {
            arrive.send_modify(|count| *count += 1);
            // Each keeps its thread until all have one.
            let all = async { go.wait_for(|count| *count >= BLOCKING).await.is_ok() };
            tokio::runtime::Handle::current().block_on(async { tokio::time::timeout(START, all).await == Ok(true) })
        })
    });
    let all = futures::future::join_all(waiting);
    let Ok(all) = tokio::time::timeout(START, all).await else { return false };
    all.into_iter().all(|started| started.unwrap_or(false))
}

/// Raises the number of file descriptors to what the system allows this process. Returns the number.
pub(super) fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Allocations of so many bytes and more go back to the system as soon as they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK: std::ffi::c_int = 512 << 10;

/// Has large allocations go back to the system when they are freed. Call it before there are threads.
///
/// Left to itself, glibc raises the size from which it does so to that of the largest one that was freed, up to 32 MiB, and
/// keeps the rest between smaller ones for as long as the process lives.
pub(super) fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers, and only changes how later allocations are made.
    unsafe {
        // It is no matter if it fails: then more memory is kept.
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
    }
}

/// The most places that freed memory is kept in by a command.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: usize = 8;

/// Has threads share what they have freed. Call it before there are threads.
///
/// Left to itself, glibc gives threads a place of their own for up to eight for each processor, and each keeps buffers of
/// many MiB when work moves on to another thread. Where the environment says something about it, that counts.
pub(super) fn share_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() && std::env::var_os("GLIBC_TUNABLES").is_none() {
        let arenas = thread::available_parallelism().map_or(1, usize::from).clamp(2, ARENAS);
        // SAFETY: it takes two numbers, and only changes how later allocations are made.
        unsafe {
            // It is no matter if it fails: then more memory is kept.
            libc::mallopt(libc::M_ARENA_MAX, arenas as std::ffi::c_int);
        }
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// The bytes of memory that this process has.
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn memory_that_was_used_once_goes_back() {
        give_memory_back();
        // Raises what glibc keeps, if nothing else was said.
        drop(vec![1u8; 16 << 20]);
        let before = resident();
        // Something small behind each.
        let all: Vec<(Vec<u8>, Box<[u8]>)> = (0..128).map(|_| (vec![1; 1 << 20], vec![1; 100 << 10].into())).collect();
        assert!(resident() > before + (128 << 20));
        let small: Vec<Box<[u8]>> = all.into_iter().map(|(_, small)| small).collect();
        assert!(resident() < before + (48 << 20), "{} MiB are kept", (resident() - before) >> 20);
        drop(small);
    }
}
