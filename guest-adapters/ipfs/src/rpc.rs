//! The RPC of a Kubo daemon.
//!
//! Every request is a POST. Requests that may look for a block have a `timeout`: without one the daemon searches for ever
//! for a block that no peer has. Replies are bounded. A truncated reply is an error, since it is then incomplete JSON or
//! a block that does not match its CID.
//!
//! The commands: <https://docs.ipfs.tech/reference/kubo/rpc/>.

use serde_json::Value;
use tidelock_sdk::http::{Http, Request, Response};
use tidelock_sdk::{Body, Error, entropy};

use crate::cid::{Cid, Codec};
use crate::errors::{Service, success};
use crate::lineage::Lineage;
use crate::options::Settings;
use crate::pins::{Entries, Pin};
use crate::{MAX_BLOCK, sha256};

/// `grants.http.rpc` in the configuration.
const RPC: Http = Http::granted("rpc");
/// The longest reply, in bytes, except for blocks and lists.
const MAX_REPLY: usize = 64 << 10;

/// A client of the RPC.
#[derive(Clone, Debug)]
pub struct Rpc {
    url: String,
    timeout: String,
}

/// Where the daemon looks for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In its own store, and at peers.
    Network,
    /// In its own store only.
    Local,
}

/// What keeps an added file from garbage collection.
#[derive(Clone, Copy, Debug)]
pub enum AddAs<'a> {
    /// A pin of this name.
    Pin(&'a str),
    /// An entry of this name in the daemon's own file system (MFS).
    File(&'a str),
}

impl Rpc {
    /// Returns a client for the configured daemon.
    pub fn of(settings: &Settings) -> Self {
        Self { url: settings.rpc.clone(), timeout: ["&timeout=", &settings.timeout.to_string(), "s"].concat() }
    }

    fn request(&self, command: &str, query: &[&str]) -> Request {
        Request::post([&self.url, "/api/v0/", command, "?", &query.concat()].concat())
    }

    async fn ask(&self, command: &str, query: &[&str]) -> Result<Response, Error> {
        success(Service::Rpc, RPC.send(self.request(command, query)).await?).await
    }

    async fn ask_json(&self, command: &str, query: &[&str]) -> Result<Value, Error> {
        json(&small(self.ask(command, query).await?.body).await?)
    }

    /// Returns the version of the daemon.
    pub async fn version(&self) -> Result<String, Error> {
        let reply = self.ask_json("version", &[self.timeout.trim_start_matches('&')]).await?;
        text(&reply, "Version").map(str::to_owned).ok_or_else(|| broken("version"))
    }

    /// Adds a file. Returns the CID that the daemon reports. `size` is the size of the body, if it is known.
    pub async fn add(
        &self,
        data: Body,
        size: Option<u64>,
        key: &str,
        keep: AddAs<'_>,
        settings: &Settings,
    ) -> Result<Cid, Error> {
        let keep = match keep {
            AddAs::Pin(name) => ["&pin=true&pin-name=", &name.replace('/', "%2F")].concat(),
            AddAs::File(name) => ["&pin=false&to-files=%2F", name].concat(),
        };
        // Everything that the CID depends on is stated, so the daemon's configuration does not matter.
        let shape = [
            "cid-version=1&raw-leaves=true&hash=sha2-256&trickle=false&inline=false&nocopy=false&only-hash=false",
            "&wrap-with-directory=false&preserve-mode=false&preserve-mtime=false&progress=false&chunker=size-",
            &settings.chunk_size.to_string(),
            "&max-file-links=",
            &settings.max_links.to_string(),
            &keep,
        ]
        .concat();
        let boundary: String = entropy::bytes(16).iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex).collect();
        let head = ["--", &boundary, "\r\ncontent-disposition: form-data; name=\"file\"; filename=\"", key].concat();
        let request = self
            .request("add", &[&shape])
            .header("content-type", ["multipart/form-data; boundary=", &boundary].concat())
            .bytes([&head, "\"\r\ncontent-type: application/octet-stream\r\n\r\n"].concat().into_bytes())
            .body(data, size)
            .bytes(["\r\n--", &boundary, "--\r\n"].concat().into_bytes());
        let reply = small(success(Service::Rpc, RPC.send(request).await?).await?.body).await?;
        added(&reply)
    }

    /// Stores and pins the node of an incremental object.
    pub async fn put_lineage(&self, node: &Lineage) -> Result<Cid, Error> {
        let boundary = "node-of-a-change";
        let head =
            ["--", boundary, "\r\ncontent-disposition: form-data; name=\"file\"; filename=\"node\"\r\n"].concat();
        let body = [
            head.as_bytes(),
            b"content-type: application/octet-stream\r\n\r\n",
            &node.encode(),
            b"\r\n--",
            boundary.as_bytes(),
            b"--\r\n",
        ];
        let query = ["input-codec=dag-cbor&store-codec=dag-cbor&hash=sha2-256&pin=true", &self.timeout];
        let request = self
            .request("dag/put", &query)
            .header("content-type", ["multipart/form-data; boundary=", boundary].concat())
            .bytes(body.concat());
        let reply = json(&small(success(Service::Rpc, RPC.send(request).await?).await?.body).await?)?;
        let cid = reply.get("Cid").and_then(|cid| text(cid, "/")).ok_or_else(|| broken("dag/put"))?;
        Cid::parse(cid).map_err(|_| broken("dag/put"))
    }

    /// Returns the name of an object's pin; `None` if the object is not pinned.
    pub async fn pin(&self, cid: &Cid) -> Result<Option<String>, Error> {
        let query = ["arg=", &cid.to_string(), "&type=recursive&names=true", &self.timeout];
        let reply = match self.ask_json("pin/ls", &query).await {
            Err(error) if error.is_not_found() => return Ok(None),
            reply => reply?,
        };
        let pin = reply.get("Keys").and_then(Value::as_object).and_then(|keys| keys.values().next());
        let pin = pin.ok_or_else(|| broken("pin/ls"))?;
        Ok(Some(text(pin, "Name").unwrap_or_default().to_owned()))
    }

    /// Removes the pin of an object. Succeeds if there is none.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        match self.ask_json("pin/rm", &["arg=", &cid.to_string(), "&recursive=true", &self.timeout]).await {
            Err(error) if error.is_not_found() => Ok(()),
            reply => reply.map(drop),
        }
    }

    /// Calls `tell` with each recursive pin. The list is one JSON document, so a truncated one is noticed.
    pub async fn pins(&self, mut tell: impl FnMut(Pin)) -> Result<(), Error> {
        let mut body = self.ask("pin/ls", &["type=recursive&names=true&quiet=false"]).await?.body;
        let mut entries = Entries::default();
        while let Some(bytes) = body.next().await {
            entries.read(&bytes, &mut tell).map_err(|why| Error::other(["the list of pins: ", why].concat()))?;
        }
        body.finish().await?;
        if entries.whole() { Ok(()) } else { Err(Error::unavailable("the list of pins ended early")) }
    }

    /// Returns a block, checked against its CID. Fails with `unavailable` if it is not found in time.
    pub async fn block(&self, cid: &Cid, lookup: Lookup) -> Result<Vec<u8>, Error> {
        let offline = if lookup == Lookup::Local { "&offline=true" } else { "" };
        let reply = self.ask("block/get", &["arg=", &cid.to_string(), offline, &self.timeout]).await?;
        read_block(cid, reply.body).await
    }

    /// Returns a block of the daemon's own store; `None` if it is not there.
    pub async fn local_block(&self, cid: &Cid) -> Result<Option<Vec<u8>>, Error> {
        if_found(self.block(cid, Lookup::Local).await)
    }

    /// Returns the size that the daemon reports for a block of its own store, in bytes; `None` if it is not there.
    pub async fn local_block_size(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        let query = ["arg=", &cid.to_string(), "&offline=true", &self.timeout];
        let Some(reply) = if_found(self.ask_json("block/stat", &query).await)? else { return Ok(None) };
        reply.get("Size").and_then(Value::as_u64).map(Some).ok_or_else(|| broken("block/stat"))
    }

    /// Returns a CAR of the blocks below one that the daemon has, each once, parents before children. It has no deadline;
    /// it ends early if the daemon cannot complete it.
    pub async fn export(&self, cid: &Cid) -> Result<Body, Error> {
        Ok(self.ask("dag/export", &["arg=", &cid.to_string(), "&progress=false&timeout=24h"]).await?.body)
    }

    /// Removes an entry that [`AddAs::File`] made.
    pub async fn remove_file(&self, name: &str) -> Result<(), Error> {
        self.ask("files/rm", &["arg=%2F", name, "&force=true", &self.timeout]).await.map(drop)
    }
}

