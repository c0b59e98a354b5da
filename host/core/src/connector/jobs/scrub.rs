//! Reading everything that is stored, again and again, before somebody needs it.
//!
//! Each placement has a time at which all of it was last read (or else when it was stored), and the one that waits the longest
//! is next: so the rotation goes on after a restart where it was. What cannot be reached keeps its time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::{MOST_NAMED, ScrubReport};
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::packs::Sound;
use crate::connector::report::BadPlacement;
use crate::connector::verify::Verdict;
use crate::snapshot::Progress;
use crate::types::Result;

/// Placements that are taken from the catalogue at once.
const PAGE: u32 = 64;
/// After so many failures of a backend one after the other, the rest of it is left for the next scrub.
const FAILURES: u32 = 3;

/// How to scrub.
#[derive(Clone, Default)]
pub struct ScrubOptions {
    /// No further placement is read once so many bytes were.
    pub bytes: Option<u64>,
    /// Leaves out what was read since so long ago.
    pub not_since: Duration,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
}

impl Host {
    /// Reads and compares every byte of the placements of all snapshots, the one that was not for the longest time first, until
    /// all were read or the budget is used up. What is damaged is marked, which enqueues its repair.
    ///
    /// # Errors
    /// Errors of the catalogue. Problems of a placement are in the report.
    pub async fn scrub(&self, options: &ScrubOptions) -> Result<ScrubReport> {
        let (mut report, mut sound, mut away) = (ScrubReport::default(), Sound::of(true), BTreeMap::new());
        let now = self.inner.platform.unix_seconds();
        // What was stored within this second too; what is read within it counts as read later, so that it is read once.
        let before = now.saturating_add(1).saturating_sub(options.not_since.as_secs());
        let mut after = None;
        loop {
            let page = self.inner.catalogue.to_scrub(after, before, PAGE).await?;
            if page.is_empty() {
                report.complete = true;
                break;
            }
            for one in page {
                if options.bytes.is_some_and(|most| report.bytes >= most) {
                    return Ok(self.scrubbed(report));
                }
                after = Some(one.cursor);
                let placement = one.placement;
                let failures: u32 = away.get(&placement.backend).copied().unwrap_or(0);
                // Nobody can read what is on a backend that is not configured: `verify` says so.
                let unknown = !self.inner.backends.contains_key(&placement.backend);
                if placement.state == PlacementState::Removing || failures >= FAILURES || unknown {
                    continue;
                }
                let so_far = report.bytes;
                let read = self.scrub_one(&placement, options, &mut report, &mut sound).await?;
                if !read {
                    // What a backend that fails has given is not taken from the others: it is left out after a few failures.
                    report.bytes = so_far;
                }
                if read {
                    let at = self.inner.platform.unix_seconds().max(before);
                    self.inner.catalogue.note_scrubbed(&placement, at).await?;
                }
                away.insert(placement.backend.clone(), if read { 0 } else { failures + 1 });
            }
        }
        Ok(self.scrubbed(report))
    }

    fn scrubbed(&self, report: ScrubReport) -> ScrubReport {
        self.inner.jobs.scrubbed(report.bytes);
        report
    }

    /// Reads one placement. Returns whether it could be.
    async fn scrub_one(
        &self,
        placement: &Placement,
        options: &ScrubOptions,
        report: &mut ScrubReport,
        sound: &mut Sound,
    ) -> Result<bool> {
        let verdict = match self.identity_of(placement.snapshot).await {
            Ok(identity) => {
                let progress = options.progress.as_ref();
                self.verify_one(placement, &identity, true, progress, &mut report.bytes, sound).await?
            }
            Err(error) => Verdict::Away(error),
        };
        let (named, why) = match verdict {
            Verdict::Gone => return Ok(true),
            Verdict::Sound => {
                report.checked += 1;
                return Ok(true);
            }
            Verdict::Bad(why) => {
                report.checked += 1;
                (&mut report.bad, why)
            }
            Verdict::Away(error) => {
                if report.unreachable.len() < MOST_NAMED {
                    report.unreachable.push(BadPlacement::of(placement, error.message().to_owned()));
                }
                return Ok(false);
            }
        };
        if named.len() < MOST_NAMED {
            named.push(BadPlacement::of(placement, why));
        }
        Ok(true)
    }
}
