//! The RPC of a Kubo daemon: what is asked of it, and what it may answer.
//!
//! Everything is a POST. Where a block is looked for, a time is said (`timeout`): without it the daemon looks for ever for
//! one that nobody has. Replies are bounded, and one that is cut is an error: a JSON document that is not whole, or a block
//! that is not what its name says.
//!
//! The commands: <https://docs.ipfs.tech/reference/kubo/rpc/>.

use serde_json::Value;
use tidelock_sdk::http::{Http, Request, Response};
use tidelock_sdk::{Body, Error, entropy};

use crate::cid::{Cid, Codec};
use crate::errors::{Who, success};
use crate::lineage::Lineage;
use crate::options::Settings;
use crate::pins::{Entries, Pin};
use crate::{MAX_BLOCK, sha256};

/// `grants.http.rpc` in the configuration.
const RPC: Http = Http::granted("rpc");
/// The longest reply that is not a block or a list.
const MAX_REPLY: usize = 64 << 10;

/// A daemon.
#[derive(Clone, Debug)]
pub struct Rpc {
    url: String,
    timeout: String,
}

/// Whether blocks may come from peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// From anywhere.
    Anywhere,
    /// Only what the daemon has itself.
    Here,
}

/// How a file is added.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'a> {
    /// Under a pin of this name.
    Pinned(&'a str),
    /// Under this name in the daemon's own directory (MFS), from which it is never collected: for a while.
    Aside(&'a str),
}

impl Rpc {
    /// The daemon of the settings.
    pub fn of(settings: &Settings) -> Self {
        Self { url: settings.rpc.clone(), timeout: ["&timeout=", &settings.timeout.to_string(), "s"].concat() }
    }

    fn request(&self, command: &str, query: &[&str]) -> Request {
        Request::post([&self.url, "/api/v0/", command, "?", &query.concat()].concat())
    }

    async fn ask(&self, command: &str, query: &[&str]) -> Result<Response, Error> {
        success(Who::Rpc, RPC.send(self.request(command, query)).await?).await
    }

    async fn ask_json(&self, command: &str, query: &[&str]) -> Result<Value, Error> {
        json(&small(self.ask(command, query).await?.body).await?)
    }

    /// The daemon's version.
    pub async fn version(&self) -> Result<String, Error> {
        let reply = self.ask_json("version", &[self.timeout.trim_start_matches('&')]).await?;
        text(&reply, "Version").map(str::to_owned).ok_or_else(|| broken("version"))
    }

    /// Adds a file. Gives the name that the daemon says it has. `size` is that of the body, if it is known.
    pub async fn add(
        &self,
        data: Body,
        size: Option<u64>,
        key: &str,
        keep: Keep<'_>,
        settings: &Settings,
    ) -> Result<Cid, Error> {
        let keep = match keep {
            Keep::Pinned(name) => ["&pin=true&pin-name=", &name.replace('/', "%2F")].concat(),
            Keep::Aside(name) => ["&pin=false&to-files=%2F", name].concat(),
        };
        // All that the name of a file depends on is said: whatever the daemon's configuration says, it does this.
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
        let reply = small(success(Who::Rpc, RPC.send(request).await?).await?.body).await?;
        added(&reply)
    }

    /// Stores and pins the node of a change.
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
        let reply = json(&small(success(Who::Rpc, RPC.send(request).await?).await?.body).await?)?;
        let cid = reply.get("Cid").and_then(|cid| text(cid, "/")).ok_or_else(|| broken("dag/put"))?;
        Cid::parse(cid).map_err(|_| broken("dag/put"))
    }

    /// The name of an object's pin; `None` if it is not pinned.
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

    /// Removes the pin of an object; one that is not there is success.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        match self.ask_json("pin/rm", &["arg=", &cid.to_string(), "&recursive=true", &self.timeout]).await {
            Err(error) if error.is_not_found() => Ok(()),
            reply => reply.map(drop),
        }
    }

    /// Tells of each pin of an object. The list is one JSON document, so that one that is cut is noticed.
    pub async fn pins(&self, mut tell: impl FnMut(Pin)) -> Result<(), Error> {
        let mut body = self.ask("pin/ls", &["type=recursive&names=true&quiet=false"]).await?.body;
        let mut entries = Entries::default();
        while let Some(bytes) = body.next().await {
            entries.read(&bytes, &mut tell).map_err(|why| Error::other(["the list of pins: ", why].concat()))?;
        }
        body.finish().await?;
        if entries.whole() { Ok(()) } else { Err(Error::unavailable("the list of pins broke off")) }
    }

    /// A block, which has its name. `unavailable` if it is not found in time.
    pub async fn block(&self, cid: &Cid, place: Where) -> Result<Vec<u8>, Error> {
        let offline = if place == Where::Here { "&offline=true" } else { "" };
        let reply = self.ask("block/get", &["arg=", &cid.to_string(), offline, &self.timeout]).await?;
        whole_block(cid, reply.body).await
    }

    /// A block that the daemon has itself; `None` if it has not.
    pub async fn block_here(&self, cid: &Cid) -> Result<Option<Vec<u8>>, Error> {
        absent(self.block(cid, Where::Here).await)
    }

    /// The bytes of a block that the daemon has itself, as it says; `None` if it has not.
    pub async fn size_here(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        let query = ["arg=", &cid.to_string(), "&offline=true", &self.timeout];
        let Some(reply) = absent(self.ask_json("block/stat", &query).await)? else { return Ok(None) };
        reply.get("Size").and_then(Value::as_u64).map(Some).ok_or_else(|| broken("block/stat"))
    }

    /// A CAR of all blocks below one that is there already, each once, parents before children. It may take as long as it
    /// moves; one that the daemon cannot complete ends early.
    pub async fn export(&self, cid: &Cid) -> Result<Body, Error> {
        Ok(self.ask("dag/export", &["arg=", &cid.to_string(), "&progress=false&timeout=24h"]).await?.body)
    }

    /// Removes what was kept aside.
    pub async fn forget(&self, name: &str) -> Result<(), Error> {
        self.ask("files/rm", &["arg=%2F", name, "&force=true", &self.timeout]).await.map(drop)
    }
}

