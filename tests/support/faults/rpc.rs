//! The flavour for NFSv3: ONC RPC records over TCP (RFC 5531), with the procedures of RFC 1813 that carry data.
//!
//! Calls and replies pass as whole records; a reply is matched with its call by number. A refusal is generated here and its
//! call never reaches the server. Only the NFS program is affected, so that mounts
//! work.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::relay::{Passage, Way, over};
use super::{Control, Fault, Injection, On, Proxy, reset};

const NFS: u32 = 100_003;
const READ: u32 = 6;
const WRITE: u32 = 7;

/// Records are at most 1 MiB of data and what stands around it.
const LONGEST: usize = 2 << 20;
/// Where the procedure's own answer begins in a reply without a verifier.
const ANSWER: usize = 24;
/// Attributes of a file (`fattr3`), with the word before that says that they are there.
const ATTRIBUTES: usize = 4 + 84;

/// Calls whose reply gets a fault, by number.
type Marked = Arc<Mutex<HashMap<u32, Injection>>>;

/// A proxy before the NFSv3 server on a port of 127.0.0.1.
///
/// # Errors
/// What the system says to a listener.
pub fn before(port: u16, seed: u64) -> io::Result<Proxy> {
    Proxy::start(seed, move |client, control| {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).inspect_err(|_| reset(&client))?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let marked = Marked::default();
        let (to_client, from_server) = (client.try_clone()?, server.try_clone()?);
        // Replies that are made here go between those of the server.
        let turn = Mutex::new(());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = replies(from_server, &to_client, control, &marked, &turn);
                let _ = client.shutdown(Shutdown::Read);
                let _ = server.shutdown(Shutdown::Both);
            });
            let ended = calls(&client, &server, control, &marked, &turn);
            let _ = server.shutdown(Shutdown::Both);
            ended
        })
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The next record, its fragments put together; none at the end.
fn record(mut from: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let mut mark = [0; 4];
        match from.read_exact(&mut mark) {
            Ok(()) => {}
            Err(error) if record.is_empty() && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mark = u32::from_be_bytes(mark);
        let (start, len) = (record.len(), (mark & 0x7fff_ffff) as usize);
        if start + len > LONGEST {
            return Err(over("no record is so long"));
        }
        record.resize(start + len, 0);
        from.read_exact(&mut record[start..])?;
        if mark & 0x8000_0000 != 0 {
            return Ok(Some(record));
        }
    }
}

fn framed(record: &[u8]) -> Vec<u8> {
    [&(0x8000_0000 | record.len() as u32).to_be_bytes()[..], record].concat()
}

fn calls(
    client: &TcpStream,
    mut server: &TcpStream,
    control: &Control,
    marked: &Marked,
    turn: &Mutex<()>,
) -> io::Result<()> {
    while let Some(mut call) = record(client)? {
        let (number, program) = (word(&call, 0).unwrap_or(0), word(&call, 12));
        if program != Some(NFS) {
            server.write_all(&framed(&call))?;
            continue;
        }
        let kind = match word(&call, 20) {
            Some(WRITE) => Some(On::Up),
            Some(READ) => Some(On::Down),
            _ => None,
        };
        let injection = control.request(kind);
        match injection.map(|injection| (injection.fault, injection.dice)) {
            Some((Fault::Refuse { status, .. }, dice)) => {
                let reply = framed(&refusal(number, status, dice));
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                control.went_down(reply.len());
                (&*client).write_all(&reply)?;
                continue;
            }
            Some((Fault::Flip, dice)) if kind == Some(On::Up) => {
                if let Some((start, len)) = data_of_write(&call) {
                    flip(&mut call[start..start + len], dice);
                }
            }
            Some((Fault::Reset, _)) if kind == Some(On::Up) => {
                server.write_all(&framed(&call)[..call.len() / 2])?;
                reset(client);
                return Err(over("reset"));
            }
            Some((Fault::Cut | Fault::Stall | Fault::Trickle, _)) if kind == Some(On::Up) => {
                let mut passage = Passage::new(server, control, Way::Up, injection, Some(call.len() as u64));
                passage.data(&mut framed(&call))?;
                passage.end()?;
                continue;
            }
            Some(_) => {
                let mut marked = marked.lock().unwrap_or_else(PoisonError::into_inner);
                marked.extend(injection.map(|injection| (number, injection)));
            }
            None => {}
        }
        control.went_up(call.len());
        server.write_all(&framed(&call))?;
    }
    Ok(())
}

