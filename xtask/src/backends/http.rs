//! Just enough HTTP to set a server on loopback up and to ask whether it is ready.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A request that takes longer has failed. What takes milliseconds may take long where all else is compiled at once.
const PATIENCE: Duration = Duration::from_secs(120);
/// No reply of a test server is larger.
const LARGEST: u64 = 1 << 20;

/// Sends a request to a port of 127.0.0.1; the body of a 2xx. `headers` are whole lines. Anything else is an error with
/// what the server said.
pub fn send(port: u16, method: &str, path: &str, headers: &[&str], body: &str) -> Result<String> {
    let asked = || format!("{method} http://127.0.0.1:{port}{path}");
    let reply = exchange(port, method, path, headers, body).with_context(asked)?;
    let (head, body) = reply.split_once("\r\n\r\n").with_context(asked)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{}: {status}: {}", asked(), body.trim());
    }
    Ok(body.to_owned())
}

fn exchange(port: u16, method: &str, path: &str, headers: &[&str], body: &str) -> Result<String> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    // 1.0: the reply ends with the connection, and comes in no chunks.
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut reply = Vec::new();
    stream.take(LARGEST).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
