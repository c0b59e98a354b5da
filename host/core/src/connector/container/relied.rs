//! Backends that a step may rely on which destroys a copy because there is another one.
//!
//! A live placement says what was, not what is: its backend may not be configured any more, may be away, or may have another
//! container in the place of its own. So whoever lets go of a copy first looks at the containers of the others, once for each
//! backend and step, and the catalogue counts copies on those alone that were found to be there.

use std::collections::BTreeMap;

use super::in_time;
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::types::{ObjectId, Result};

/// The looks of one step.
#[derive(Default)]
pub(in crate::connector) struct Relied {
    looked: BTreeMap<String, bool>,
}

impl Relied {
    /// The backends that hold another live copy of what an object holds, and are there. Empty if the object is not known.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(in crate::connector) async fn beside(
        &mut self,
        host: &Host,
        backend: &str,
        object: &ObjectId,
    ) -> Result<Vec<String>> {
        let Some(placement) = host.inner.catalogue.placement_of(backend, object).await? else { return Ok(Vec::new()) };
        let mut others = host.inner.catalogue.placements(placement.snapshot).await?;
        let other = |p: &Placement| p.state == PlacementState::Live && (p.backend != backend || p.object != *object);
        others.retain(other);
        let mut relied: Vec<String> = Vec::new();
        for Placement { backend, .. } in others {
            if !relied.contains(&backend) && self.is_there(host, &backend).await {
                relied.push(backend);
            }
        }
        Ok(relied)
    }

    /// Returns whether a backend is configured and talks to the container that its objects were stored into.
    pub(in crate::connector) async fn is_there(&mut self, host: &Host, backend: &str) -> bool {
        if let Some(there) = self.looked.get(backend) {
            return *there;
        }
        let outcome = in_time(backend, host.prove_container(backend)).await;
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
