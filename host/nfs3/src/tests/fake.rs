//! A server without files: one directory `.tmp` and one file `f`, and whatever a test has it say instead.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::proxy::{COMMIT, LINK, READ, RENAME, WRITE};
use super::*;

pub(super) const GETATTR: u32 = 1;
pub(super) const LOOKUP: u32 = 3;
pub(super) const READDIR: u32 = 16;
/// The program of the mount protocol.
const MOUNT: u32 = 100_005;
/// Bytes of `f`, and the verifier of whatever is written.
pub(super) const SIZE: u32 = 100;
const VERIFIER: u32 = 9;

/// A call as the server sees it.
pub(super) struct ReceivedCall {
    program: u32,
    pub(super) procedure: u32,
    /// Counts the calls of this procedure from 1.
    pub(super) count: u32,
    record: Vec<u8>,
}

impl ReceivedCall {
    /// Returns whether this name is among the arguments.
    pub(super) fn names(&self, name: &str) -> bool {
        self.record.windows(name.len()).any(|part| part == name.as_bytes())
    }
}

/// What becomes of a call.
pub(super) enum Say {
    /// What is right.
    Truth,
    /// These words as the procedure's answer.
    Words(Vec<u32>),
    /// Nothing, for ever.
    Nothing,
    /// Nothing, and the connection is closed.
    Cut,
}

pub(super) struct Fake {
    port: u16,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<HashMap<u32, u32>>>,
}

impl Fake {
    pub(super) fn start(say: impl Fn(&ReceivedCall) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, seen): (Arc<AtomicUsize>, Arc<Mutex<HashMap<u32, u32>>>) = Default::default();
        let (counted, calls, say) = (Arc::clone(&connections), Arc::clone(&seen), Arc::new(say));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (calls, say) = (Arc::clone(&calls), Arc::clone(&say));
                std::thread::spawn(move || serve(client, &calls, &*say));
            }
        });
        Self { port, connections, seen }
    }

    /// One that says this to each call of a procedure, and is right about everything else.
    pub(super) fn saying(procedure: u32, words: &[u32]) -> Self {
        let words = words.to_vec();
        Self::start(move |asked| match asked.procedure == procedure {
            true => Say::Words(words.clone()),
            false => Say::Truth,
        })
    }

    /// A grant that waits for an answer for longer than any test.
    pub(super) fn grant(&self) -> NfsGrant {
        let grant = NfsGrant::parse(&format!("nfs://127.0.0.1:{}/e", self.port), Some(self.port)).unwrap();
        NfsGrant { stall_timeout: Duration::from_secs(3600), ..grant }
    }

    pub(super) fn open(&self) -> NfsDirectory {
        NfsDirectory::open(self.grant())
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many calls of a procedure there were.
    pub(super) fn seen(&self, procedure: u32) -> u32 {
        self.seen.lock().unwrap().get(&procedure).copied().unwrap_or_default()
    }
}

/// Reads a call whole: one that is read in part and then hung up on is cut by the kernel, with the answer.
pub(super) fn call(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut mark = [0; 4];
    client.read_exact(&mut mark).ok()?;
    let mut record = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
    client.read_exact(&mut record).ok()?;
    Some(record)
}

fn serve(mut client: TcpStream, seen: &Mutex<HashMap<u32, u32>>, say: &dyn Fn(&ReceivedCall) -> Say) {
    while let Some(record) = call(&mut client) {
        let word = |at: usize| u32::from_be_bytes(record[at..at + 4].try_into().unwrap());
        let (xid, program, procedure) = (word(0), word(12), word(20));
        let count = {
            let mut seen = seen.lock().unwrap();
            // Those of the mount protocol have numbers of their own.
            let count = seen.entry(if program == MOUNT { MOUNT } else { procedure }).or_insert(0);
            *count += 1;
            *count
        };
        let asked = ReceivedCall { program, procedure, count, record };
        let words = match if program == MOUNT { Say::Truth } else { say(&asked) } {
            Say::Truth => truth(&asked),
            Say::Words(words) => words,
            Say::Nothing => continue,
            Say::Cut => return,
        };
        let words = [&[xid, 1, 0, 0, 0, 0], &words[..]].concat();
        let mark = 0x8000_0000 | (4 * words.len() as u32);
        let bytes: Vec<u8> = [mark].iter().chain(&words).flat_map(|word| word.to_be_bytes()).collect();
        if client.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// The attributes of a file (`kind` 1) or directory (2).
pub(super) fn attributes(kind: u32, size: u64) -> Vec<u32> {
    let mut words = vec![kind, 0o644, 1, 0, 0, (size >> 32) as u32, size as u32];
    words.extend([0; 6]);
    words.extend([0, 77, 1, 0, 1, 0, 1, 0]);
    words
}

/// What is found: a handle, its attributes, and none of the directory's.
pub(super) fn found(kind: u32, size: u64) -> Vec<u32> {
    [&[0, 4, kind, 1], &attributes(kind, size)[..], &[0]].concat()
}

/// A reply to READDIR with these names, the next ones at a cookie.
pub(super) fn listing(names: &[&[u8]], cookie: u32, end: bool) -> Vec<u32> {
    let mut words = vec![0, 0, 0, 0];
    for name in names {
        words.extend([1, 0, 77, name.len() as u32]);
        for part in name.chunks(4) {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            words.push(u32::from_be_bytes(word));
        }
        words.extend([0, cookie]);
    }
    words.extend([0, end.into()]);
    words
}

fn truth(asked: &ReceivedCall) -> Vec<u32> {
    const FSINFO: u32 = 19;
    const FILE_SYNC: u32 = 2;
    match asked.procedure {
        _ if asked.program == MOUNT => vec![0, 4, 1, 1, 1],
        GETATTR => [&[0], &attributes(1, SIZE.into())[..]].concat(),
        LOOKUP if asked.names(".tmp") => found(2, 0),
        LOOKUP if asked.names("new") => vec![2, 0],
        LOOKUP => found(1, SIZE.into()),
        READ => [&[0, 0, SIZE, 1, SIZE], &[7; SIZE as usize / 4][..]].concat(),
        WRITE => vec![0, 0, 0, SIZE, FILE_SYNC, VERIFIER, VERIFIER],
        // CREATE
        8 => vec![0, 1, 4, 3, 0, 0, 0],
        READDIR => listing(&[b"f"], 5, true),
        FSINFO => [&[0, 0], &[1 << 20; 7][..], &[0; 5][..]].concat(),
        COMMIT => vec![0, 0, 0, VERIFIER, VERIFIER],
        RENAME | LINK => vec![0; 8],
        _ => vec![0, 0, 0],
    }
}
