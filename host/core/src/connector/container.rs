//! The container of a backend: the folder, bucket or account that its objects are stored into, and whether it is still the
//! one that they were stored into.
//!
//! A disk that is not mounted, a folder that was made anew or a mistyped bucket answers like one that has lost every object.
//! So the first store into a backend leaves an *identity object* in its container: a short text, stored through the trait
//! [`Backend`](crate::backend::Backend) like any other object, so that every adapter can keep it. The catalogue records
//! which one it is. Where that is absent too, an absent object says nothing; where it is there, the object is missing.
//!
//! It is checked before the first store of a process, before objects are deleted, before an import, and whenever a backend
//! says `not-found` or something else that speaks against an object; and after each upload and each listing. A look reads
//! the identity object and compares its bytes: a login page or a web server that has one answer to everything is no container. A look proves only what had ended before it began, so those who
//! have something to prove share the next one that begins (`Looks`). Backends whose container is not recorded (a catalogue of
//! an earlier version) get one at the next store,
//! if at least one of a few recorded objects is there; until then, absence is weak evidence.
//!
//! Several catalogues may share a container, each with an identity object of its own. Two backends of one catalogue may not,
//! where each is to hold a copy (`container/apart.rs`).

mod apart;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Host;
use super::labels::{CONTAINER_PREFIX, container_key, container_keys_in};
use crate::backend::{Upload, UploadAttempt, UploadSource};
use crate::catalogue::Container;
use crate::types::{Body, Error, ErrorKind, Features, ObjectId, Receipt, Result, StoreHint};

/// The first line of an identity object.
const MAGIC: &str = "tidelock container 1\n";
/// The bytes of an identity object: the first line, and a line of 32 digits.
pub(super) const IDENTITY_SIZE: u64 = MAGIC.len() as u64 + 33;
/// How many recorded objects are looked for in a container that is not recorded.
const SAMPLE: u32 = 5;
/// How long a new object is waited for that the backend has acknowledged and does not show.
const LAG: Duration = Duration::from_secs(4);
/// How often it is looked for in that time.
const LAG_LOOKS: u32 = 8;
/// For how many seconds an identity that is recorded and not there may just not be visible yet.
const NEW_FOR: u64 = 60;
/// Looks at a container that are shared. They have numbers, in the order in which they begin.
#[derive(Default)]
pub(super) struct Looks {
    begun: AtomicU64,
    /// The last one that has ended, and its outcome. Locked while one is under way.
    ended: tokio::sync::Mutex<(u64, Option<Error>)>,
}

impl Looks {
    /// Returns the outcome of a look that begins after this is called: one's own, or one that another began meanwhile.
    async fn after_now<F: Future<Output = Result<()>>>(&self, look: impl FnOnce() -> F) -> Result<()> {
        let too_early = self.begun.load(Ordering::SeqCst);
        let mut ended = self.ended.lock().await;
        if ended.0 <= too_early {
            // One that is cancelled has a number and no outcome: whoever waits looks.
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            *ended = (number, look().await.err());
        }
        ended.1.as_ref().map_or(Ok(()), |error| Err(error.duplicate()))
    }
}

/// What it means that a backend does not have an object.
pub(super) enum Absence {
    /// The object is missing.
    Object,
    /// The container is another one, or cannot be asked. Says nothing about the object.
    Container(Error),
    /// Nothing is known of the container.
    Unknown,
}

/// Returns whether these are the bytes of the identity object of this name, which holds its digits where the writer chooses names.
fn identifies(object: &ObjectId, bytes: &[u8]) -> bool {
    let named = container_keys_in(object.as_str()).next().and_then(|key| key.strip_prefix(CONTAINER_PREFIX));
    is_identity(bytes) && named.is_none_or(|digits| bytes[MAGIC.len()..].starts_with(digits.as_bytes()))
}