/// A block that came as the whole of a reply.
pub async fn whole_block(cid: &Cid, body: Body) -> Result<Vec<u8>, Error> {
    let block = body.read_all(MAX_BLOCK).await.map_err(|error| match error {
        Error::Invalid(_) => Error::corrupt("a block of more than 2 MiB came"),
        error => error,
    })?;
    if cid.names(&block, sha256) { Ok(block) } else { Err(wrong_block(cid)) }
}

fn wrong_block(cid: &Cid) -> Error {
    Error::corrupt(["the bytes that came are not the block ", &cid.to_string()].concat())
}

/// What is not there is no failure.
fn absent<T>(reply: Result<T, Error>) -> Result<Option<T>, Error> {
    match reply {
        Err(Error::Unavailable(why)) if why.contains("could not find") => Ok(None),
        reply => reply.map(Some),
    }
}

async fn small(body: Body) -> Result<Vec<u8>, Error> {
    body.read_all(MAX_REPLY).await.map_err(|error| match error {
        Error::Invalid(_) => Error::other("the daemon's answer is longer than it can be"),
        error => error,
    })
}

fn json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|_| Error::unavailable("the daemon's answer is not whole"))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn broken(command: &str) -> Error {
    Error::other(["the daemon does not answer `", command, "` as Kubo does"].concat())
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

/// The name that an answer to `add` gives: JSON objects, one a line, of which the last that has a hash is of the file. An
/// answer without one broke off.
fn added(reply: &[u8]) -> Result<Cid, Error> {
    let mut found = None;
    for line in reply.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        found = text(&json(line)?, "Hash").map(str::to_owned).or(found);
    }
    let found = found.ok_or_else(|| Error::unavailable("the daemon broke off without saying what it stored"))?;
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
    fn answers_to_add() {
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
