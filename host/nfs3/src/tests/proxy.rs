//! Between the client and a real server: sees each call and each reply, and may change a reply or cut the connection.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The procedures that tests look for.
pub(super) const READ: u32 = 6;
pub(super) const WRITE: u32 = 7;
pub(super) const RENAME: u32 = 14;
pub(super) const LINK: u32 = 15;
pub(super) const COMMIT: u32 = 21;

/// Where the procedure's own answer begins in a reply without a verifier.
pub(super) const ANSWER: usize = 24;

/// What becomes of a reply.
pub(super) enum Deed {
    Pass,
    /// This goes to the client instead.
    Change(Vec<u8>),
    /// The connection is cut, and the reply is lost.
    Cut,
}

/// Says what becomes of the reply to a call of this procedure; the number counts them from 1.
type Judge = dyn Fn(u32, usize, &[u8]) -> Deed + Send + Sync;

pub(super) struct Proxy {
    pub(super) port: u16,
    seen: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Proxy {
    pub(super) fn start(to: u16, judge: impl Fn(u32, usize, &[u8]) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let (judge, counted): (Arc<Judge>, _) = (Arc::new(judge), Arc::clone(&seen));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                let (judge, counted) = (Arc::clone(&judge), Arc::clone(&counted));
                let calls = Arc::new(Mutex::new(HashMap::new()));
                let (calls_in, from, into) =
                    (Arc::clone(&calls), client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || forward(from, into, &calls_in));
                std::thread::spawn(move || back(server, client, &calls, &counted, &*judge));
            }
        });
        Self { port, seen }
    }

    /// How many replies to this procedure there have been.
    pub(super) fn seen(&self, procedure: u32) -> usize {
        self.seen.lock().unwrap().get(&procedure).copied().unwrap_or_default()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).ok()?;
    let mut record = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
    stream.read_exact(&mut record).ok()?;
    Some(record)
}

fn pass(stream: &mut TcpStream, record: &[u8]) -> Option<()> {
    stream.write_all(&(0x8000_0000 | record.len() as u32).to_be_bytes()).ok()?;
    stream.write_all(record).ok()
}

fn forward(mut from: TcpStream, mut to: TcpStream, calls: &Mutex<HashMap<u32, u32>>) {
    while let Some(call) = record(&mut from) {
        calls.lock().unwrap().insert(word(&call, 0), word(&call, 20));
        if pass(&mut to, &call).is_none() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn back(
    mut from: TcpStream,
    mut to: TcpStream,
    calls: &Mutex<HashMap<u32, u32>>,
    seen: &Mutex<HashMap<u32, usize>>,
    judge: &Judge,
) {
    while let Some(reply) = record(&mut from) {
        let procedure = calls.lock().unwrap().remove(&word(&reply, 0)).unwrap();
        let count = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry(procedure).or_insert(0);
            *count += 1;
            *count
        };
        let passed = match judge(procedure, count, &reply) {
            Deed::Pass => pass(&mut to, &reply),
            Deed::Change(other) => pass(&mut to, &other),
            Deed::Cut => None,
        };
        if passed.is_none() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// The same reply with another status and nothing behind it but "no attributes".
pub(super) fn refused(reply: &[u8], status: u32) -> Vec<u8> {
    [&reply[..ANSWER], &status.to_be_bytes(), &[0; 8]].concat()
}