/// Reads a reply that is one block, and checks it against its CID.
pub async fn read_block(cid: &Cid, body: Body) -> Result<Vec<u8>, Error> {
    let block = body.read_all(MAX_BLOCK).await.map_err(|error| match error {
        Error::Invalid(_) => Error::corrupt("the block is larger than 2 MiB"),
        error => error,
    })?;
    if cid.matches(&block, sha256) { Ok(block) } else { Err(wrong_block(cid)) }
}

fn wrong_block(cid: &Cid) -> Error {
    Error::corrupt(["the reply is not the block ", &cid.to_string()].concat())
}

/// Turns "the block is not in the local store" into `None`.
fn if_found<T>(reply: Result<T, Error>) -> Result<Option<T>, Error> {
    match reply {
        Err(Error::Unavailable(why)) if why.contains("could not find") => Ok(None),
        reply => reply.map(Some),
    }
}

async fn small(body: Body) -> Result<Vec<u8>, Error> {
    body.read_all(MAX_REPLY).await.map_err(|error| match error {
        Error::Invalid(_) => Error::other("the daemon's reply is too long"),
        error => error,
    })
}

fn json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|_| Error::unavailable("the daemon's reply is not complete JSON"))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn broken(command: &str) -> Error {
    Error::other(["the daemon's reply to `", command, "` is not that of Kubo"].concat())
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

/// Parses the reply to `add`: one JSON object per line, the last of which with a hash describes the file. A reply without
/// a hash is truncated.
fn added(reply: &[u8]) -> Result<Cid, Error> {
    let mut found = None;
    for line in reply.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        found = text(&json(line)?, "Hash").map(str::to_owned).or(found);
    }
    let found = found.ok_or_else(|| Error::unavailable("the daemon's reply to `add` ended early"))?;
    match Cid::parse(&found) {
        Ok(cid) if cid.codec() != Codec::DagCbor => Ok(cid),
        _ => Err(broken("add")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    #[test]
    fn replies_to_add() {
        let line = ["{\"Name\":\"k\",\"Hash\":\"", HASH, "\",\"Size\":\"0\"}\n"].concat();
        assert_eq!(added(line.as_bytes()).unwrap().to_string(), HASH);
        let progress = ["{\"Name\":\"k\",\"Bytes\":262144}\n", &line].concat();
        assert_eq!(added(progress.as_bytes()).unwrap().to_string(), HASH);
        for cut in [&b""[..], b"\n", b"{\"Name\":\"k\",\"Bytes\":262144}\n", &line.as_bytes()[..40]] {
            assert!(matches!(added(cut), Err(Error::Unavailable(_))), "{cut:?}");
        }
        assert!(matches!(added(b"{\"Hash\":\"../../etc\"}"), Err(Error::Other(_))));
    }
}
