//! `tidelock serve`, and a client for it.
//!
//! The client is a few lines over a plain socket rather than a library: tests close connections in the middle, stop
//! reading, and inspect raw responses.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Home, PATIENCE, ProgramOutput, Running, until};

/// A daemon. Killed when it is dropped.
pub struct Daemon {
    running: Running,
    /// Where it listens.
    pub server: Server,
}

/// Where a daemon listens, and the token that it requires.
#[derive(Debug, Clone)]
pub struct Server {
    /// As it prints it, and as `--server` takes it.
    pub address: String,
    /// Its token.
    pub token: Option<String>,
}

/// A connection.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, as far as it came.
    pub body: Vec<u8>,
    /// Whether the body is as long as was said.
    pub whole: bool,
}

impl Daemon {
    /// Starts one on the Unix socket of the folder.
    pub fn start(home: &Home) -> Self {
        Self::with(home, &[], None)
    }

    /// Starts one with arguments and waits until it listens.
    #[track_caller]
    pub fn with(home: &Home, arguments: &[&str], token: Option<&str>) -> Self {
        let mut running = Running::start(home.command(&[&["serve", "--json", "-v"], arguments].concat()));
        until("the daemon listens", || running.printed().contains('\n') || !running.runs());
        let line = running.printed();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}\n{}", running.said()));
        let address = listening["listen"].as_str().expect("an address").to_owned();
        Self { running, server: Server { address, token: token.map(str::to_owned) } }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// Returns whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.running.runs()
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        let pid = Pid::from_raw(self.running.pid() as i32).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it can be asked");
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.running.kill();
    }

    /// Waits for its end.
    pub fn finish(self) -> ProgramOutput {
        self.running.finish()
    }

    /// Asks it to stop, waits for its end and insists on status 0.
    #[track_caller]
    pub fn stop(self) -> ProgramOutput {
        self.ask_to_stop();
        self.finish().success(&["serve"])
    }
}

impl Server {
    /// A new connection.
    pub fn connect(&self) -> Box<dyn Stream> {
        self.try_connect().unwrap_or_else(|error| panic!("{}: {error}", self.address))
    }

    /// A new connection, if the daemon listens.
    pub fn try_connect(&self) -> io::Result<Box<dyn Stream>> {
        if let Some(path) = self.address.strip_prefix("unix:") {
            let stream = UnixStream::connect(PathBuf::from(path))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            return Ok(Box::new(stream));
        }
        let stream = TcpStream::connect(self.address.strip_prefix("http://").expect("an address"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    }

    /// The head of a request, with the token and what else is wanted.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    /// Sends a request on a connection of its own.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("connection", "close"));
        if !body.is_empty() || ["PUT", "POST"].contains(&method) {
            headers.push(("content-length", &length));
        }
        stream.write_all(self.head(method, path, &headers).as_bytes()).expect("the head can be sent");
        // A server that refuses stops reading: its answer says more than the broken pipe.
        let _ = stream.write_all(body);
        read(&mut *stream, method == "HEAD")
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }

    /// Stores an image; gives its id.
    #[track_caller]
    pub fn store(&self, image: &[u8]) -> String {
        let answer = self.send("PUT", "/v1/snapshots", &[], image);
        let stored = answer.json(if answer.status == 200 { 200 } else { 201 });
        stored["id"].as_str().expect("an id").to_owned()
    }
}

/// Reads a response. Whoever wants a following one on the same connection must not: it reads on to the end if no length
/// was said.
#[track_caller]
pub fn read(stream: &mut dyn Stream, bodiless: bool) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("no response ({other:?}): {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).expect("heads are text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status: status.parse().expect("a number"), headers, body: Vec::new(), whole: true };
    if answer.status == 100 {
        return read(stream, bodiless);
    }
    if bodiless || [204, 304].contains(&answer.status) {
        return answer;
    }
    let length: Option<u64> = answer.header("content-length").map(|text| text.parse().expect("a length"));
    let mut limited = stream.take(length.unwrap_or(u64::MAX));
    let ended = limited.read_to_end(&mut answer.body);
    answer.whole = ended.is_ok() && length.is_none_or(|length| answer.body.len() as u64 == length);
    answer
}

impl Answer {
    /// A header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The object in the body; insists on the status.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert!(self.whole, "a whole body");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// The problem details in the body; insists on the status and the kind.
    #[track_caller]
    pub fn problem(&self, status: u16, kind: &str) -> Value {
        let problem = self.json(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!((&problem["kind"], &problem["status"]), (&kind.into(), &status.into()), "{problem}");
        for key in ["type", "title", "detail"] {
            assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {problem}");
        }
        problem
    }
}
