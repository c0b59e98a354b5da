//! The flavour for HTTP/1.1: reads heads, knows where bodies end, and breaks one exchange while the next may pass.
//!
//! One exchange after another on each connection, as clients without pipelining do (all that are tested here). Heads
//! pass unchanged, so signatures stay valid. The place's [`Classify`] decides whether a request carries data up or
//! down.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

pub use super::head::Head;

use super::head::{Framing, LONGEST_HEAD};
use super::relay::{Passage, Way, copy, over};
use super::{Control, Fault, Injection, On, Proxy, reset};

/// Says whether a request carries data of an object, or asks for such.
pub type Classify = fn(&Head) -> Option<On>;

/// A proxy before the HTTP server on a port of 127.0.0.1.
///
/// # Errors
/// What the system says to a listener.
pub fn before(port: u16, classify: Classify, seed: u64) -> io::Result<Proxy> {
    Proxy::start(seed, move |client, control| {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).inspect_err(|_| reset(&client))?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let mut exchange = Exchange {
            from_client: BufReader::with_capacity(64 << 10, client.try_clone()?),
            from_server: BufReader::with_capacity(64 << 10, server.try_clone()?),
            client,
            server,
            control,
        };
        while exchange.run(classify)? {}
        Ok(())
    })
}

struct Exchange<'a> {
    client: TcpStream,
    server: TcpStream,
    from_client: BufReader<TcpStream>,
    from_server: BufReader<TcpStream>,
    control: &'a Control,
}

impl Exchange<'_> {
    /// One request and its response. False when the connection is over.
    fn run(&mut self, classify: Classify) -> io::Result<bool> {
        let Some(request) = Head::read(&mut self.from_client)? else { return Ok(false) };
        let kind = classify(&request);
        let injection = self.control.request(kind);
        let (up, down) = match injection {
            Some(Injection { fault: Fault::Refuse { status, retry_after }, .. }) => {
                return self.refuse(&request, status, retry_after).map(|()| !request.closes());
            }
            Some(injection) if kind == Some(On::Up) => (Some(injection), None),
            injected => (None, injected),
        };
        self.send(&request, up)?;
        self.receive(&request, down)
    }

    /// Takes the request, which the server never sees, and refuses.
    fn refuse(&mut self, request: &Head, status: u16, retry_after: Option<u32>) -> io::Result<()> {
        if expects(request) {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        drain(&mut self.from_client, request.of_request())?;
        let after = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let said = if request.method() == "HEAD" { "" } else { "refused by the proxy of the tests" };
        let length = said.len();
        let reply = format!(
            "HTTP/1.1 {status} Refused\r\n{after}content-type: text/plain\r\ncontent-length: {length}\r\n\r\n{said}"
        );
        self.client.write_all(reply.as_bytes())
    }

    fn send(&mut self, request: &Head, injection: Option<Injection>) -> io::Result<()> {
        let framing = request.of_request();
        let mut passage = Passage::new(&self.server, self.control, Way::Up, injection, known(framing));
        passage.frame(&request.raw)?;
        if expects(request) {
            // The server's word on it goes to the client as any response; a refusal then is one.
            let interim = Head::read(&mut self.from_server)?.ok_or_else(|| over("no response"))?;
            self.client.write_all(&interim.raw)?;
            if interim.status() != 100 {
                return Err(over("refused before the body"));
            }
        }
        let sent = body(&mut self.from_client, &mut passage, framing);
        match (sent, injection) {
            // The fault ends both sides.
            (Err(error), Some(injection)) => {
                if injection.fault == Fault::Reset {
                    reset(&self.client);
                }
                Err(error)
            }
            // A server that has refused stops reading: its response says why.
            (Err(error), None) if error.kind() == io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, request: &Head, injection: Option<Injection>) -> io::Result<bool> {
        let mut response = Head::read(&mut self.from_server)?.ok_or_else(|| over("no response"))?;
        while (100..200).contains(&response.status()) {
            self.client.write_all(&response.raw)?;
            response = Head::read(&mut self.from_server)?.ok_or_else(|| over("no response"))?;
        }
        let framing = response.of_response(request.method());
        let empty = framing == Framing::Length(0);
        let mut passage = Passage::new(&self.client, self.control, Way::Down, injection, known(framing));
        if let (Some(Injection { fault: Fault::Short, dice }), Framing::Length(size @ 1..)) = (injection, framing) {
            let less = dice % size;
            passage.control.went_down(less as usize);
            self.client.write_all(&response.with_length(less))?;
            let mut kept = self.from_server.by_ref().take(less);
            io::copy(&mut kept, &mut &self.client)?;
            drain(&mut self.from_server, Framing::Length(size - less))?;
            return Ok(!request.closes());
        }
        if injection.is_some() && empty {
            // Without data to break, the response itself does not come.
            passage.end()?;
        }
        passage.frame(&response.raw)?;
        body(&mut self.from_server, &mut passage, framing)?;
        Ok(framing != Framing::Connection && !request.closes() && !response.closes())
    }
}

fn expects(request: &Head) -> bool {
    request.field("expect").is_some_and(|what| what.eq_ignore_ascii_case("100-continue"))
}

fn known(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(size) => Some(size),
        _ => None,
    }
}

fn body(from: &mut impl BufRead, passage: &mut Passage<'_>, framing: Framing) -> io::Result<()> {
    match framing {
        Framing::Length(size) => copy(from, passage, Some(size))?,
        Framing::Connection => copy(from, passage, None)?,
        Framing::Chunked => loop {
            let line = line(from)?;
            let size = chunk(&line)?;
            if passage.falls_short(size) {
                passage.frame(b"0\r\n\r\n")?;
                return Err(over("fell short"));
            }
            if size == 0 {
                passage.end()?;
                passage.frame(&line)?;
                return trailers(from, passage);
            }
            passage.frame(&line)?;
            copy(from, passage, Some(size))?;
            passage.frame(&self::line(from)?)?;
        },
    }
    passage.end()
}

