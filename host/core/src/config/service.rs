//! The table `service`: address, token and limits of the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::read::{Item, TomlTable, home_of_somebody, path};
use crate::types::{Error, Result, parse_bytes, parse_duration};

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The address; default: the socket `tidelock.sock`.
    pub listen: Listen,
    /// The file with the token that clients must send; always there for [`Listen::Tcp`].
    pub token_file: Option<PathBuf>,
    /// Concurrent connections, which also bounds concurrent requests; further ones wait. With a token, only connections that
    /// have shown it count.
    pub connections: u32,
    /// Bytes of uploads in progress, all together, as they arrive: images, deltas and components. A delta counts with the copy of its
    /// base, its window and the new image.
    pub uploads: u64,
    /// How long a client may take for the head of a request, and for each further piece of a body in either direction.
    pub idle: Duration,
    /// How long a stop waits for requests in progress.
    pub drain: Duration,
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket: every client that can open it is trusted.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
}

impl Service {
    /// The defaults, on a place.
    pub fn on(listen: Listen) -> Self {
        let (idle, drain) = (Duration::from_secs(30), Duration::from_secs(30));
        Self { listen, token_file: None, connections: 256, uploads: 16 << 40, idle, drain }
    }

    /// Refuses an address without a token.
    ///
    /// # Errors
    /// `invalid`, as the end of a sentence that begins with the address.
    pub fn check(&self) -> Result<()> {
        if matches!(self.listen, Listen::Tcp(_)) && self.token_file.is_none() {
            return Err(Error::invalid(
                "is an address that every user of this machine can reach, and needs a `token_file`",
            )
            .hint("add `token_file = \"token\"`, or listen on a Unix socket"));
        }
        Ok(())
    }
}

impl Listen {
    /// `unix:` and a path, which belongs to `directory` if it is relative, or an address and a port.
    ///
    /// # Errors
    /// `invalid`, with a message that continues a sentence about the value.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        match text.strip_prefix("unix:") {
            Some("") => Err(Error::invalid("lacks the path of the socket").hint("write \"unix:tidelock.sock\"")),
            Some(path) => match home_of_somebody(path) {
                Some(error) => Err(error),
                None => Ok(Self::Unix(directory.join(path))),
            },
            None => text.parse().map(Self::Tcp).map_err(|_| {
                Error::invalid("is neither `unix:PATH` nor an address and a port")
                    .hint("write \"unix:tidelock.sock\" or \"127.0.0.1:7070\"")
            }),
        }
    }
}

/// Reads the table; paths in it belong to `directory`.
pub(super) fn service(item: Option<Item<'_>>, directory: &Path) -> Result<Service> {
    let mut service = Service::on(Listen::Unix(directory.join("tidelock.sock")));
    let Some(item) = item else { return Ok(service) };
    let table = item.table(&["listen", "token_file", "connections", "uploads", "idle", "drain"])?;
    service.token_file = table.get("token_file").map(|item| path(&item, directory)).transpose()?;
    if let Some(item) = table.get("connections") {
        service.connections = item.count(1 << 16)?;
    }
    if let Some(item) = table.get("uploads") {
        service.uploads = bytes(&item)?;
    }
    service.idle = duration(&table, "idle")?.unwrap_or(service.idle);
    service.drain = duration(&table, "drain")?.unwrap_or(service.drain);
    if let Some(item) = table.get("listen") {
        let wrong = |error: Error| item.wrong(error.message()).hint(error.advice().unwrap_or_default());
        service.listen = Listen::parse(item.text()?, directory).map_err(wrong)?;
        service.check().map_err(wrong)?;
    }
    Ok(service)
}

/// An integer, or text with a unit.
fn bytes(item: &Item<'_>) -> Result<u64> {
    let bytes = match item.value() {
        DeValue::Integer(_) => u64::try_from(item.integer()?).unwrap_or(0),
        _ => item.parsed(parse_bytes)?,
    };
    if bytes == 0 { Err(item.wrong("must be more than zero")) } else { Ok(bytes) }
}

pub(super) fn duration(table: &TomlTable<'_>, key: &str) -> Result<Option<Duration>> {
    let Some(item) = table.get(key) else { return Ok(None) };
    let duration = item.parsed(parse_duration)?;
    if duration.is_zero() {
        return Err(item.wrong("must be longer than zero"));
    }
    Ok(Some(duration))
}
