//! The interface of cases to an adapter's storage: a real server, or a folder.
//!
//! Another adapter is a file in `places/` with an implementation of [`Place`], and a line in its list. A case never checks
//! which adapter it has: it declares its [`Need`]s, and is left out on a place without them, with the
//! reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tidelock::capabilities::grant::{BucketCredentials, Secret};
use tidelock::config::CredentialRef;
use tidelock::runtime::Adapter;
use tidelock::types::ObjectId;
use tidelock::{Error, Result, Secrets};
use tidelock_tests::faults::Proxy;

use crate::cases::Case;

/// What a case may need. What comes first, an adapter declares of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `retrieve` takes ranges.
    Ranges,
    /// The base of an object is kept.
    Lineage,
    /// Bytes of unknown length are taken.
    Unsized,
    /// Labels are kept.
    Labels,
    /// It lists its objects.
    Inventory,
    /// It hands on what is stored without looking at it.
    HandsOn,
    /// It hands on what is read without looking at it.
    HandsBack,
    /// A network between host and server, so that there can be a proxy.
    Wire,
    /// The wire carries the bytes of objects.
    DataOnWire,
    /// Something that can be stopped and started again.
    Server,
    /// Objects can be damaged behind the server's back.
    AtRest,
    /// Somebody may be refused.
    Credentials,
    /// The server is used by this case alone.
    Alone,
    /// Objects are cold until they are restored.
    Cold,
}

impl Need {
    /// Why a case is left out where this is not.
    pub fn without(self) -> &'static str {
        match self {
            Self::Ranges => "the adapter does not declare ranges",
            Self::Lineage => "the adapter does not declare lineage",
            Self::Unsized => "the adapter does not declare unsized input",
            Self::Labels => "the adapter does not declare labels",
            Self::Inventory => "the adapter has no inventory",
            Self::HandsOn => "nobody says that it hands on what is stored",
            Self::HandsBack => "nobody says that it hands on what is read",
            Self::Wire => "there is no network between the host and this medium",
            Self::DataOnWire => "the bytes of objects do not travel over this wire",
            Self::Server => "there is no server that could stop",
            Self::AtRest => "nothing can be damaged behind the server's back",
            Self::Credentials => "nobody is refused here",
            Self::Alone => "the server is never alone",
            Self::Cold => "nothing is cold here",
        }
    }
}

/// An adapter, and how to come by a place for it.
pub struct Entry {
    /// The first part of the names of its cases.
    pub name: String,
    /// What is to be had. What an adapter declares is compared with what it says of itself.
    pub has: Vec<Need>,
    /// Why this medium cannot have a fault, by the name of the case; `None` for one that it can.
    pub lacks: fn(&str) -> Option<&'static str>,
    /// Its own cases, beside those of all.
    pub own: fn() -> Vec<Case>,
    /// Starts the server.
    pub start: Box<dyn Fn() -> Started + Send + Sync>,
}

/// A place, or why this machine cannot have it.
pub type Started = std::result::Result<Arc<dyn Place>, String>;

/// A server that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Whether it is what people run, rather than a stand-in for it.
    pub real: bool,
}

/// How a backend is to be configured.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// Where objects go: lower-case letters, digits and `-`. Two never see each other's objects.
    pub prefix: &'a str,
    /// The port of the proxy that stands for the server.
    pub through: Option<u16>,
    /// With credentials that are not allowed.
    pub stranger: bool,
}

/// What happens to an object behind everybody's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit in the middle is another.
    Flip,
    /// The second half is gone.
    Truncate,
    /// It is gone.
    Lose,
}

/// Where one adapter keeps its objects. Shared by all cases of the adapter, several at a time; only a case that needs
/// [`Need::Alone`] may stop it.
pub trait Place: Send + Sync {
    /// What stands behind it.
    fn servers(&self) -> Vec<Server>;

    /// The adapter's component.
    fn component(&self) -> PathBuf;

    /// The lines of the backend's table beside `adapter` and `limits`: settings and grants.
    fn table(&self, want: &Want<'_>) -> String;

    /// Further limits of the backend, as in its table `limits`; each with a comma before it.
    fn limits(&self) -> &'static str {
        ""
    }

    /// The credentials; other ones for a stranger.
    fn keys(&self, stranger: bool) -> Keys;

    /// Returns whether strangers may read, and only not write.
    fn strangers_read(&self) -> bool {
        false
    }

    /// A proxy before the server. Only where there is a [`Need::Wire`].
    fn proxy(&self, _seed: u64) -> Proxy {
        unreachable!("there is no wire")
    }

    /// The objects below a prefix as listed without the adapter: their ids and sizes. What is
    /// being written is not among them.
    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>>;

    /// The bytes of an object, read without the adapter.
    fn bytes<'a>(&'a self, prefix: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>>;

    /// Returns whether the server itself finds out that an object is damaged, and refuses to give it.
    fn notices_damage(&self) -> bool {
        false
    }

    /// Returns whether an object that was damaged is whole again once the same bytes are stored. Where the name follows
    /// from the bytes, the server may keep what it has.
    fn mends(&self) -> bool {
        true
    }

    /// Returns whether the adapter also lists what other cases have stored.
    fn lists_more(&self) -> bool {
        false
    }

    /// Returns whether the bytes of an object are gone once it is removed. Where they are others' too, they may still
    /// be read.
    fn forgets(&self) -> bool {
        true
    }

    /// What a refusal with this HTTP status, or what comes nearest to it, has to become: the name of a kind of error.
    fn refused(&self, status: u16) -> &'static str {
        match status {
            429 => "rate-limited",
            507 => "insufficient-balance",
            _ => "unavailable",
        }
    }

    /// Damages an object. Only where there is [`Need::AtRest`].
    fn damage<'a>(&'a self, _prefix: &'a str, _id: &'a ObjectId, _how: Damage) -> BoxFuture<'a, ()> {
        unreachable!("nothing can be damaged")
    }

    /// Returns whether it may be killed. One that would forget everything is taken off the network instead.
    fn mortal(&self) -> bool {
        false
    }

    /// Kills the server, as a crash would.
    fn kill(&self) {}

    /// Starts it again after it was killed.
    fn restart(&self) {}

    /// Makes an object readable that is not so at once.
    fn thaw<'a>(&'a self, _adapter: &'a Adapter, _id: &'a ObjectId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Credentials, whatever they are called.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The public half of a bucket's.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// What a header holds.
    pub header: String,
}

impl Secrets for Keys {
    fn bucket(&self, _: &CredentialRef) -> Result<BucketCredentials> {
        let secret_key = Secret::new(self.secret_key.as_str());
        Ok(BucketCredentials { access_key: self.access_key.clone(), secret_key, session_token: None })
    }

    fn http(&self, _: &CredentialRef) -> Result<Secret> {
        match self.header.as_str() {
            "" => Err(Error::invalid("this place wants no header")),
            header => Ok(Secret::new(header)),
        }
    }
}
