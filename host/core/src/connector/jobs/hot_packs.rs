//! Hot packs over a damaged hot object.
//!
//! What is hot is completed by other backends, so a hot pack that takes pages from a damaged object can be read all the same; but that
//! object cannot go while it is needed, and nothing replaces it. So packs that were read to their end elsewhere go first.

use std::collections::HashSet;

use futures::future::BoxFuture;

use crate::catalogue::{Placement, PlacementState};
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::packs::Sound;
use crate::connector::verify::Verdict;
use crate::types::{ObjectId, Result};

impl Host {
    /// Lets the hot packs go that take pages from a bad hot object, each after those that take pages from itself, as far as another
    /// backend has a copy of which every byte is right. What is on this machine alone stays until it was pushed.
    ///
    /// # Errors
    /// Errors of the catalogue and of the directory.
    pub(super) fn let_hot_packs_go<'a>(&'a self, bad: &'a Placement) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (catalogue, mut kept) = (&self.inner.catalogue, HashSet::<ObjectId>::new());
            loop {
                let mut went = false;
                for pack in catalogue.dependents(HOT, bad.snapshot).await? {
                    let may_go = matches!(pack.state, PlacementState::Live | PlacementState::Suspect)
                        && !kept.contains(&pack.object)
                        && catalogue.dependents(HOT, pack.snapshot).await?.is_empty();
                    if !may_go {
                        continue;
                    }
                    let gone = match self.read_elsewhere(&pack).await? {
                        Some(backend) => catalogue.begin_eviction(HOT, &pack.object, vec![backend]).await?,
                        None => false,
                    };
                    if gone {
                        went |= self.delete_object(HOT, &pack.object).await?;
                    }
                    // Once is enough, whatever came of it.
                    kept.insert(pack.object);
                }
                if !went {
                    return Ok(());
                }
            }
        })
    }

    /// A backend that has a copy of which every byte was just read and is right.
    async fn read_elsewhere(&self, pack: &Placement) -> Result<Option<String>> {
        let identity = self.identity_of(pack.snapshot).await?;
        for other in self.copies_of(pack.snapshot, Some(pack)).await? {
            if other.backend == HOT || other.state != PlacementState::Live {
                continue;
            }
            let mut sound = Sound::of(true);
            if let Verdict::Sound = self.verify_one(&other, &identity, true, None, &mut 0, &mut sound).await? {
                return Ok(Some(other.backend));
            }
        }
        Ok(None)
    }
}
