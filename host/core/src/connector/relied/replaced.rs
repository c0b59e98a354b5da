//! Objects that go while another one of their snapshot stays on the same backend: what a rebase has replaced, and what is removed
//! beside an object that others need.

use super::{LastLook, Reads, Relied};
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::packs::Sound;
use crate::types::{Error, Result};

impl Host {
    /// Begins the removal of an object that another one has taken the place of, once that was looked at. Returns whether it was
    /// begun: otherwise the next garbage collection tries again.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(in crate::connector) async fn retire_replaced(&self, old: &Placement) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        let mut others = catalogue.placements(old.snapshot).await?;
        others.retain(|p| p.backend == old.backend && p.object != old.object && p.state == PlacementState::Live);
        let mut relied = Relied::default();
        for by in others {
            let whole = catalogue.needs_of(&by.backend, &by.object).await?.is_empty();
            if whole
                && relied.is_sound(self, &by, Reads::Always).await?
                && catalogue.retire_for(old, &by.object).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at those objects of a snapshot from which packs go on taking pages while others of it, on the same backend, go: these
    /// could have made up for their damage.
    ///
    /// # Errors
    /// `unavailable` if one cannot be looked at; errors of the catalogue.
    pub(in crate::connector) async fn look_at_what_stays(&self, placements: &[Placement]) -> Result<()> {
        let live = |p: &&Placement| p.state == PlacementState::Live;
        for copy in placements.iter().filter(live) {
            let beside = |p: &Placement| p.backend == copy.backend && p.object != copy.object;
            if !placements.iter().filter(live).any(beside) || !self.is_named(copy).await? {
                continue;
            }
            if let LastLook::Unknown(error) = self.last_look(copy, Reads::Always, &mut Sound::default()).await? {
                let what = format!("an object that others take pages from cannot be looked at: {}", error.message());
                return Err(Error::unavailable(what).on_backend(&copy.backend).with_source(error));
            }
        }
        Ok(())
    }

    /// Returns whether a pack on the same backend takes pages from this very object.
    pub(in crate::connector) async fn is_named(&self, copy: &Placement) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        for dependent in catalogue.dependents(&copy.backend, copy.snapshot).await? {
            let needs = catalogue.needs_of(&dependent.backend, &dependent.object).await?;
            if needs.iter().any(|need| copy.is_pack(need.pack)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
