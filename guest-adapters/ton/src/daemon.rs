//! A client for the API of the storage daemon.
//!
//! Replies are bounded, and not trusted: the details of a bag are checked against its id ([`Details::verified`]). Paths are
//! those of the daemon; this module checks whether one is in the shared directory.

use serde::Deserialize;
use tidelock_sdk::error::printable;
use tidelock_sdk::http::{Http, Request, Response};
use tidelock_sdk::ids::relative_path;
use tidelock_sdk::{Body, Error};

use crate::bag::{Bag, BagId};
use crate::boc::Proof;
use crate::cell::Hash;
use crate::options::Settings;

/// `grants.http.daemon` in the configuration.
const DAEMON: Http = Http::granted("daemon");

/// The most bytes of a reply about one bag: it has 1.3 characters for every six pieces.
const MAX_DETAILS: usize = 8 << 20;
/// The most bytes of any other reply.
const MAX_ANSWER: usize = 64 << 10;

/// A client of a daemon.
#[derive(Clone, Debug)]
pub struct Daemon {
    endpoint: String,
}

impl Daemon {
    /// Returns a client for the configured daemon.
    pub fn of(settings: &Settings) -> Self {
        Self { endpoint: settings.daemon_endpoint.clone() }
    }

    /// Returns the details of a bag; `None` if the daemon does not know it.
    pub async fn details(&self, id: BagId) -> Result<Option<Details>, Error> {
        let response = self.get(&["details?bag_id=", &id.hex()].concat()).await?;
        if response.status == 404 {
            return Ok(None);
        }
        read(answered(response).await?, MAX_DETAILS).await.map(Some)
    }

    /// Creates a bag from the file at `path`, a path of the daemon's. Returns the id that the daemon reports.
    pub async fn create(&self, path: &str, description: &str) -> Result<String, Error> {
        let body = serde_json::json!({ "path": path, "description": description });
        let created: Created = read(answered(self.post("create", &body).await?).await?, MAX_ANSWER).await?;
        Ok(created.bag_id)
    }

    /// Starts the download of a bag into a folder of its own below `path`. The daemon accepts any id.
    pub async fn add(&self, id: BagId, path: &str) -> Result<(), Error> {
        let body = serde_json::json!({ "bag_id": id.hex(), "path": path, "download_all": true });
        answered(self.post("add", &body).await?).await.map(drop)
    }

    /// Removes a bag, and its files if `with_files` is set. Succeeds if the daemon does not know the bag.
    pub async fn remove(&self, id: BagId, with_files: bool) -> Result<(), Error> {
        let body = serde_json::json!({ "bag_id": id.hex(), "with_files": with_files });
        let response = self.post("remove", &body).await?;
        if response.status == 404 { Ok(()) } else { answered(response).await.map(drop) }
    }

    /// Returns a proof of a piece of a bag. Fails with `corrupt` if the daemon, which checks the piece first, finds that it
    /// is damaged, or if the proof is not one of this bag.
    pub async fn proof(&self, id: BagId, piece: u64, root: &Hash, pieces: u64) -> Result<Proof, Error> {
        let response = self.get(&["piece/proof?bag_id=", &id.hex(), "&piece=", &piece.to_string()].concat()).await?;
        if response.status == 404 {
            let said = response.body.read_at_most(MAX_ANSWER).await;
            return Err(match serde_json::from_slice::<Said>(&said) {
                Ok(Said { error: Some(why) }) => {
                    Error::corrupt(["the daemon cannot prove a piece: ", &printable(why.as_bytes())].concat())
                }
                _ => Error::unavailable("the daemon no longer has the bag"),
            });
        }
        let Proved { proof } = read(answered(response).await?, MAX_ANSWER).await?;
        let proof = data_encoding::BASE64.decode(proof.as_bytes()).ok();
        let proof = proof.and_then(|bytes| Proof::read(&bytes, root, pieces));
        proof.ok_or_else(|| Error::corrupt("the daemon's proof is not one of this bag"))
    }

    /// Returns the list of all bags, unparsed.
    pub async fn list(&self) -> Result<Body, Error> {
        Ok(answered(self.get("list").await?).await?.body)
    }