/// Returns whether these are the bytes of an identity object.
pub(super) fn is_identity(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(MAGIC.as_bytes()).and_then(|rest| rest.strip_suffix(b"\n"));
    digits.is_some_and(|digits| {
        digits.len() == 32 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl Host {
    /// Finds out what it means that a backend does not have an object.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn absence(&self, backend: &str) -> Result<Absence> {
        Ok(match self.inner.catalogue.container(backend).await? {
            None => Absence::Unknown,
            Some(container) => match self.look_for(backend, &container).boxed().await {
                Ok(()) => Absence::Object,
                Err(error) => Absence::Container(error),
            },
        })
    }

    /// Makes sure that a backend talks to the container that is recorded, if one is.
    ///
    /// # Errors
    /// `unavailable` if it is another one; what the backend says.
    pub(super) async fn check_container(&self, backend: &str) -> Result<()> {
        match self.inner.catalogue.container(backend).await? {
            Some(container) => self.look_for(backend, &container).boxed().await,
            None => Ok(()),
        }
    }

    /// Makes sure, once in this process, that a backend talks to the container that is recorded, and records one if there is
    /// none. Those who come meanwhile wait for the one who looks.
    ///
    /// # Errors
    /// `unavailable` if it is another one, and what the backend says. The next store looks again.
    pub(super) fn ensure_container<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<()>> {
        let check = move || async move {
            match self.inner.catalogue.container(backend).await? {
                Some(container) => self.look_for(backend, &container).boxed().await?,
                None => {
                    self.look_for_some(backend).boxed().await?;
                    self.look_first(backend).await?;
                    self.identify_container(backend, None).boxed().await?;
                }
            }
            Ok(())
        };
        // Boxed, as all that is seldom awaited in the path of every store.
        async move { self.configured(backend)?.container_seen.get_or_try_init(check).await.copied() }.boxed()
    }

    /// Makes sure that a backend still talks to its container, by a look that begins after this was called: it proves where
    /// whatever has ended before went. Those who come while one looks share the next look.
    ///
    /// # Errors
    /// As [`Self::check_container`].
    pub(super) fn confirm_container<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.configured(backend)?.looks.after_now(|| self.check_container(backend)).await }.boxed()
    }

    /// Records the container that a backend talks to now in place of one that is lost. Does nothing if that is still there.
    /// Returns whether there was one, and it was lost.
    ///
    /// # Errors
    /// What the backend and the catalogue meet.
    pub(super) async fn replace_container(&self, backend: &str) -> Result<bool> {
        let lost = self.inner.catalogue.container(backend).await?;
        if let Some(container) = &lost
            && self.look_for(backend, container).boxed().await.is_ok()
        {
            return Ok(false);
        }
        self.identify_container(backend, lost.as_ref().map(|container| &container.object)).boxed().await?;
        Ok(lost.is_some())
    }

    async fn look_for(&self, backend: &str, container: &Container) -> Result<()> {
        match self.read_identity(backend, &container.object).boxed().await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                let age = self.inner.platform.unix_seconds().saturating_sub(container.created);
                let yet = if age < NEW_FOR { ", or not visible yet, since it was just stored" } else { "" };
                let what = format!("its identity object `{}` is not there{yet}", container.object);
                Err(another(backend, &what).with_source(error))
            }
            found => found,
        }
    }

    /// Reads an identity object and compares it.
    ///
    /// # Errors
    /// `unavailable` if it is something else; `not-found`; what the backend says.
    async fn read_identity(&self, backend: &str, object: &ObjectId) -> Result<()> {
        let objects = &self.backend(backend).await?.objects;
        let other = |what: String| another(backend, &format!("its identity object `{object}` has {what}"));
        let read = async { objects.get(object, None).await?.collect(IDENTITY_SIZE as usize + 1).await };
        match read.await {
            Ok(bytes) if identifies(object, &bytes) => Ok(()),
            Ok(bytes) if bytes.len() as u64 == IDENTITY_SIZE => Err(other("other bytes".to_owned())),
            Ok(bytes) => Err(other(format!("{} bytes instead of {IDENTITY_SIZE}", bytes.len()))),
            // One that is in cold storage is there if it has its size.
            Err(error) if matches!(error.kind(), ErrorKind::Archived(_)) => match objects.stat(object).await {
                Ok(stat) if stat.size == IDENTITY_SIZE => Ok(()),
                Ok(stat) => Err(other(format!("{} bytes instead of {IDENTITY_SIZE}", stat.size))),
                Err(error) if matches!(error.kind(), ErrorKind::Archived(_)) => Ok(()),
                Err(error) => Err(error),
            },
            // Longer, or not what its name says.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                Err(other("other bytes".to_owned()).with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns how many bytes a backend says that a new object has; `None` if it is in cold storage already. Waits for a few
    /// seconds for one that is not visible yet.
    ///
    /// # Errors
    /// `not-found` if it does not become visible; what the backend says.
    pub(super) async fn size_of_new(&self, backend: &str, object: &ObjectId) -> Result<Option<u64>> {
        let objects = &self.backend(backend).await?.objects;
        let shown = Self::once_visible(|| async { objects.stat(object).await.map(|stat| stat.size) }).await;
        match shown {
            Ok(size) => Ok(Some(size)),
            Err(error) if matches!(error.kind(), ErrorKind::Archived(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks about a new object until the backend shows it, for [`LAG`]: some services show what they have taken a moment later.
    async fn once_visible<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
        for _ in 1..LAG_LOOKS {
            match ask().await {
                Err(error) if *error.kind() == ErrorKind::NotFound => tokio::time::sleep(LAG / LAG_LOOKS).await,
                shown => return shown,
            }
        }
        ask().await
    }

    /// Makes sure of a container that is not recorded, as far as the objects tell that should be in it.
    pub(super) async fn look_for_some(&self, backend: &str) -> Result<()> {
        let placements = self.inner.catalogue.some_placements(backend, SAMPLE).await?;
        let objects = &self.backend(backend).await?.objects;
        let mut absent = 0;
        for placement in &placements {
            match objects.stat(&placement.object).await {
                Ok(_) => return Ok(()),
                Err(error) if *error.kind() == ErrorKind::NotFound => absent += 1,
                Err(error) => return Err(error),
            }
        }
        match absent {
            0 => Ok(()),
            _ => Err(another(backend, &format!("none of {absent} objects that were looked for is there"))),
        }
    }

    /// Stores an identity object and records it in place of what is `lost`. Who comes second removes its own.
    async fn identify_container(&self, backend: &str, lost: Option<&ObjectId>) -> Result<()> {
        let objects = &self.backend(backend).await?.objects;
        let upload =
            Arc::new(IdentityUpload { host: self.clone(), backend: backend.to_owned(), attempts: Mutex::default() });
        let receipt = objects.put(Upload::new(upload.clone())).await?;
        let key = upload
            .key_of(&receipt)
            .ok_or_else(|| Error::corrupt("no attempt has the receipt that was returned").on_backend(backend))?;
        let catalogue = &self.inner.catalogue;
        // A backend that acknowledges and keeps nothing, or something else, gets none: nothing could be told from it.
        if let Err(error) = Self::once_visible(|| self.read_identity(backend, &receipt.id)).await {
            if let Err(error) = self.delete_object(backend, &receipt.id).await {
                tracing::warn!(backend, object = %receipt.id, %error, "cannot remove an unused object");
            }
            return Err(match error.kind() {
                ErrorKind::NotFound => not_visible(backend, &receipt.id).with_source(error),
                _ => error,
            });
        }
        let recorded = catalogue.record_container(backend, &receipt.id, lost, Some(&key)).await?;
        if recorded.object == receipt.id {
            tracing::info!(backend, object = %receipt.id, "the container of the backend has an identity now");
            return Ok(());
        }
        if self.delete_object(backend, &receipt.id).await? {
            catalogue.end_intent(&key).await?;
        }
        self.look_for(backend, &recorded).boxed().await
    }
}

/// The error of a backend that does not show an identity that it has just taken.
fn not_visible(backend: &str, object: &ObjectId) -> Error {
    Error::unavailable(format!("the identity object `{object}`, which was just stored, is not visible yet"))
        .on_backend(backend)
        .hint("run it again in a moment; if it stays so, the backend does not keep what it acknowledges")
}

/// The error of a backend that talks to another container.
fn another(backend: &str, evidence: &str) -> Error {
    Error::unavailable(format!("the container is not the one that snapshots were stored into: {evidence}"))
        .on_backend(backend)
        .hint(format!(
            "mount it, or check bucket and prefix; if it is lost for good, run `tidelock import {backend} --new-container`"
        ))
}

/// The upload of an identity object. Every attempt has its own key and digits.
struct IdentityUpload {
    host: Host,
    backend: String,
    attempts: Mutex<Vec<(String, Option<Receipt>)>>,
}

impl IdentityUpload {
    /// The key of the attempt that has stored this.
    fn key_of(&self, receipt: &Receipt) -> Option<String> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = attempts.iter().find(|(_, stored)| stored.as_ref() == Some(receipt));
        stored.map(|(key, _)| key.clone())
    }
}

impl UploadSource for IdentityUpload {
    fn is_replayable(&self) -> bool {
        true
    }

    fn begin(&self, _: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        let begin = async move {
            let inner = &self.host.inner;
            let key = container_key(&inner.platform)?;
            inner.owner.begin_intent(&key, &self.backend).await?;
            self.attempts.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), None));
            let digits = key.strip_prefix(CONTAINER_PREFIX).unwrap_or_default();
            let bytes = Bytes::from(format!("{MAGIC}{digits}\n"));
            let hint = StoreHint { key, size: Some(bytes.len() as u64), labels: Vec::new() };
            Ok(UploadAttempt { body: Body::from_bytes(bytes), hint, base: None })
        };
        begin.boxed()
    }

    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>> {
        // What failed stays in the list, and its intent is given up with it.
        if let Ok(receipt) = outcome {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let attempt = attempts.iter_mut().find(|(begun, _)| begun == key);
            attempt.into_iter().for_each(|(_, stored)| *stored = Some(receipt.clone()));
        }
        std::future::ready(Ok(())).boxed()
    }
}

impl Drop for IdentityUpload {
    fn drop(&mut self) {
        let attempts = self.attempts.get_mut().unwrap_or_else(PoisonError::into_inner);
        // That of the one that was recorded has ended.
        self.host.inner.owner.give_up(attempts.drain(..).map(|(key, _)| key));
    }
}

#[cfg(test)]
mod tests;
