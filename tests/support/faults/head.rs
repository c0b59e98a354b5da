//! Heads of HTTP/1.1 messages, and the ends of their bodies.

use std::io::{self, BufRead, Read};

/// A head that is longer is none.
pub(super) const LONGEST_HEAD: u64 = 256 << 10;

/// The head of a request or of a response.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// As it came, with the empty line.
    pub(super) raw: Vec<u8>,
    /// The three words of the first line.
    first: [String; 3],
    /// The fields, names in lower case.
    fields: Vec<(String, String)>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    Connection,
}

impl Head {
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        let mut limited = from.take(LONGEST_HEAD);
        loop {
            let before = raw.len();
            if limited.read_until(b'\n', &mut raw)? == 0 {
                return if raw.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if raw[before..] == *b"\r\n" {
                return Ok(Some(Self::of(raw)));
            }
        }
    }

    fn of(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let first = [(); 3].map(|()| words.next().unwrap_or_default());
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.filter_map(field).collect();
        Self { raw, first, fields }
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        &self.first[0]
    }

    /// The path of a request, without its query.
    pub fn path(&self) -> &str {
        self.first[1].split('?').next().unwrap_or_default()
    }

    /// The query of a request; empty without one.
    pub fn query(&self) -> &str {
        self.first[1].split_once('?').map_or("", |(_, query)| query)
    }

    /// A field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether a request has a body, and not an empty one.
    pub fn has_body(&self) -> bool {
        self.of_request() != Framing::Length(0)
    }

    pub(super) fn status(&self) -> u16 {
        self.first[1].parse().unwrap_or(0)
    }

    fn coded(&self) -> Option<Framing> {
        if self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Some(Framing::Chunked);
        }
        self.field("content-length").and_then(|text| text.parse().ok()).map(Framing::Length)
    }

    pub(super) fn of_request(&self) -> Framing {
        self.coded().unwrap_or(Framing::Length(0))
    }

    pub(super) fn of_response(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status(), 204 | 304) {
            return Framing::Length(0);
        }
        self.coded().unwrap_or(Framing::Connection)
    }

    pub(super) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) || self.first[2] == "HTTP/1.0"
    }

    /// The same head with another length.
    pub(super) fn with_length(&self, length: u64) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.raw);
        let line = |line: &str| match line.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("content-length") => format!("{name}: {length}\r\n"),
            _ => format!("{line}\r\n"),
        };
        text.lines().map(line).collect::<String>().into_bytes()
    }
}
