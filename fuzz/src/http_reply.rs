//! Any bytes as a server's reply: the client answers or fails in time, and never accepts a truncated reply as complete.
//!
//! The real client sends a request over a real connection on loopback to a server that replies with the input. The first
//! byte is a letter, of which the lower five bits are
//!
//! | bit | set | clear |
//! | --- | --- | --- |
//! | 1 | `HEAD` | `GET` |
//! | 2 | the reply comes in pieces of a few bytes | at once |
//! | 4 | the server stays silent after it, with the connection open | it closes the connection |
//! | 8 | the request is a `POST` with a body | it has no body |
//! | 16 | the server replies before it has read the request | after it |
//!
//! So `@HTTP/1.1 200 OK` and the following bytes are a reply to a `GET`, sent at once and then closed.
//!
//! Two things take real time: the silence, which ends with the client's own timeout of a few milliseconds, and the
//! scheduling of packets. A reply may therefore fail in one run and succeed in the next. The invariants hold in both.
//! HTTP/2 is not covered: the client uses it only if TLS negotiates it.

use std::time::Duration;

use bytes::Bytes;
use tidelock::ErrorKind;
use tidelock::capabilities::grant::{HeaderCredential, HttpGrant, Secret};
use tidelock::capabilities::http::{Http, HttpClient, MAX_HEADER_BYTES, MAX_HEADERS, Part, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::one_line;

/// What the host adds to each request, and no reply may bring back.
const SECRET: &str = "Bearer hush-hush";
/// What the client is to be patient for.
const PATIENCE: Duration = Duration::from_millis(20);
/// What nothing here can take unless it hangs.
const HANG: Duration = Duration::from_secs(8);
/// The most bytes of a body that are collected.
const BODY: usize = 1 << 20;

/// How the server behaves.
#[derive(Clone, Copy)]
struct Manner {
    head: bool,
    pieces: bool,
    silent: bool,
    post: bool,
    hasty: bool,
}

impl Manner {
    fn of(letter: u8) -> Self {
        let bit = |bit: u8| letter & bit != 0;
        Self { head: bit(1), pieces: bit(2), silent: bit(4), post: bit(8), hasty: bit(16) }
    }

    fn method(self) -> &'static str {
        match self {
            Self { head: true, .. } => "HEAD",
            Self { post: true, .. } => "POST",
            _ => "GET",
        }
    }
}

/// A server's socket and what drives it, for all inputs of a process.
struct World {
    runtime: Runtime,
    listener: TcpListener,
    origin: String,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port on loopback");
        let origin = format!("http://{}", listener.local_addr().expect("its address"));
        Self { runtime, listener, origin }
    }
}

/// Has the server reply with the input and checks what the client makes of it.
pub fn run(data: &[u8]) {
    thread_local!(static WORLD: World = World::new());
    let Some((letter, reply)) = data.split_first() else { return };
    let manner = Manner::of(*letter);
    WORLD.with(|world| {
        let outcome = world.runtime.block_on(async {
            let exchange = tokio::time::timeout(HANG, exchange(&world.origin, manner));
            tokio::select! {
                biased;
                outcome = exchange => outcome.expect("an answer or an error: the client hangs"),
                () = serve(&world.listener, manner, reply) => unreachable!(),
            }
        });
        match outcome {
            Ok((response, body)) => answered(manner, reply, &response, &body),
            Err(error) => failed(&error),
        }
    });
}

/// Serves every connection with the same reply. One that an earlier input has left waiting takes nothing from this one's.
async fn serve(listener: &TcpListener, manner: Manner, reply: &[u8]) {
    let connection = async |mut socket: TcpStream| {
        if !manner.hasty {
            let mut request = Vec::new();
            let end = if manner.method() == "POST" { b"\r\n\r\nask".as_slice() } else { b"\r\n\r\n" };
            while !request.ends_with(end) {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        }
        let piece = if manner.pieces { 7 } else { reply.len().max(1) };
        for piece in reply.chunks(piece) {
            if socket.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if manner.silent {
            std::future::pending::<()>().await;
        }
        if manner.hasty {
            // To close a socket with something unread resets it, and the reply is lost.
            let _ = socket.shutdown().await;
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        }
    };
    let mut open = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    let _ = socket.set_nodelay(true);
                    open.push(connection(socket));
                }
            }
            Some(()) = futures::StreamExt::next(&mut open) => {}
        }
    }
}

