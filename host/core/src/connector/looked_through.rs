//! Whether the catalogue knows all that a backend holds, as far as that matters for removals.
//!
//! An object that packs take pages from has to stay as long as they do. A catalogue that was put back from an older copy does
//! not know the packs that were stored since; a new one, in the place of one that was lost, knows none; an import that was cut
//! short, or was of a few objects, has found some. So a backend that takes packs counts as not looked through until an
//! import of all that it lists has ended and has read everything. Until then `rm` removes a snapshot for its users, and its
//! objects on that backend stay (`catalogue/sqlite/looked_through.rs`).
//!
//! A container that is empty at the first store needs no import. One that may not be listed, and the backend of an adapter
//! that cannot list, count as empty then; where the adapter cannot list, the objects that an import is given are taken for all.

use super::Host;
use super::encoding::keeps_packs;
use super::labels::{is_identity_name, may_be_ours};
use crate::catalogue::Placement;
use crate::types::{ErrorKind, Result};

/// Objects that are listed at once, to see whether there are any.
const PAGE: u32 = 1000;
/// Pages without an object of ours after which a container counts as one that has some.
const PAGES: u32 = 10;

impl Host {
    /// Returns the backends that may hold more than the catalogue knows: objects on them are not removed until
    /// [`Self::import`] has looked through them.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn not_looked_through(&self) -> Result<Vec<String>> {
        self.inner.catalogue.not_looked_through(self.inner.backends.keys().cloned().collect()).await
    }

    /// Looks whether there is something in a container that no catalogue entry names, before the first store into it.
    ///
    /// # Errors
    /// Errors of the catalogue; what keeps the backend from answering.
    pub(super) async fn look_first(&self, backend: &str) -> Result<()> {
        if !self.can_have_packs(backend).await? || !self.backend(backend).await?.objects.info().inventory {
            return Ok(());
        }
        let catalogue = &self.inner.catalogue;
        let look = match catalogue.not_looked_through(vec![backend.to_owned()]).await?.is_empty() {
            true => None,
            false => catalogue.begin_look(backend, false).await?,
        };
        // One that lists nothing of what is recorded there does not list everything.
        let known = !catalogue.some_placements(backend, "", 1).await?.is_empty();
        match (!known && self.is_empty(backend).await?, look) {
            (true, Some(look)) => self.end_look(backend, look).await.map(drop),
            (false, None) => catalogue.begin_look(backend, false).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Returns whether a backend lists no object that a host may have stored. One that cannot be listed for another reason than
    /// its permissions may have some.
    ///
    /// # Errors
    /// What keeps a backend from answering now: that says nothing of what it has, and the next operation looks again.
    async fn is_empty(&self, backend: &str) -> Result<bool> {
        let objects = &self.backend(backend).await?.objects;
        let mut cursor = None;
        for _ in 0..PAGES {
            let page = match objects.list(cursor, PAGE).await {
                Ok(page) => page,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::RateLimited(_) | ErrorKind::Cancelled
                    ) =>
                {
                    // One that serves and cannot be listed may have anything.
                    return match objects.health().await {
                        Ok(health) if health.ready => Ok(false),
                        _ => Err(error.on_backend(backend)),
                    };
                }
                Err(error) => {
                    tracing::debug!(backend, %error, "cannot find out whether there are objects");
                    return Ok(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported));
                }
            };
            let ours = |name: &str| !is_identity_name(name) && may_be_ours(name);
            if page.entries.iter().any(|entry| ours(entry.id.as_str())) {
                return Ok(false);
            }
            match page.next {
                None => return Ok(true),
                next => cursor = next,
            }
        }
        Ok(false)
    }

    /// Makes sure that a backend that lists answers.
    ///
    /// # Errors
    /// What keeps it from answering.
    pub(super) async fn answers(&self, backend: &str) -> Result<()> {
        let objects = &self.backend(backend).await?.objects;
        match objects.info().inventory {
            true => objects.list(None, 1).await.map(drop),
            false => Ok(()),
        }
    }

    /// Returns whether a backend lists an object that a host has stored, an identity included.
    ///
    /// # Errors
    /// What keeps it from answering.
    pub(super) async fn holds_something(&self, backend: &str) -> Result<bool> {
        let objects = &self.backend(backend).await?.objects;
        if !objects.info().inventory {
            return Ok(false);
        }
        let mut cursor = None;
        for _ in 0..PAGES {
            let page = objects.list(cursor, PAGE).await?;
            if page.entries.iter().any(|entry| may_be_ours(entry.id.as_str())) {
                return Ok(true);
            }
            match page.next {
                None => break,
                next => cursor = next,
            }
        }
        Ok(false)
    }

    /// Returns whether there can be packs on a backend. It may have been seen to lose labels since it took some.
    pub(super) async fn can_have_packs(&self, backend: &str) -> Result<bool> {
        let info = self.backend(backend).await?.objects.info();
        Ok(keeps_packs(info.features) && !info.archive)
    }

    /// Counts those of some backends as looked through that take no packs: nothing on them needs another object.
    ///
    /// # Errors
    /// Errors of opening a backend, and of the catalogue.
    pub(super) async fn pass_over_looks(&self, backends: Vec<String>) -> Result<()> {
        for backend in self.inner.catalogue.not_looked_through(backends).await? {
            if !self.can_have_packs(&backend).await?
                && let Some(look) = self.inner.catalogue.begin_look(&backend, false).await?
            {
                self.end_look(&backend, look).await?;
            }
        }
        Ok(())
    }

    /// Ends a look, and removes what was kept only since it was not known whether something needs it. Returns how many objects
    /// that were; `None` if the look does not count any more. What cannot be deleted now is left to the next garbage
    /// collection.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) async fn end_look(&self, backend: &str, look: u64) -> Result<Option<u64>> {
        let Some(begun) = self.inner.catalogue.end_look(backend, look).await? else { return Ok(None) };
        let mut removed = 0;
        for Placement { backend, object, .. } in begun {
            match self.delete_object(&backend, &object).await {
                Ok(deleted) => removed += u64::from(deleted),
                Err(error) => {
                    tracing::warn!(backend, %object, %error, "an object that nothing needs any more stays");
                    break;
                }
            }
        }
        Ok(Some(removed))
    }
}
