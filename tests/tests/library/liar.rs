//! A proxy before an HTTP server that applies the test's changes: to a request body or to a reply.
//!
//! It reads each body as a whole, so that changes see complete bodies, and serves one request per connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

/// A reply: the status line's end and further headers, the body, and how many bytes the head announces if that is not the
/// body's length.
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
    pub announced: Option<usize>,
}

impl Reply {
    pub fn of(status: u16, headers: &str, body: &str) -> Self {
        Self { status, headers: headers.into(), body: body.into(), announced: None }
    }
}

/// What is changed of an exchange: the request's body, and the reply to it. `path` is that of the request.
pub trait Change: Send + Sync + 'static {
    fn request(&self, _path: &str, body: Vec<u8>) -> Vec<u8> {
        body
    }

    /// Says what to reply instead of asking.
    fn refuse(&self, _path: &str) -> Option<Reply> {
        None
    }

    fn reply(&self, _path: &str, _reply: &mut Reply) {}
}

/// Changes replies.
pub struct Replies<F>(pub F);

impl<F: Fn(&str, &mut Reply) + Send + Sync + 'static> Change for Replies<F> {
    fn reply(&self, path: &str, reply: &mut Reply) {
        (self.0)(path, reply);
    }
}

/// Changes what is sent.
pub struct Requests<F>(pub F);

impl<F: Fn(&str, &mut Vec<u8>) + Send + Sync + 'static> Change for Requests<F> {
    fn request(&self, path: &str, mut body: Vec<u8>) -> Vec<u8> {
        (self.0)(path, &mut body);
        body
    }
}

/// Replies itself.
pub struct Refuses<F>(pub F);

impl<F: Fn(&str) -> Option<Reply> + Send + Sync + 'static> Change for Refuses<F> {
    fn refuse(&self, path: &str) -> Option<Reply> {
        (self.0)(path)
    }
}

/// Stands before a port, for as long as the process lives. Gives its URL.
pub fn before(port: u16, change: impl Change) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let change = Arc::new(change);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let change = change.clone();
            // A client that goes away is no concern of the test's.
            std::thread::spawn(move || exchange(client, port, &*change));
        }
    });
    url
}

/// One request, one reply, and the connection is closed.
fn exchange(mut client: TcpStream, port: u16, change: &dyn Change) -> std::io::Result<()> {
    let (head, rest) = head(&mut client)?;
    let mut first = head.split("\r\n").next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    assert!(header(&head, "transfer-encoding").is_none(), "say the size: this proxy reads no chunks");
    let mut body = rest;
    while body.len() < length {
        let mut piece = vec![0; length - body.len()];
        let count = client.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        body.extend_from_slice(&piece[..count]);
    }
    let reply = match change.refuse(path) {
        Some(reply) => reply,
        None => {
            let body = change.request(path, body);
            let kept: String = ["content-type", "accept"]
                .iter()
                .filter_map(|name| Some(format!("{name}: {}\r\n", header(&head, name)?)))
                .collect();
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            let length = body.len();
            write!(server, "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n{kept}\r\n")?;
            server.write_all(&body)?;
            let (head, mut body) = self::head(&mut server)?;
            server.read_to_end(&mut body)?;
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
            let mut reply = Reply { status, headers: String::new(), body, announced: None };
            change.reply(path, &mut reply);
            reply
        }
    };
    let Reply { status, headers, body, announced } = reply;
    let length = announced.unwrap_or(body.len());
    write!(client, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n")?;
    client.write_all(&body)
}

/// Reads up to the end of the head; what came behind it is the second value.
fn head(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..count]);
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
