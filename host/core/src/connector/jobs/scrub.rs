//! Reading everything that is stored, again and again, before somebody needs it.
//!
//! Each backend has a rotation of its own, beside the others. A placement has a time at which its turn was last (or else when
//! it was stored), and the one that waits the longest is next: so the rotation goes on after a restart where it was. An object
//! that cannot be read has had its turn all the same, so that it does not come first for ever. Where the backend cannot
//! be reached, its turn ends, and what is on it keeps its time.

use std::time::Duration;

use futures::FutureExt as _;

use super::report::ScrubReport;
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::container::Absence;
use crate::connector::lanes::{Tally, beside};
use crate::connector::packs::Sound;
use crate::connector::verify::Verdict;
use crate::snapshot::Progress;
use crate::types::{Error, ErrorKind, Result, Retry};

/// Placements that are taken from the catalogue at once.
const PAGE: u32 = 64;
/// The most bytes of an object that a read which fails may have got from its backend and not given out: those of the segment, the
/// frames or the metadata that were not complete, or not right.
const UNSEEN: u64 = 32 << 20;

/// How to scrub.
#[derive(Clone, Default)]
pub struct ScrubOptions {
    /// No further placement of a backend is read once so many bytes of that backend were, whatever came of them.
    pub bytes: Option<u64>,
    /// Leaves out what has had its turn since so long ago.
    pub not_since: Duration,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
}

/// How far the scrub of one backend is.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) report: ScrubReport,
    /// What it has taken of the budget: what was read, and what may have been read in vain.
    pub(super) taken: u64,
}

impl Host {
    /// Reads and compares every byte of the placements of all snapshots, on each backend the one that was not for the longest time
    /// first, until all were read or its budget is used up. What is damaged is marked, which enqueues its repair.
    ///
    /// # Errors
    /// Errors of the catalogue. Problems of a placement are in the report.
    pub async fn scrub(&self, options: &ScrubOptions) -> Result<ScrubReport> {
        let lane = Tally::of_lanes(options.progress.clone());
        let mut lanes = Vec::new();
        for backend in self.inner.backends.keys() {
            let options = ScrubOptions { progress: lane(), ..options.clone() };
            lanes.push(async move { Ok(self.scrub_backend(backend, &options).await?.report) }.boxed());
        }
        let reports = beside(lanes).await?;
        Ok(ScrubReport::together(reports))
    }

    /// The same of one backend.
    pub(super) async fn scrub_backend(&self, backend: &str, options: &ScrubOptions) -> Result<Turn> {
        let (mut turn, mut sound) = (Turn::default(), Sound::of(true));
        let now = self.inner.platform.unix_seconds();
        // What was stored within this second too; what is read within it counts as read later, so that it is read once.
        let before = now.saturating_add(1).saturating_sub(options.not_since.as_secs());
        let mut after = None;
        loop {
            let page = self.inner.catalogue.to_scrub(backend, after, before, PAGE).await?;
            if page.is_empty() {
                turn.report.complete = true;
                return Ok(turn);
            }
            for one in page {
                if options.bytes.is_some_and(|most| turn.taken >= most) {
                    return Ok(turn);
                }
                after = Some(one.cursor);
                let placement = one.placement;
                if placement.state == PlacementState::Removing {
                    continue;
                }
                if !self.scrub_one(&placement, options, &mut turn, &mut sound).await? {
                    turn.report.complete = true;
                    return Ok(turn);
                }
                let at = self.inner.platform.unix_seconds().max(before);
                self.inner.catalogue.note_scrubbed(&placement, at).await?;
            }
        }
    }

    /// Reads one placement. Returns whether its backend could be reached.
    async fn scrub_one(
        &self,
        placement: &Placement,
        options: &ScrubOptions,
        turn: &mut Turn,
        sound: &mut Sound,
    ) -> Result<bool> {
        let report = &mut turn.report;
        let so_far = report.bytes;
        let verdict = match self.identity_of(placement.snapshot).await {
            Ok(identity) => {
                let progress = options.progress.as_ref();
                self.verify_one(placement, &identity, true, progress, &mut report.bytes, sound).await?
            }
            Err(error) => Verdict::Away(error),
        };
        let read = report.bytes.saturating_sub(so_far);
        self.inner.jobs.scrubbed(read);
        turn.taken = turn.taken.saturating_add(match &verdict {
            Verdict::Sound | Verdict::Gone => read,
            // Nothing of it was sent.
            Verdict::Away(error) if read == 0 && matches!(error.kind(), ErrorKind::Archived(_)) => 0,
            Verdict::Bad(_) | Verdict::Away(_) => read.max(placement.stored_bytes.min(read.saturating_add(UNSEEN))),
        });
        match verdict {
            Verdict::Gone => Ok(true),
            Verdict::Sound => {
                report.checked += 1;
                self.inner.catalogue.note_read(placement).await?;
                Ok(true)
            }
            Verdict::Bad(why) => {
                report.checked += 1;
                report.is_bad(placement, why);
                Ok(true)
            }
            Verdict::Away(error) => {
                report.is_unreachable(placement, &error);
                Ok(!self.is_away(&placement.backend, &error).await?)
            }
        }
    }

    /// Returns whether it is because of the backend that an object of it cannot be read, rather than because of the object: its
    /// container cannot be read either, or it asks to be left alone.
    async fn is_away(&self, backend: &str, error: &Error) -> Result<bool> {
        if matches!(error.kind(), ErrorKind::RateLimited(_)) {
            return Ok(true);
        }
        Ok(match self.absence(backend).await? {
            Absence::Object => false,
            Absence::Container(_) => true,
            Absence::Unknown => matches!(error.retry(), Retry::After(_)),
        })
    }
}
