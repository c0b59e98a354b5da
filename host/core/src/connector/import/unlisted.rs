//! Recorded objects that the adapter has not listed. A listing may have ended early, or left something out; or the objects are not
//! there. So each is looked at, before anything relies on it: what is absent is marked so, and what is there shows that the listing
//! does not have everything, which packs that are not known may be part of.
//!
//! Objects of other programs that were imported by their names are not expected in a listing, nor is what was stored since that
//! began.

use super::{PATIENCE, Run};
use crate::catalogue::{Placement, PlacementState};
use crate::connector::labels::may_be_ours;
use crate::connector::placement::noted;
use crate::connector::verify::Verdict;
use crate::types::Result;

/// Placements that are compared at once with what was listed.
const PAGE: u32 = 256;
/// Why a placement is suspect that could not be looked at.
const UNLISTED: &str = "the backend has not listed its object";

impl Run<'_> {
    /// Looks at each live placement that was recorded before a time and is not among what was listed.
    ///
    /// # Errors
    /// Errors of the catalogue; the backend's, if it stops answering.
    pub(super) async fn look_at_unlisted(&mut self, before: u64) -> Result<()> {
        let (mut after, mut silent) = (String::new(), 0);
        loop {
            let page = self.host.inner.catalogue.some_placements(self.backend, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.object.as_str().to_owned();
            let expected = |one: &Placement| one.created < before && may_be_ours(one.object.as_str());
            let expected: Vec<Placement> = page.into_iter().filter(expected).collect();
            let names = expected.iter().map(|one| one.object.clone()).collect();
            let unlisted = self.queue.lacks(names).await?;
            for placement in expected.into_iter().filter(|one| unlisted.contains(&one.object)) {
                // Where its digests are damaged, `verify` says so.
                let Ok(identity) = self.host.identity_of(placement.snapshot).await else { continue };
                match self.host.verify_one(&placement, &identity, false, None, &mut 0, &mut self.sound).await? {
                    Verdict::Sound => self.report.unlisted += 1,
                    Verdict::Bad(why) => {
                        tracing::warn!(backend = self.backend, object = %placement.object, why, "it is not listed");
                        self.report.missing += 1;
                    }
                    Verdict::Gone => {}
                    // It is there, and nothing else can be told of it.
                    Verdict::Away(error) if error.missing_key().is_some() => self.report.unlisted += 1,
                    Verdict::Away(error) => {
                        self.report.unlisted += 1;
                        let to = PlacementState::Suspect;
                        let marked = self.host.inner.catalogue.transition(&placement, to, Some(UNLISTED)).await;
                        noted(&placement, marked)?;
                        silent += 1;
                        if silent >= PATIENCE {
                            return Err(error);
                        }
                        continue;
                    }
                }
                silent = 0;
            }
        }
        let (backend, unlisted) = (self.backend, self.report.unlisted);
        if unlisted > 0 {
            tracing::warn!(backend, unlisted, "the backend has not listed all that it holds: run the import again");
        }
        Ok(())
    }
}
