//! The copies of a snapshot that count, and those that its routes want.
//!
//! A copy counts if it was looked at and is sound (`connector/verify.rs`); copies that lie in one place count once
//! (`container/apart.rs`), and those of the hot tier not at all. A copy that cannot be looked at counts where a further one is to
//! be made, since its backend may come back, and does not where the image is on this machine alone, or if its key is missing.

use std::sync::Arc;

use super::this_run::Run;
use crate::catalogue::{JobKind, PlacementState, Snapshot, WantedCopies};
use crate::config::{HOT, Route};
use crate::connector::Host;
use crate::connector::container::in_time;
use crate::connector::packs::Sound;
use crate::connector::verify::Verdict;
use crate::snapshot::Identity;
use crate::types::{Error, Result};

/// Where copies of a snapshot are, each place once.
#[derive(Default)]
pub(super) struct Holders {
    /// The backends whose copies count.
    pub(super) counted: Vec<String>,
    /// Why one of those could not be looked at.
    pub(super) unseen: Option<Error>,
}

/// What a route wants of a snapshot.
pub(super) struct OnRoute<'a> {
    pub(super) name: &'a str,
    pub(super) route: &'a Route,
    copies: usize,
}

impl OnRoute<'_> {
    /// The backends that take copies.
    pub(super) fn backends(&self) -> impl Iterator<Item = &String> {
        self.route.backends.iter().filter(|backend| *backend != HOT)
    }

    /// Returns whether so many of its backends have a copy as it wants.
    pub(super) fn is_met(&self, holders: &[String]) -> bool {
        let there = self.backends().filter(|backend| holders.contains(backend)).count();
        there >= self.copies.min(self.backends().count())
    }
}

impl Host {
    /// What each configured route of a snapshot wants. One that is the only one wants what was recorded; of several, each
    /// wants what it is configured to.
    ///
    /// # Errors
    /// `unavailable` if none of them is configured.
    pub(super) fn on_routes<'a>(&'a self, wanted: &'a WantedCopies) -> Result<Vec<OnRoute<'a>>> {
        let several = wanted.routes().count() > 1;
        let on_route = |name: &'a str| {
            let route = self.inner.routes.get(name)?;
            let copies = if several { route.copies.max(1) } else { wanted.copies };
            Some(OnRoute { name, route, copies: copies as usize })
        };
        let all: Vec<_> = wanted.routes().filter_map(on_route).collect();
        match all.is_empty() {
            true => Err(Error::unavailable(format!(
                "its route, `{}`, is not configured",
                wanted.route.replace('\n', "`, `")
            ))
            .hint("add the route to the configuration")),
            false => Ok(all),
        }
    }

    /// Looks at the copies of a snapshot that the catalogue takes for live, and marks those that are not sound. One on a backend
    /// that is left out is not looked at; one on a third backend is looked at without keeping others from the two of the job.
    ///
    /// # Errors
    /// `unavailable` if others are at such a backend; errors of the catalogue.
    pub(super) async fn holders_of(
        &self,
        snapshot: &Snapshot,
        identity: &Arc<Identity>,
        kind: JobKind,
        run: &Run,
    ) -> Result<Holders> {
        let (mut holders, mut sound) = (Holders::default(), Sound::default());
        for placement in self.copies_of(snapshot.id, None).await? {
            let counts = placement.state == PlacementState::Live && placement.backend != HOT;
            if !counts || holders.counted.contains(&placement.backend) {
                continue;
            }
            let verdict = match run.check(&placement.backend) {
                Ok(()) => {
                    run.visit(&placement.backend)?;
                    match self.verify_one(&placement, identity, false, None, &mut 0, &mut sound).await? {
                        Verdict::Away(error) => {
                            let error = error.on_backend(&placement.backend);
                            // Like any other operation of it.
                            run.failed(&placement.backend, &error);
                            Verdict::Away(error)
                        }
                        other => other,
                    }
                }
                Err(error) => Verdict::Away(error),
            };
            match verdict {
                Verdict::Sound => {}
                Verdict::Bad(why) => {
                    run.tries();
                    tracing::warn!(backend = placement.backend, why, "a copy does not count");
                    continue;
                }
                Verdict::Gone => continue,
                Verdict::Away(error) if kind == JobKind::Push || error.missing_key().is_some() => {
                    tracing::warn!(backend = placement.backend, %error, "a copy cannot be looked at, and does not count");
                    continue;
                }
                Verdict::Away(error) => holders.unseen = Some(error.on_backend(&placement.backend)),
            }
            let shared = self.shares_place_with(&placement.backend, holders.counted.clone());
            match in_time(&placement.backend, shared).await {
                Ok(Some(other)) => {
                    let backend = placement.backend;
                    tracing::warn!(backend, other, "a copy does not count: both store into the same place");
                }
                // It, or another one, is away: as far as is known they are two.
                _ => holders.counted.push(placement.backend),
            }
        }
        Ok(holders)
    }
}
