//! Whether two backends store into two places.
//!
//! A folder has as many paths as it is mounted at, an export as many URLs, a bucket as many endpoints as its server has
//! names: two backends that are configured differently may lead to one container, and two copies there are one. So a copy
//! counts as a further one only if its backend does not see what the others see. Their identity objects tell: one question
//! for each pair, before the first copy of a process is made, so that nothing is sent in vain, and after each copy, since a
//! name may lead to another server by then. It is the backend that takes the copy that is asked for the identity which the
//! catalogue has of the other: that one may be away, and then it is not waited for. Where each backend sees the other's, one
//! container may have been copied into the
//! other instead (a mirrored bucket, a disk that was restored from the other). Then an object is made through one backend
//! and looked for through the other, and removed again.

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{IdentityUpload, in_time};
use crate::backend::Upload;
use crate::connector::Host;
use crate::types::{Error, ErrorKind, ObjectId, Result};

impl Host {
    /// Makes sure, once in this process, that a backend stores into another place than others which hold a copy already.
    ///
    /// # Errors
    /// `invalid` if it does not; otherwise as [`Self::ensure_container`], and what the backends say.
    pub(in crate::connector) fn ensure_apart<'a>(
        &'a self,
        backend: &'a str,
        others: Vec<String>,
    ) -> BoxFuture<'a, Result<()>> {
        let check = async move {
            match self.shares_place_with(backend, others).await? {
                Some(other) => Err(in_one_place(&other, backend)),
                None => Ok(()),
            }
        };
        // Boxed, as all that is seldom awaited in the path of every store.
        check.boxed()
    }

    /// Returns which of the others, if any, stores into the same place as a backend. Asks once in this process.
    ///
    /// # Errors
    /// As [`Self::ensure_container`], and what the backends say.
    pub(in crate::connector) fn shares_place_with<'a>(
        &'a self,
        backend: &'a str,
        others: Vec<String>,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        let check = async move {
            for other in others {
                if self.configured(backend)?.is_apart_from(&other) {
                    continue;
                }
                if self.are_one(backend, &other).await? {
                    return Ok(Some(other));
                }
                self.configured(backend)?.set_apart_from(other);
            }
            Ok(None)
        };
        check.boxed()
    }

    /// Makes sure that a backend on which a copy has been made stores into another place than others which hold one already,
    /// as it is after the copy was made.
    ///
    /// # Errors
    /// As [`Self::ensure_apart`].
    pub(in crate::connector) fn confirm_apart<'a>(
        &'a self,
        backend: &'a str,
        others: Vec<String>,
    ) -> BoxFuture<'a, Result<()>> {
        let check = async move {
            for other in others {
                if self.are_one(backend, &other).await? {
                    self.configured(backend)?.unset_apart_from(&other);
                    return Err(in_one_place(&other, backend));
                }
            }
            Ok(())
        };
        check.boxed()
    }

    /// Returns whether two backends lead to one place, of which the first is to take a copy. The other one is asked only if the
    /// first sees its identity, or if none is recorded.
    async fn are_one(&self, backend: &str, other: &str) -> Result<bool> {
        self.ensure_container(backend).await?;
        let catalogue = &self.inner.catalogue;
        if catalogue.container(other).await?.is_none() {
            in_time(other, self.ensure_container(other)).await?;
        }
        let (Some(own), Some(theirs)) = (catalogue.container(backend).await?, catalogue.container(other).await?) else {
            return Ok(false);
        };
        // What is on the other was stored into the container with this identity, wherever that is now.
        if !self.sees(backend, &theirs.object).await? {
            return Ok(false);
        }
        let seen = async {
            self.ensure_container(other).await?;
            self.sees(other, &own.object).await
        };
        Ok(in_time(other, seen).await? && self.shows_what_is_new(backend, other).await?)
    }

    /// Returns whether a backend has an object of this name, which another one has given.
    async fn sees(&self, backend: &str, object: &ObjectId) -> Result<bool> {
        match self.backend(backend).await?.objects.stat(object).await {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                // It is there, in whatever state.
                ErrorKind::Archived(_) | ErrorKind::Corrupt => Ok(true),
                ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::RateLimited(_) | ErrorKind::Cancelled => {
                    Err(error)
                }
                // A name of another adapter's means nothing to this one.
                _ => Ok(false),
            },
        }
    }

    /// Returns whether what is stored through one backend is there through the other.
    async fn shows_what_is_new(&self, backend: &str, other: &str) -> Result<bool> {
        let objects = &self.backend(backend).await?.objects;
        let upload =
            Arc::new(IdentityUpload { host: self.clone(), backend: backend.to_owned(), attempts: Mutex::default() });
        let receipt = objects.put(Upload::new(upload.clone())).await?;
        let seen = in_time(other, self.sees(other, &receipt.id)).await;
        // What cannot be removed keeps its intent, for a garbage collection.
        match self.delete_object(backend, &receipt.id).await {
            Ok(true) => {
                if let Some(key) = upload.key_of(&receipt) {
                    self.inner.catalogue.end_intent(&key).await?;
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(backend, object = %receipt.id, %error, "cannot remove an unused object"),
        }
        seen
    }
}

/// The error of two backends that lead to one place. It is one of the configuration: no other backend is tried.
fn in_one_place(one: &str, other: &str) -> Error {
    Error::invalid(format!(
        "`{one}` and `{other}` store into the same place under two names of it, so two copies would be one"
    ))
    .hint("give each backend of the route a place of its own (another mount, export, bucket or prefix), or ask for fewer `copies`")
}