    async fn get(&self, path: &str) -> Result<Response, Error> {
        DAEMON.send(Request::get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Response, Error> {
        let body = body.to_string().into_bytes();
        DAEMON.send(Request::post(self.url(path)).header("content-type", "application/json").bytes(body)).await
    }

    fn url(&self, path: &str) -> String {
        [&self.endpoint, "/api/v1/", path].concat()
    }
}

/// Returns a successful reply. Fails with the error that another status means.
async fn answered(response: Response) -> Result<Response, Error> {
    if (200..300).contains(&response.status) {
        return Ok(response);
    }
    Err(match Error::from_response(response).await {
        Error::Unavailable(why) => Error::Unavailable(["the storage daemon: ", &why].concat()),
        Error::Denied(why) => {
            let hint = " (its user and password are the credentials of the grant `daemon`)";
            Error::Denied(["the storage daemon: ", &why, hint].concat())
        }
        other => other,
    })
}

async fn read<T: for<'de> Deserialize<'de>>(response: Response, limit: usize) -> Result<T, Error> {
    let wrong = || Error::other("the reply of the storage daemon is not one of its API");
    let bytes = match response.body.read_all(limit).await {
        // The reply is too long, so the request is not invalid.
        Err(Error::Invalid(_)) => return Err(wrong()),
        bytes => bytes?,
    };
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

#[derive(Deserialize)]
struct Created {
    bag_id: String,
}

#[derive(Deserialize)]
struct Proved {
    proof: String,
}

#[derive(Deserialize)]
struct Said {
    error: Option<String>,
}

/// The details of a bag, as the daemon reports them.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Details {
    /// Whether the daemon has the description of the bag. It has not until it finds a peer that has the bag.
    pub info_loaded: bool,
    /// Whether the daemon has the header.
    pub header_loaded: bool,
    /// Whether all pieces are downloaded.
    pub completed: bool,
    /// The downloaded bytes of the files.
    pub downloaded: u64,
    /// The bytes of the files.
    pub size: u64,
    /// The peers of the download.
    #[serde(default)]
    pub peers: Vec<serde::de::IgnoredAny>,
    description: String,
    dir_name: String,
    files: Vec<File>,
    piece_size: u32,
    merkle_hash: String,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct File {
    name: String,
    size: u64,
}

/// The details of a bag, checked against its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub id: BagId,
    /// Everything that the id covers, except for the pieces.
    pub bag: Bag,
    /// The root of the Merkle tree over the pieces.
    pub root: Hash,
    /// The path of its file below the shared directory; `None` if it is elsewhere.
    pub path: Option<String>,
}

impl Details {
    /// Returns whether the daemon has description and header.
    pub fn known(&self) -> bool {
        self.info_loaded && self.header_loaded
    }

    /// Returns whether the bag is in a folder of its own, as a downloaded one is.
    pub fn fetched(&self, id: BagId) -> bool {
        self.path.rsplit('/').next() == Some(&id.hex())
    }

    /// Checks the details against the id. Fails with `corrupt` if they do not match, and with `unsupported` if the bag does
    /// not have exactly one file.
    pub fn verified(&self, id: BagId, settings: &Settings) -> Result<Verified, Error> {
        let [file] = &self.files[..] else {
            let count = self.files.len().to_string();
            return Err(Error::unsupported(["an object is a bag of one file, but this bag has ", &count].concat()));
        };
        let bag = Bag {
            piece_size: self.piece_size,
            dir: self.dir_name.clone(),
            name: file.name.clone(),
            size: file.size,
            description: self.description.clone(),
        };
        let root = BagId::parse(&self.merkle_hash).map(|hash| hash.0);
        let root = root.filter(|root| bag.id(root) == Some(id) && bag.is_possible());
        let root = root.ok_or_else(|| {
            Error::corrupt("the details that the storage daemon reports do not match the id of the bag")
        })?;
        let folder = settings.path_of(&self.path);
        let below =
            folder.map(|folder| [folder, if folder.is_empty() { "" } else { "/" }, &bag.dir, &bag.name].concat());
        let path = below.filter(|path| relative_path(path).is_ok());
        Ok(Verified { id, bag, root, path })
    }
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
