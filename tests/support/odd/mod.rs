//! A small S3 in memory that behaves oddly on request: what proxies, gateways and young services do, and what a hostile
//! one may. Path style, plain HTTP, no signature is checked.
//!
//! Real servers cannot be made to do this, and everything that a client must do right in spite of it shows in the requests
//! that it sends ([`Odd::requests`]) and in the objects that are there afterwards ([`Odd::objects`]). A [`Rule`] applies to the
//! requests that it is for, so many times; everything else is answered as S3 answers it.

mod request;
mod text;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use request::{Request, Rule, Then, on, refuse, when};
use text::{decode, encode, escape};

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    begun: u32,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    /// Zeros that were sent.
    zeros: u64,
}

impl State {
    fn begin(&mut self, key: &str) -> String {
        self.begun += 1;
        let id = format!("u{}", self.begun);
        self.uploads.insert(id.clone(), (key.into(), BTreeMap::new()));
        id
    }
}

#[derive(Default, Clone)]
struct Object {
    bytes: Vec<u8>,
    labels: Vec<(String, String)>,
}

/// A server. It listens until the process ends.
pub struct Odd {
    /// `http://127.0.0.1:PORT` and the path below which it is.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

/// Of every object and upload.
const WHEN: &str = "2024-05-06T07:08:09.000Z";

impl Odd {
    /// Starts one.
    pub fn start(rules: Vec<Rule>) -> Self {
        Self::below("", rules)
    }

