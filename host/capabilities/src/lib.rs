//! Capabilities that an adapter can be granted: HTTP requests, objects in a bucket, files below a directory; and digests
//! at native speed, which need no grant.
//!
//! Each capability has three parts:
//!
//! - a *trait* ([`http::Http`], [`bucket::Bucket`], [`directory::Directory`]) in the terms of the interface that adapters
//!   import, but in native types: bytes are [`Body`](tidelock_types::Body)s, failures are [`Error`]s;
//! - a *grant* ([`grant`]): the permissions of one backend, typed and validated before anything is opened;
//! - the *state* that implements a grant ([`http::HttpClient`], [`bucket::S3Bucket`], [`directory::LocalDirectory`]):
//!   created once per backend, shared by all of its operations, holding connection pools and credentials.
//!
//! [`Capabilities`] is the set that one backend has, by name. A borrowed view of one of them (`&dyn Bucket`) is all that
//! the glue of an interface version gets to see. Because they are trait objects, an embedder can put its own in place
//! of ours (an object store that it has already, a directory in memory), and a test can wrap the real one with faults.
//!
//! The traits return boxed futures rather than being `async fn`s, since only so can they be trait objects; the one
//! allocation is far below the cost of any request.
//!
//! Nothing here depends on WebAssembly, retries a whole operation, or reads the environment. The one exception to the last
//! is the set of trusted certificates, which is the operating system's and can be moved by `SSL_CERT_FILE`; a grant can name
//! others.

pub mod bucket;
pub mod digest;
pub mod directory;
pub mod egress;
pub mod grant;
pub mod http;
mod key;
pub mod requested;
mod reserved;
mod stall;
pub mod tls;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::grant::{BucketGrant, DirectoryGrant, HttpGrant, NfsGrant};
use self::requested::{Narrowed, RequestedGrants};
use tidelock_types::{Account, Error, Platform, Result};