async fn exchange(origin: &str, manner: Manner) -> tidelock::Result<(Response, Bytes)> {
    let mut grant = HttpGrant::to([origin])?;
    grant.connection.private_addresses = true;
    grant.connection.connect_timeout = PATIENCE;
    grant.connection.stall_timeout = PATIENCE;
    grant.credentials = Some(HeaderCredential { header: "authorization".to_owned(), secret: Secret::new(SECRET) });
    let client = HttpClient::open(&grant)?;
    let body = if manner.method() == "POST" { vec![Part::Bytes(Bytes::from_static(b"ask"))] } else { Vec::new() };
    let url = format!("{origin}/x");
    let request = Request { method: manner.method().to_owned(), url, body, ..Request::default() };
    let mut response = client.send(request).await?;
    let body = std::mem::replace(&mut response.body, tidelock::Body::from_bytes(""));
    Ok((response, body.collect(BODY).await?))
}

/// Nothing that a server says is the caller's mistake or the host's.
fn failed(error: &tidelock::Error) {
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
    one_line::check_error(error, 1024);
    assert!(!format!("{error:?}").contains("hush"), "an error shows the credential: {error:?}");
}

fn answered(manner: Manner, reply: &[u8], response: &Response, body: &[u8]) {
    assert!((100..=999).contains(&response.status), "the status {}", response.status);
    assert!(response.headers.len() <= MAX_HEADERS, "{} headers", response.headers.len());
    let size: usize = response.headers.iter().map(|(name, value)| name.len() + value.chars().count()).sum();
    assert!(size <= MAX_HEADER_BYTES, "{size} bytes of headers");
    for (name, value) in &response.headers {
        let token = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"\"(),/:;<=>?@[\\]{}".contains(&b);
        assert!(!name.is_empty() && name.bytes().all(token), "the header name {name:?}");
        assert!(!value.contains(['\r', '\n', '\0']), "the header value {value:?}");
        assert!(!value.contains("hush-hush"), "the credential came back in {name}: {value:?}");
    }
    whole(manner, reply, response, body);
}

/// The body is all that the reply announced, by the rules of RFC 9112 §6.3.
fn whole(manner: Manner, reply: &[u8], response: &Response, body: &[u8]) {
    let all = |wanted: &str| {
        let values = response.headers.iter().filter(|(name, _)| name == wanted).flat_map(|(_, value)| value.split(','));
        values.map(|value| value.trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    if manner.head || matches!(response.status, 100..=199 | 204 | 304) {
        assert!(body.is_empty(), "a body where there can be none");
        return;
    }
    let (codings, lengths) = (all("transfer-encoding"), all("content-length"));
    if codings.last().is_some_and(|last| last == "chunked") {
        let ends = (0..reply.len()).filter(|at| reply[..*at].ends_with(b"\n\r\n") || reply[..*at].ends_with(b"\n\n"));
        let fits = ends.map(|at| unchunked(&reply[at..])).any(|bytes| bytes.as_deref() == Some(body));
        assert!(fits, "a chunked body that is not in the reply as a whole: {body:?}");
    } else if let Some(length) = lengths.first() {
        assert!(lengths.iter().all(|other| other == length), "lengths that differ: {lengths:?}");
        assert_eq!(length.parse(), Ok(body.len()), "a body of another length than announced");
        assert!(body.is_empty() || reply.windows(body.len()).any(|window| window == body), "bytes from nowhere");
    } else {
        assert!(reply.ends_with(body), "a body up to the end of the connection that is another");
        assert!(!manner.silent, "the end of a body that has no end");
    }
}

/// The content of a chunked body, if it is complete; what follows it is not looked at (RFC 9112 §7.1).
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let line = std::str::from_utf8(rest[..end].split(|b| *b == b';').next()?).ok()?;
        let size = usize::from_str_radix(line.trim_matches([' ', '\t', '\r']), 16).ok()?;
        rest = &rest[end + 1..];
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