    /// Starts one below a path (`/s3`); it serves nothing above it.
    pub fn below(path: &'static str, rules: Vec<Rule>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of loopback");
        let port = listener.local_addr().expect("it has an address").port();
        let state = Arc::new(Mutex::new(State { rules, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = shared.clone();
                // It fails when the client has had enough.
                std::thread::spawn(move || drop(serve(socket, path, &shared)));
            }
        });
        Self { endpoint: format!("http://127.0.0.1:{port}{path}"), state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule, before all others.
    pub fn rule(&self, rule: Rule) {
        self.state().rules.insert(0, rule);
    }

    /// How many bytes of bodies that are too long have been taken.
    pub fn zeros(&self) -> u64 {
        self.state().zeros
    }

    /// Adds an object.
    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.state().objects.insert(key.into(), Object { bytes: bytes.into(), labels: Vec::new() });
    }

    /// Loses an object.
    pub fn remove(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// Adds an upload that was never completed.
    pub fn begin(&self, key: &str) {
        self.state().begin(key);
    }

    /// The keys of unfinished uploads.
    pub fn uploads(&self) -> Vec<String> {
        self.state().uploads.values().map(|(key, _)| key.clone()).collect()
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// All requests so far, without their bodies.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How many requests of an operation have come.
    pub fn count(&self, operation: &str) -> usize {
        self.state().requests.iter().filter(|request| request.operation() == operation).count()
    }
}

/// An answer.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: String::new(), body: body.into() }
}

fn serve(socket: TcpStream, path: &str, state: &Mutex<State>) -> io::Result<()> {
    let mut out = socket.try_clone()?;
    let mut from = BufReader::new(socket);
    while let Some(request) = read(&mut from, path)? {
        let then = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.requests.push(Request { body: Vec::new(), ..request.clone() });
            let rule = state.rules.iter_mut().find(|rule| rule.times > 0 && (rule.when)(&request));
            rule.map(|rule| {
                rule.times -= 1;
                rule.then.clone()
            })
        };
        let head = request.method == "HEAD";
        let done = || answer(&request, &mut state.lock().unwrap_or_else(PoisonError::into_inner));
        match then {
            None => write(&mut out, head, done())?,
            Some(Then::Refuse { status, code, says, headers }) => {
                write(&mut out, head, Reply { headers, ..error(status, code, says) })?;
            }
            Some(Then::Answer { status, headers, body }) => {
                write(&mut out, head, Reply { status, headers, body: body.into() })?;
            }
            Some(Then::Flood { status, bytes }) => return flood(&mut out, status, bytes),
            Some(Then::Endless) => write(&mut out, head, endless(&request))?,
            Some(Then::Vanish) => {
                done();
                return Ok(());
            }
            Some(Then::NoLength) => write_chunked(&mut out, head, &done())?,
            Some(Then::Trickle) => {
                let reply = done();
                let body = write_head(&mut out, &reply, reply.body.len() as u64)?;
                for piece in body.chunks(2 << 10).filter(|_| !head) {
                    out.write_all(piece)?;
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Some(Then::Silence) => std::thread::sleep(Duration::from_secs(3600)),
            Some(Then::Short(missing)) => {
                let reply = done();
                let body = write_head(&mut out, &reply, reply.body.len() as u64)?;
                return out.write_all(&body[..body.len().saturating_sub(missing)]);
            }
            Some(Then::Long(more)) => {
                let reply = done();
                let body = write_head(&mut out, &reply, reply.body.len() as u64 + more)?;
                out.write_all(body)?;
                for _ in 0..more.div_ceil(1 << 20) {
                    out.write_all(&vec![0; 1 << 20])?;
                    state.lock().unwrap_or_else(PoisonError::into_inner).zeros += 1 << 20;
                }
                return Ok(());
            }
            Some(Then::ZeroLength) => {
                let Reply { status, headers, .. } = done();
                write!(out, "HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\n\r\n")?;
            }
        }
    }
    Ok(())
}

fn write(out: &mut TcpStream, head: bool, reply: Reply) -> io::Result<()> {
    let body = write_head(out, &reply, reply.body.len() as u64)?;
    if head { Ok(()) } else { out.write_all(body) }
}

/// Writes the head of an answer whose body has so many bytes. Returns the body.
fn write_head<'a>(out: &mut TcpStream, reply: &'a Reply, len: u64) -> io::Result<&'a [u8]> {
    let Reply { status, headers, body } = reply;
    write!(out, "HTTP/1.1 {status} X\r\n{headers}content-length: {len}\r\n\r\n")?;
    Ok(body)
}

fn write_chunked(out: &mut TcpStream, head: bool, reply: &Reply) -> io::Result<()> {
    let Reply { status, headers, body } = reply;
    if head {
        return write!(out, "HTTP/1.1 {status} X\r\n{headers}\r\n");
    }
    write!(out, "HTTP/1.1 {status} X\r\n{headers}transfer-encoding: chunked\r\n\r\n")?;
    for chunk in body.chunks(10_000) {
        write!(out, "{:x}\r\n", chunk.len())?;
        out.write_all(chunk)?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(b"0\r\n\r\n")
}

fn flood(out: &mut TcpStream, status: u16, bytes: u64) -> io::Result<()> {
    write!(out, "HTTP/1.1 {status} X\r\ncontent-type: application/xml\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let blank = vec![b' '; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        write!(out, "{:x}\r\n", blank.len())?;
        out.write_all(&blank)?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(b"0\r\n\r\n")
}

fn read(from: &mut BufReader<TcpStream>, path: &str) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    // Through a proxy the target is a whole URL.
    let local = target.strip_prefix("http://").map_or(&*target, |rest| &rest[rest.find('/').unwrap_or(rest.len())..]);
    let (below, query) = local.split_once('?').unwrap_or((local, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    let query = query.split('&').filter(|text| !text.is_empty()).map(pair).collect();
    // Nothing is at another path: no bucket, so no key either.
    let below = below.strip_prefix(path).and_then(|below| below.strip_prefix("/b")).unwrap_or("/<elsewhere>");
    let key = decode(below.strip_prefix('/').unwrap_or(below));
    Ok(Some(Request { method, key, query, headers, body, target: target.clone() }))
}

fn error(status: u16, code: &str, says: &str) -> Reply {
    reply(status, format!("<Error><Code>{code}</Code><Message>{says}</Message></Error>"))
}

fn answer(request: &Request, state: &mut State) -> Reply {
    let Request { key, query, headers, body, .. } = request;
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    match request.operation() {
        _ if key.starts_with("<elsewhere>") => reply(404, "<html>nothing here</html>"),
        "List" => list(request, number("max-keys").unwrap_or(1000), state),
        "ListUploads" => {
            let prefix = query.get("prefix").map_or("", String::as_str);
            let mut all = String::new();
            for (id, (key, _)) in state.uploads.iter().filter(|(_, (key, _))| key.starts_with(prefix)) {
                let key = escape(key);
                all +=
                    &format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{WHEN}</Initiated></Upload>");
            }
            reply(
                200,
                format!(
                    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{all}</ListMultipartUploadsResult>"
                ),
            )
        }
        "Begin" => {
            let id = state.begin(key);
            reply(
                200,
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
            )
        }
        "Part" => match state.uploads.get_mut(&query["uploadId"]) {
            Some((_, parts)) => {
                parts.insert(number("partNumber").unwrap_or_default() as u32, body.clone());
                Reply { headers: "etag: \"part\"\r\n".into(), ..reply(200, "") }
            }
            None => error(404, "NoSuchUpload", "gone"),
        },
        "Complete" => match state.uploads.remove(&query["uploadId"]) {
            Some((key, parts)) => {
                let bytes = parts.into_values().flatten().collect();
                state.objects.insert(key, Object { bytes, labels: Vec::new() });
                reply(200, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
            }
            None => error(404, "NoSuchUpload", "gone"),
        },
        "Abort" => (state.uploads.remove(&query["uploadId"]), reply(204, "")).1,
        "Delete" => (state.objects.remove(key), reply(204, "")).1,
        "Put" if headers.contains_key("if-none-match") && state.objects.contains_key(key) => {
            error(412, "PreconditionFailed", "exists")
        }
        "Put" => {
            let label = |(name, value): (&String, &String)| {
                name.starts_with("x-amz-meta-").then(|| (name.clone(), value.clone()))
            };
            let labels = headers.iter().filter_map(label).collect();
            state.objects.insert(key.clone(), Object { bytes: body.clone(), labels });
            Reply { headers: "etag: \"whole\"\r\n".into(), ..reply(200, "") }
        }
        _ => match state.objects.get(key) {
            Some(object) => get(request, object),
            None => error(404, "NoSuchKey", "there is none"),
        },
    }
}

fn get(request: &Request, object: &Object) -> Reply {
    let labels: String = object.labels.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let size = object.bytes.len();
    let Some(range) = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
    else {
        return Reply { headers: labels, ..reply(200, object.bytes.clone()) };
    };
    let start: usize = range.0.parse().unwrap_or(0);
    if start >= size {
        return error(416, "InvalidRange", "behind the end");
    }
    let end = range.1.parse::<usize>().map_or(size, |last| size.min(last + 1));
    let headers = format!("{labels}content-range: bytes {start}-{}/{size}\r\n", end - 1);
    Reply { headers, ..reply(206, &object.bytes[start..end]) }
}

fn endless(request: &Request) -> Reply {
    let number = |name: &str| request.query.get(name).and_then(|text| text.trim_start_matches("snap-").parse().ok());
    let begin = number("start-after").map_or(0, |last: u64| last + 1);
    let entry = |number| format!("<Contents><Key>snap-{number:026}</Key><Size>1</Size></Contents>");
    let all: String = (begin..begin + number("max-keys").unwrap_or(1000)).map(entry).collect();
    reply(200, format!("<ListBucketResult><IsTruncated>true</IsTruncated>{all}</ListBucketResult>"))
}

fn list(request: &Request, limit: usize, state: &State) -> Reply {
    let text = |name: &str| request.query.get(name).map_or("", String::as_str);
    let after = match text("continuation-token") {
        "" => text("start-after"),
        token => token,
    };
    let mut keys = state.objects.iter().filter(|(key, _)| key.starts_with(text("prefix")) && key.as_str() > after);
    let page: Vec<_> = keys.by_ref().take(limit).collect();
    let more = keys.next().is_some();
    let mut contents = String::new();
    for (key, object) in &page {
        let (key, size) = (encode(key), object.bytes.len());
        contents +=
            &format!("<Contents><Key>{key}</Key><LastModified>{WHEN}</LastModified><Size>{size}</Size></Contents>");
    }
    let token = page.last().filter(|_| more).map(|(key, _)| escape(key)).unwrap_or_default();
    let token = if more { format!("<NextContinuationToken>{token}</NextContinuationToken>") } else { String::new() };
    reply(
        200,
        format!(
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{token}{contents}</ListBucketResult>"
        ),
    )
}