fn replies(
    server: TcpStream,
    mut client: &TcpStream,
    control: &Control,
    marked: &Marked,
    turn: &Mutex<()>,
) -> io::Result<()> {
    while let Some(mut reply) = record(&server)? {
        let number = word(&reply, 0).unwrap_or(0);
        let injection = marked.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        match injection.map(|injection| (injection.fault, injection.dice)) {
            Some((Fault::Flip, dice)) => {
                if let Some((start, len)) = data_of_read(&reply) {
                    flip(&mut reply[start..start + len], dice);
                }
            }
            Some((Fault::Short, dice)) => reply = shortened(&reply, dice).unwrap_or(reply),
            Some((Fault::Reset, _)) => {
                reset(client);
                return Err(over("reset"));
            }
            Some((Fault::Cut | Fault::Stall | Fault::Trickle, _)) => {
                let mut passage = Passage::new(client, control, Way::Down, injection, Some(reply.len() as u64));
                passage.data(&mut framed(&reply))?;
                passage.end()?;
                continue;
            }
            _ => {}
        }
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        control.went_down(reply.len());
        client.write_all(&framed(&reply))?;
    }
    Ok(())
}

/// A reply that was accepted and whose procedure failed.
fn refusal(number: u32, status: u16, dice: u64) -> Vec<u8> {
    let either = |one, other| if dice & 1 == 0 { one } else { other };
    let status = match status {
        429 | 503 => 10_008,
        507 => either(28, 69),
        _ => either(10_006, 5),
    };
    // The call's number, REPLY, accepted, no verifier, done; then the status, and no attributes.
    let words: [u32; 9] = [number, 1, 0, 0, 0, 0, status, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn flip(data: &mut [u8], dice: u64) {
    if !data.is_empty() {
        let at = (dice % data.len() as u64) as usize;
        data[at] ^= 1 << ((dice >> 32) % 8);
    }
}

/// Where the data of a WRITE stands: behind two authentications, a handle, the offset, the count and how stable it is.
fn data_of_write(call: &[u8]) -> Option<(usize, usize)> {
    let padded = |len: u32| (len as usize).next_multiple_of(4);
    let mut at = 24;
    for _ in 0..2 {
        at += 8 + padded(word(call, at + 4)?);
    }
    at += 4 + padded(word(call, at)?);
    at += 8 + 4 + 4;
    let len = word(call, at)? as usize;
    (at + 4 + len <= call.len()).then_some((at + 4, len))
}

/// Where the body of a READ that did not fail stands: count, end, data.
fn body_of_read(reply: &[u8]) -> Option<usize> {
    if word(reply, ANSWER)? != 0 {
        return None;
    }
    let attributes = if word(reply, ANSWER + 4)? == 1 { ATTRIBUTES } else { 4 };
    Some(ANSWER + 4 + attributes)
}

fn data_of_read(reply: &[u8]) -> Option<(usize, usize)> {
    let body = body_of_read(reply)?;
    let len = word(reply, body + 8)? as usize;
    (body + 12 + len <= reply.len()).then_some((body + 12, len))
}

/// The same READ, which says that the file ends before it does.
fn shortened(reply: &[u8], dice: u64) -> Option<Vec<u8>> {
    let body = body_of_read(reply)?;
    let (start, len) = data_of_read(reply)?;
    let less = (dice % (len as u64).max(1)) as usize;
    let count = (less as u32).to_be_bytes();
    let padded = less.next_multiple_of(4).min(reply.len() - start);
    Some([&reply[..body], &count, &1u32.to_be_bytes(), &count, &reply[start..start + padded]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn data_is_found() {
        // xid, CALL, 2, NFS, 3, WRITE; AUTH_SYS of 5 bytes; AUTH_NONE; a handle of 6 bytes; offset, count, stable; data.
        let mut call = words(&[1, 0, 2, NFS, 3, WRITE, 1, 5, 0, 0, 0, 0, 6, 0, 0, 0, 9, 3, 2, 3]);
        call.extend(b"abc\0");
        assert_eq!(data_of_write(&call).map(|(start, len)| &call[start..start + len]), Some(&b"abc"[..]));
        assert_eq!(data_of_write(&call[..call.len() - 4]), None);
        let mut reply = words(&[1, 1, 0, 0, 0, 0, 0, 0, 5, 1, 5]);
        reply.extend(b"abcde\0\0\0");
        assert_eq!(data_of_read(&reply).map(|(start, len)| &reply[start..start + len]), Some(&b"abcde"[..]));
        let short = shortened(&reply, 3).unwrap();
        assert_eq!(data_of_read(&short).map(|(start, len)| &short[start..start + len]), Some(&b"abc"[..]));
        assert_eq!(data_of_read(&refusal(1, 503, 0)), None);
        assert_eq!(word(&refusal(1, 503, 0), ANSWER), Some(10_008));
    }
}
