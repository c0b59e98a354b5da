//! Faults between an adapter's host and a real server: a proxy on loopback that knows the protocol, passes everything on
//! unchanged, and injects the faults of a [`Plan`].
//!
//! The server behind it is real, so everything else behaves as in production. There are two flavours, [`http`]
//! and [`rpc`] (NFSv3); both take the same plans, so that a test names *which* fault occurs and not its encoding:
//!
//! | fault | HTTP | NFSv3 |
//! | --- | --- | --- |
//! | [`Fault::Refuse`] | that status, with `Retry-After` if one is given; the request never reaches the server | `JUKEBOX` for 429 and 503, `NOSPC` or `DQUOT` for 507, `SERVERFAULT` or `IO` for 500 |
//! | [`Fault::Reset`] | RST in the middle of the data, or in place of an answer | the same |
//! | [`Fault::Cut`] | the body ends early, and so does the connection | the record ends early |
//! | [`Fault::Short`] | a well-formed reply with fewer bytes than were stored | a READ with an early end of file |
//! | [`Fault::Flip`] | one bit of the data | one bit of the data of a READ or WRITE |
//! | [`Fault::Stall`] | no more bytes, and the connection stays open | the same |
//! | [`Fault::Trickle`] | a byte a second | the same |
//!
//! The place of a fault (which byte, which bit, which of two encodings) follows from a seed: the same seed and the same
//! requests get the same fault. Besides, a proxy is a gate ([`Proxy::close`]: the server is disconnected) and a
//! meter ([`Proxy::seen`]).
//!
//! Threads and blocking sockets: a proxy uses no async runtime, so that it cannot disturb the tested one.

mod head;
pub mod http;
mod relay;
pub mod rpc;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server refuses with this HTTP status, or what comes nearest to it, and may say for how many seconds.
    Refuse { status: u16, retry_after: Option<u32> },
    /// The connection is reset.
    Reset,
    /// Data ends before its end.
    Cut,
    /// Fewer bytes than there are, in good form.
    Short,
    /// A bit is another.
    Flip,
    /// Nothing more comes.
    Stall,
    /// A byte a second comes.
    Trickle,
}

/// The requests that a fault applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Those that carry data of an object to the server.
    Up,
    /// Those whose reply carries data of an object.
    Down,
    /// All.
    Any,
}

/// A fault, and when it is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What goes wrong.
    pub fault: Fault,
    /// With which requests.
    pub on: On,
    /// How many of those pass before the first that is faulted.
    pub after: usize,
    /// How many are faulted.
    pub times: usize,
}

impl Plan {
    /// Injects it into every request of that kind.
    pub fn always(fault: Fault, on: On) -> Self {
        Self { fault, on, after: 0, times: usize::MAX }
    }

    /// Injects it into one request of that kind, behind so many others.
    pub fn once(fault: Fault, on: On, after: usize) -> Self {
        Self { fault, on, after, times: 1 }
    }
}

/// What a proxy has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests.
    pub requests: usize,
    /// Of these, such as carry data to the server.
    pub up: usize,
    /// Of these, such as ask for data.
    pub down: usize,
    /// Bytes to the server.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// Requests that got a fault.
    pub injected: usize,
    /// Connections that found the gate closed.
    pub refused: usize,
}

/// A fault that is injected now, with the dice of this injection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    pub(crate) dice: u64,
}

/// What the connections of a proxy share.
pub(crate) struct Control {
    seed: u64,
    state: Mutex<ProxyState>,
    changed: Condvar,
}

#[derive(Default)]
struct ProxyState {
    plan: Option<Plan>,
    /// Matching requests since the plan was made.
    met: usize,
    seen: Seen,
    closed: bool,
    ended: bool,
    /// Counts plans and gates: the holder of a connection notices that its time is over.
    era: u64,
    /// Those that are open, by number.
    connections: BTreeMap<u64, TcpStream>,
    connected: u64,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; returns the fault to inject.
    pub(crate) fn request(&self, kind: Option<On>) -> Option<Injection> {
        let mut state = self.state();
        state.seen.requests += 1;
        match kind {
            Some(On::Up) => state.seen.up += 1,
            Some(On::Down) => state.seen.down += 1,
            _ => {}
        }
        let plan = state.plan?;
        if plan.on != On::Any && kind != Some(plan.on) {
            return None;
        }
        state.met += 1;
        let number = state.met.checked_sub(plan.after + 1)?;
        if number >= plan.times {
            return None;
        }
        state.seen.injected += 1;
        Some(Injection { fault: plan.fault, dice: mix(self.seed, state.seen.injected as u64) })
    }

