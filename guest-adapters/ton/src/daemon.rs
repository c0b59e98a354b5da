//! The storage daemon's API: what is asked, and what the answers are worth.
//!
//! Answers are read into memory up to a bound, and believed in nothing that matters: what a bag is follows from its id
//! ([`Details::verified`]). Paths are the daemon's own; whether one lies in the shared directory is looked at here.

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

/// The most bytes of an answer about one bag: there is a digit and a third for each six pieces in it.
const MAX_DETAILS: usize = 8 << 20;
/// The most bytes of any other answer.
const MAX_ANSWER: usize = 64 << 10;

/// Asks a daemon.
#[derive(Clone, Debug)]
pub struct Daemon {
    endpoint: String,
}

impl Daemon {
    /// The one that the settings name.
    pub fn of(settings: &Settings) -> Self {
        Self { endpoint: settings.daemon_endpoint.clone() }
    }

    /// What it says of a bag; `None` if it has never heard of it.
    pub async fn details(&self, id: BagId) -> Result<Option<Details>, Error> {
        let response = self.get(&["details?bag_id=", &id.hex()].concat()).await?;
        if response.status == 404 {
            return Ok(None);
        }
        read(answered(response).await?, MAX_DETAILS).await.map(Some)
    }

    /// Makes a bag of a file that it sees at `path`, and says what it calls it.
    pub async fn create(&self, path: &str, description: &str) -> Result<String, Error> {
        let body = serde_json::json!({ "path": path, "description": description });
        let created: Created = read(answered(self.post("create", &body).await?).await?, MAX_ANSWER).await?;
        Ok(created.bag_id)
    }

    /// Has it fetch a bag into a folder of the bag's own below `path`. It says yes to any id.
    pub async fn add(&self, id: BagId, path: &str) -> Result<(), Error> {
        let body = serde_json::json!({ "bag_id": id.hex(), "path": path, "download_all": true });
        answered(self.post("add", &body).await?).await.map(drop)
    }

    /// Has it forget a bag, and remove its files if it is told so. One that it does not know is success.
    pub async fn remove(&self, id: BagId, with_files: bool) -> Result<(), Error> {
        let body = serde_json::json!({ "bag_id": id.hex(), "with_files": with_files });
        let response = self.post("remove", &body).await?;
        if response.status == 404 { Ok(()) } else { answered(response).await.map(drop) }
    }

    /// A proof that shows a piece of a bag. `corrupt` if the daemon, which looks at the piece first, finds that it is not
    /// what it was, or gives a proof of something else.
    pub async fn proof(&self, id: BagId, piece: u64, root: &Hash, pieces: u64) -> Result<Proof, Error> {
        let response = self.get(&["piece/proof?bag_id=", &id.hex(), "&piece=", &piece.to_string()].concat()).await?;
        if response.status == 404 {
            let said = response.body.read_at_most(MAX_ANSWER).await;
            return Err(match serde_json::from_slice::<Said>(&said) {
                Ok(Said { error: Some(why) }) => {
                    Error::corrupt(["the daemon cannot prove a piece: ", &printable(why.as_bytes())].concat())
                }
                _ => Error::unavailable("the daemon does not have the bag any more"),
            });
        }
        let Proved { proof } = read(answered(response).await?, MAX_ANSWER).await?;
        let proof = data_encoding::BASE64.decode(proof.as_bytes()).ok();
        let proof = proof.and_then(|bytes| Proof::read(&bytes, root, pieces));
        proof.ok_or_else(|| Error::corrupt("the daemon gave a proof that is none of this bag"))
    }

    /// The list of all bags, as it comes.
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

/// The answer if it is a success, otherwise the error that its status means.
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
    let wrong = || Error::other("the storage daemon's answer is not what its API gives");
    let bytes = match response.body.read_all(limit).await {
        // Longer than any answer should be: that is not our request's fault.
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

/// What the daemon says of a bag.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Details {
    /// Whether what follows is known: for a bag that nobody has been found to have, it is not.
    pub info_loaded: bool,
    /// The same of the header.
    pub header_loaded: bool,
    /// Whether every piece is there.
    pub completed: bool,
    /// Bytes of the files that are there.
    pub downloaded: u64,
    /// Bytes of the files.
    pub size: u64,
    /// Whom it fetches from.
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

/// A bag that is what its id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub id: BagId,
    /// Everything that the id covers except the pieces.
    pub bag: Bag,
    /// The root of the tree over those.
    pub root: Hash,
    /// Where its file lies below the shared directory; none if it lies elsewhere.
    pub path: Option<String>,
}

impl Details {
    /// Whether the daemon knows what bag it is.
    pub fn known(&self) -> bool {
        self.info_loaded && self.header_loaded
    }

    /// Whether the daemon has a folder for this bag alone, as it makes one for what it fetches.
    pub fn fetched(&self, id: BagId) -> bool {
        self.path.rsplit('/').next() == Some(&id.hex())
    }

    /// The bag, if it is that of this id: `corrupt` if not, `unsupported` if it is one but no object.
    pub fn verified(&self, id: BagId, settings: &Settings) -> Result<Verified, Error> {
        let [file] = &self.files[..] else {
            let count = self.files.len().to_string();
            return Err(Error::unsupported(["an object is a bag of one file, and this one has ", &count].concat()));
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
        let root =
            root.ok_or_else(|| Error::corrupt("what the storage daemon says of the bag is not what its id says"))?;
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
