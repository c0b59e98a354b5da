//! Backends that a step may rely on which destroys a copy because there is another one.
//!
//! A live placement says what was, not what is: its backend may not be configured any more, may be away, or may have another
//! container in the place of its own, or its object may be gone or damaged. So whoever lets go of a copy first looks at the
//! containers of the others, once for each backend and step, and then at the other copy itself (`relied/last_look.rs`); and the catalogue
//! counts copies on those backends alone where one was found to be sound.

mod last_look;
mod replaced;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalogue::{Placement, PlacementState};

use crate::connector::Host;
use crate::connector::packs::Sound;
use crate::types::{Error, ErrorKind, ObjectId, Result};

pub(super) use last_look::{LastLook, Reads};

/// How long a look may take: a backend that takes longer is not relied on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The looks of one step.
#[derive(Default)]
pub(in crate::connector) struct Relied {
    looked: BTreeMap<String, bool>,
    sound: Sound,
}

impl Relied {
    /// The backend that holds another copy of what an object holds, which was looked at and is sound. None if the object cannot
    /// go: it is not known, or bad, or packs on its backend take pages from its snapshot. Copies that were read to their end since
    /// they were written are asked first.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(in crate::connector) async fn beside(
        &mut self,
        host: &Host,
        backend: &str,
        object: &ObjectId,
    ) -> Result<Vec<String>> {
        let catalogue = &host.inner.catalogue;
        let Some(placement) = catalogue.placement_of(backend, object).await? else { return Ok(Vec::new()) };
        let may_go = matches!(placement.state, PlacementState::Live | PlacementState::Suspect);
        if !may_go || !catalogue.dependents(backend, placement.snapshot).await?.is_empty() {
            return Ok(Vec::new());
        }
        let (mut read, mut unread) = (Vec::new(), Vec::new());
        for other in catalogue.placements(placement.snapshot).await? {
            if other.state == PlacementState::Live && (other.backend != backend || other.object != *object) {
                let kind = if catalogue.was_read(&other).await? { &mut read } else { &mut unread };
                kind.push(other);
            }
        }
        for other in read.into_iter().chain(unread) {
            if self.is_sound(host, &other, Reads::Once).await? {
                return Ok(vec![other.backend]);
            }
        }
        Ok(Vec::new())
    }

    /// Returns whether a copy was looked at and is sound.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(in crate::connector) async fn is_sound(&mut self, host: &Host, copy: &Placement, reads: Reads) -> Result<bool> {
        let Placement { backend, object, .. } = copy;
        if !self.is_there(host, backend).await {
            return Ok(false);
        }
        self.sound.add_container(backend);
        match host.last_look(copy, reads, &mut self.sound).await? {
            LastLook::Sound => Ok(true),
            LastLook::Unsound => {
                tracing::warn!(backend, %object, "no other copy goes for this one: it is not sound");
                Ok(false)
            }
            LastLook::Unknown(error) => {
                tracing::warn!(backend, %object, %error, "no other copy goes for this one: it cannot be looked at");
                if matches!(error.kind(), ErrorKind::TimedOut) {
                    // Nor is it waited for a second time.
                    self.looked.insert(backend.clone(), false);
                }
                Ok(false)
            }
        }
    }

    /// Returns whether a backend is configured and talks to the container that its objects were stored into.
    pub(in crate::connector) async fn is_there(&mut self, host: &Host, backend: &str) -> bool {
        if let Some(there) = self.looked.get(backend) {
            return *there;
        }
        let look = tokio::time::timeout(PATIENCE, host.prove_container(backend));
        let outcome =
            look.await.unwrap_or_else(|_| Err(Error::unavailable("it took too long to look at its container")));
        if let Err(error) = &outcome {
            tracing::warn!(backend, %error, "copies on this backend do not count: no other copy goes for them");
        }
        self.looked.insert(backend.to_owned(), outcome.is_ok());
        outcome.is_ok()
    }
}

impl Host {
    /// Makes sure, by a look that begins after this was called, that a backend talks to the container that its objects were
    /// stored into. Where none is recorded, some of the objects tell.
    ///
    /// # Errors
    /// `not-found` for a backend that is not configured; otherwise as [`Self::ensure_container`].
    async fn prove_container(&self, backend: &str) -> Result<()> {
        self.configured(backend)?;
        match self.inner.catalogue.container(backend).await? {
            Some(_) => self.confirm_container(backend).await,
            None => self.look_for_some(backend).await,
        }
    }
}