/// What stands behind the last chunk, to the empty line.
fn trailers(from: &mut impl BufRead, passage: &mut Passage<'_>) -> io::Result<()> {
    loop {
        let line = line(from)?;
        passage.frame(&line)?;
        if line == b"\r\n" {
            return Ok(());
        }
    }
}

fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LONGEST_HEAD).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn chunk(line: &[u8]) -> io::Result<u64> {
    let text = String::from_utf8_lossy(line);
    let digits = text.split([';', '\r', '\n']).next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| over("not a chunk"))
}

/// Reads a body to its end and forgets it.
fn drain(from: &mut impl BufRead, framing: Framing) -> io::Result<()> {
    let skip = |from: &mut dyn BufRead, size: u64| io::copy(&mut from.take(size), &mut io::sink()).map(drop);
    match framing {
        Framing::Length(size) => skip(from, size),
        Framing::Connection => skip(from, u64::MAX),
        Framing::Chunked => loop {
            let size = chunk(&line(from)?)?;
            if size == 0 {
                while line(from)? != b"\r\n" {}
                return Ok(());
            }
            skip(from, size)?;
            line(from)?;
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Plan;

    /// A server that gives a fixed response to each request, and says how long the requests were.
    fn server(response: &'static [u8]) -> (u16, std::sync::mpsc::Receiver<Vec<u8>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, sees) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut from = BufReader::new(client.try_clone().unwrap());
                while let Ok(Some(head)) = Head::read(&mut from) {
                    let mut body = vec![0; head.field("content-length").map_or(0, |len| len.parse().unwrap())];
                    if from.read_exact(&mut body).is_err() {
                        break;
                    }
                    let _ = seen.send(body);
                    if (&client).write_all(response).is_err() {
                        break;
                    }
                }
            }
        });
        (port, sees)
    }

    fn classify(head: &Head) -> Option<On> {
        Some(if head.has_body() { On::Up } else { On::Down })
    }

    fn ask(proxy: &Proxy, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        // A gate that is closed does not take it.
        let _ = stream.write_all(request.as_bytes());
        let mut reply = Vec::new();
        // Whatever ends it.
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    const GET: &str = "GET /x?y HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    const PUT: &str = "PUT /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nabcd";

    #[test]
    fn messages_without_a_fault_pass_and_are_counted() {
        let (port, sees) = server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let proxy = before(port, classify, 1).unwrap();
        assert!(ask(&proxy, GET).ends_with("3\r\nabc\r\n0\r\n\r\n"));
        assert!(ask(&proxy, PUT).ends_with("\r\n0\r\n\r\n"));
        assert_eq!((sees.recv().unwrap(), sees.recv().unwrap()), (vec![], b"abcd".to_vec()));
        let seen = proxy.seen();
        assert_eq!((seen.requests, seen.up, seen.down, seen.injected), (2, 1, 1, 0));
        assert!(seen.bytes_up > 100 && seen.bytes_down > 100, "{seen:?}");
    }

    #[test]
    fn each_fault_has_its_effect() {
        let (port, sees) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef");
        let proxy = before(port, classify, 1).unwrap();
        let get = |fault| {
            proxy.plan(Plan::always(fault, On::Down));
            ask(&proxy, GET)
        };
        let refused = get(Fault::Refuse { status: 429, retry_after: Some(7) });
        assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: 7\r\n"), "{refused}");
        assert!(sees.try_recv().is_err(), "the server saw it");
        let cut = get(Fault::Cut);
        assert!(cut.contains("content-length: 6") && !cut.ends_with("abcdef"), "{cut}");
        let short = get(Fault::Short);
        // That of a reply in chunks is another one that ends well.
        let (chunked, _sees) = server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let before_chunked = before(chunked, classify, 1).unwrap();
        before_chunked.plan(Plan::always(Fault::Short, On::Down));
        assert!(ask(&before_chunked, GET).ends_with("\r\n\r\n0\r\n\r\n"));
        assert!(!short.contains("content-length: 6") && short.contains("content-length: "), "{short}");
        let flipped = get(Fault::Flip);
        assert!(flipped.contains("content-length: 6") && !flipped.ends_with("abcdef"), "{flipped}");
        proxy.mend();
        assert!(ask(&proxy, GET).ends_with("abcdef"));
        while sees.try_recv().is_ok() {}
        proxy.plan(Plan::always(Fault::Flip, On::Up));
        assert!(ask(&proxy, PUT).ends_with("abcdef"));
        let stored = sees.recv().unwrap();
        let bits: u32 = stored.iter().zip(b"abcd").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1, "{stored:?}");
        proxy.close();
        assert_eq!(ask(&proxy, GET), "");
        proxy.open();
        assert!(ask(&proxy, GET).ends_with("abcdef"));
    }

    /// What is held still goes on to hold until the fault is over.
    #[test]
    fn a_stall_is_one() {
        let (port, _sees) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef");
        let proxy = before(port, classify, 1).unwrap();
        proxy.plan(Plan::always(Fault::Stall, On::Down));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        stream.write_all(GET.as_bytes()).unwrap();
        while proxy.seen().injected == 0 {
            std::thread::yield_now();
        }
        stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        let mut reply = Vec::new();
        let kind = stream.read_to_end(&mut reply).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
        proxy.mend();
        stream.set_read_timeout(None).unwrap();
        let _ = stream.read_to_end(&mut reply);
        assert!(!reply.ends_with(b"abcdef"));
    }
}