    pub(crate) fn went_up(&self, bytes: usize) {
        self.state().seen.bytes_up += bytes as u64;
    }

    pub(crate) fn went_down(&self, bytes: usize) {
        self.state().seen.bytes_down += bytes as u64;
    }

    /// Holds still until the plan changes, the gate closes or the proxy ends.
    pub(crate) fn hold(&self) {
        let state = self.state();
        let era = state.era;
        drop(self.changed.wait_while(state, |state| state.era == era).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for a second; false if the time of what waits is over.
    pub(crate) fn tick(&self) -> bool {
        let state = self.state();
        let era = state.era;
        let waited = self.changed.wait_timeout_while(state, Duration::from_secs(1), |state| state.era == era);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn change(&self, how: impl FnOnce(&mut ProxyState)) {
        let mut state = self.state();
        how(&mut state);
        state.era += 1;
        self.changed.notify_all();
    }

    fn cut_all(&self) {
        for connection in self.state().connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Keeps hold of a connection, to cut it, and gives its number; none if it has to be refused.
    fn admit(&self, connection: &TcpStream) -> Option<u64> {
        let mut state = self.state();
        if state.closed || state.ended {
            state.seen.refused += 1;
            return None;
        }
        state.connected += 1;
        let number = state.connected;
        state.connections.insert(number, connection.try_clone().ok()?);
        Some(number)
    }

    /// The connection is over: no clone may keep it open.
    fn release(&self, number: u64) {
        self.state().connections.remove(&number);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014) of a seed and a number: plain, and the same everywhere.
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A proxy in front of a port of 127.0.0.1. Dropped, it cuts its connections and listens no more.
pub struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    control: Arc<Control>,
}

impl Proxy {
    /// Starts one; `relay` serves one connection of a client until that ends.
    pub(crate) fn start<R>(seed: u64, relay: R) -> io::Result<Self>
    where
        R: Fn(TcpStream, &Control) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let control = Arc::new(Control { seed, state: Mutex::default(), changed: Condvar::new() });
        let (shared, relay) = (Arc::clone(&control), Arc::new(relay));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.state().ended {
                    break;
                }
                let Some(number) = shared.admit(&client) else {
                    reset(&client);
                    continue;
                };
                let (shared, relay) = (Arc::clone(&shared), Arc::clone(&relay));
                std::thread::spawn(move || {
                    // A broken connection is noticed by its two ends.
                    let _ = relay(client, &shared);
                    shared.release(number);
                });
            }
        });
        Ok(Self { port, control })
    }

    /// Sets the faults. Connections that an earlier plan stalled are closed.
    pub fn plan(&self, plan: Plan) {
        self.control.change(|state| {
            state.plan = Some(plan);
            state.met = 0;
        });
    }

    /// Removes the faults. Stalled connections are closed.
    pub fn mend(&self) {
        self.control.change(|state| state.plan = None);
    }

    /// Takes the server off the network: connections are closed, and new ones are reset as soon as they are made.
    pub fn close(&self) {
        self.control.change(|state| state.closed = true);
        self.control.cut_all();
    }

    /// Puts it back.
    pub fn open(&self) {
        self.control.change(|state| state.closed = false);
    }

    /// What has passed so far.
    pub fn seen(&self) -> Seen {
        self.control.state().seen
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.change(|state| state.ended = true);
        self.control.cut_all();
        // Wakes the thread that listens, so that it ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Has a connection end with RST instead of FIN, once all handles are dropped. Wakes its readers.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(plan: Plan) -> Control {
        let control = Control { seed: 7, state: Mutex::default(), changed: Condvar::new() };
        control.state().plan = Some(plan);
        control
    }

    #[test]
    fn a_plan_applies_to_its_requests_only() {
        let control = control(Plan { fault: Fault::Reset, on: On::Up, after: 1, times: 2 });
        let kinds = [Some(On::Up), Some(On::Down), None, Some(On::Up), Some(On::Up), Some(On::Up)];
        let injected = kinds.map(|kind| control.request(kind).is_some());
        assert_eq!(injected, [false, false, false, true, true, false]);
        let seen = control.state().seen;
        assert_eq!((seen.requests, seen.up, seen.down, seen.injected), (6, 4, 1, 2));
    }

    #[test]
    fn the_same_seed_throws_the_same_dice() {
        let dice = || {
            let control = control(Plan::always(Fault::Flip, On::Any));
            [(); 4].map(|()| control.request(None).unwrap().dice)
        };
        assert_eq!(dice(), dice());
        assert_ne!(dice()[0], dice()[1]);
    }
}