/// Kind (`http`, `bucket`, `directory`) and name of each grant that a backend has.
pub type GrantNames = BTreeSet<(&'static str, String)>;

/// The capabilities of one backend, by the names of its grants. Cheap to clone: every host call does it.
#[derive(Clone, Default)]
pub struct Capabilities {
    granted: Arc<Granted>,
    /// Of the operation that uses them.
    account: Option<Arc<dyn Account>>,
}

#[derive(Clone, Default)]
struct Granted {
    http: BTreeMap<String, Arc<dyn http::Http>>,
    bucket: BTreeMap<String, Arc<dyn bucket::Bucket>>,
    directory: BTreeMap<String, Arc<dyn directory::Directory>>,
    /// The adapter's requests, if it has declared them.
    asked: Option<Arc<RequestedGrants>>,
    /// The time and the random numbers of what is opened here.
    platform: Platform,
}

impl Capabilities {
    fn of(granted: Granted) -> Self {
        Self { granted: Arc::new(granted), account: None }
    }

    /// The same capabilities for one operation: what they hold and work is charged to its account.
    #[must_use]
    pub fn for_operation(&self, account: Arc<dyn Account>) -> Self {
        Self { granted: self.granted.clone(), account: Some(account) }
    }

    /// Nothing at all: every use is `denied`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Nothing at all yet; what is granted later takes the time and random numbers from here.
    pub fn with_platform(platform: Platform) -> Self {
        Self::of(Granted { platform, ..Granted::default() })
    }

    /// Grants HTTP requests under a name, in place of what had the name.
    ///
    /// # Errors
    /// `invalid` for a grant that makes no sense.
    pub fn grant_http(&mut self, name: &str, grant: &HttpGrant) -> Result<()> {
        let opened = http::HttpClient::open(grant)?;
        self.provide_http(name, Arc::new(opened));
        Ok(())
    }

    /// Grants objects of a bucket under a name, replacing an earlier grant of that name. Connects to nothing yet.
    ///
    /// # Errors
    /// `invalid` for a grant that makes no sense.
    pub fn grant_bucket(&mut self, name: &str, grant: &BucketGrant) -> Result<()> {
        let opened = bucket::S3Bucket::open_with(grant, self.granted.platform.clone())?;
        self.provide_bucket(name, Arc::new(opened));
        Ok(())
    }

    /// Grants files of a directory under a name, replacing an earlier grant of that name. Creates the directory if it does
    /// not exist, and removes leftovers of earlier processes in it. Blocks on the file system briefly.
    ///
    /// # Errors
    /// Why the directory could not be opened.
    pub fn grant_directory(&mut self, name: &str, grant: &DirectoryGrant) -> Result<()> {
        let opened = directory::LocalDirectory::open_with(grant, self.granted.platform.clone())?;
        self.provide_directory(name, Arc::new(opened));
        Ok(())
    }

    /// Grants files of an NFSv3 export under a name, replacing an earlier grant of that name. Connects to nothing yet.
    pub fn grant_nfs(&mut self, name: &str, grant: NfsGrant) {
        self.provide_directory(
            name,
            Arc::new(directory::NfsDirectory::open_with(grant, self.granted.platform.clone())),
        );
    }

    /// Puts an own implementation in the place of a grant.
    pub fn provide_http(&mut self, name: &str, http: Arc<dyn http::Http>) {
        Arc::make_mut(&mut self.granted).http.insert(name.to_owned(), http);
    }

    /// Puts an own implementation in the place of a grant.
    pub fn provide_bucket(&mut self, name: &str, bucket: Arc<dyn bucket::Bucket>) {
        Arc::make_mut(&mut self.granted).bucket.insert(name.to_owned(), bucket);
    }

    /// Puts an own implementation in the place of a grant.
    pub fn provide_directory(&mut self, name: &str, directory: Arc<dyn directory::Directory>) {
        Arc::make_mut(&mut self.granted).directory.insert(name.to_owned(), directory);
    }

    /// Returns the requested part of these capabilities. Everything else is denied, whether or not it was granted.
    #[must_use]
    pub fn only(&self, asked: &RequestedGrants) -> Self {
        let http = self.granted.http.iter().filter_map(|(name, granted)| {
            let narrowed = Narrowed::new(name, granted.clone(), asked.http.get(name)?);
            Some((name.clone(), Arc::new(narrowed) as Arc<dyn http::Http>))
        });
        let bucket = self.granted.bucket.iter().filter(|(name, _)| asked.bucket.contains(*name));
        let directory = self.granted.directory.iter().filter(|(name, _)| asked.directory.contains(*name));
        Self::of(Granted {
            http: http.collect(),
            bucket: bucket.map(|(name, granted)| (name.clone(), granted.clone())).collect(),
            directory: directory.map(|(name, granted)| (name.clone(), granted.clone())).collect(),
            asked: Some(Arc::new(asked.clone())),
            platform: self.granted.platform.clone(),
        })
    }

    /// The grants that there are: kind (`http`, `bucket`, `directory`) and name.
    pub fn names(&self) -> GrantNames {
        let http = self.granted.http.keys().map(|name| ("http", name.clone()));
        let bucket = self.granted.bucket.keys().map(|name| ("bucket", name.clone()));
        http.chain(bucket).chain(self.granted.directory.keys().map(|name| ("directory", name.clone()))).collect()
    }

    /// The HTTP grant of this name.
    ///
    /// # Errors
    /// `denied` if there is none.
    pub fn http(&self, name: &str) -> Result<Arc<dyn http::Http>> {
        self.granted.http.get(name).cloned().ok_or_else(|| self.refusal("http", name))
    }

    /// The bucket grant of this name.
    ///
    /// # Errors
    /// `denied` if there is none.
    pub fn bucket(&self, name: &str) -> Result<Arc<dyn bucket::Bucket>> {
        let bucket = self.granted.bucket.get(name).ok_or_else(|| self.refusal("bucket", name))?;
        let bound = self.account.as_ref().and_then(|account| bucket.for_operation(account));
        Ok(bound.unwrap_or_else(|| bucket.clone()))
    }

    /// The directory grant of this name.
    ///
    /// # Errors
    /// `denied` if there is none.
    pub fn directory(&self, name: &str) -> Result<Arc<dyn directory::Directory>> {
        let directory = self.granted.directory.get(name).ok_or_else(|| self.refusal("directory", name))?;
        let bound = self.account.as_ref().and_then(|account| directory.for_operation(account));
        Ok(bound.unwrap_or_else(|| directory.clone()))
    }

    fn refusal(&self, kind: &str, name: &str) -> Error {
        // The name is the guest's: it is quoted and truncated.
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        if self.granted.asked.as_ref().is_some_and(|asked| !asked.has(kind, name)) {
            return Error::denied(format!(
                "the adapter uses the {kind} grant `{shown}`, which its manifest does not request"
            ))
            .hint(format!("ask the adapter's author to add asks.{kind}.{shown} to adapter.toml"));
        }
        Error::denied(format!("the adapter uses the {kind} grant `{shown}`, which it does not have"))
            .hint(format!("add `grants.{kind}.{shown}` to the backend's configuration"))
    }

    /// Removes leftovers of dead writers in directories, and unfinished uploads to buckets that began longer
    /// ago than `older_than`. Returns their number.
    ///
    /// # Errors
    /// The error of the first grant that fails.
    pub async fn gc(&self, older_than: std::time::Duration) -> Result<u64> {
        let mut removed = 0;
        for directory in self.granted.directory.values() {
            removed += directory.gc().await?;
        }
        for bucket in self.granted.bucket.values() {
            removed += bucket.gc(older_than).await?;
        }
        Ok(removed)
    }
}

impl std::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capabilities")
            .field("http", &self.granted.http.keys())
            .field("bucket", &self.granted.bucket.keys())
            .field("directory", &self.granted.directory.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn nothing_is_granted_by_default() {
        let none = Capabilities::none();
        assert!(none.names().is_empty());
        for error in [none.http("a").err(), none.bucket("a").err(), none.directory("a").err()] {
            assert_eq!(*error.unwrap().kind(), ErrorKind::Denied);
        }
        let hint = none.bucket("objects").err().unwrap();
        assert_eq!(hint.advice().unwrap(), "add `grants.bucket.objects` to the backend's configuration");
    }
}
