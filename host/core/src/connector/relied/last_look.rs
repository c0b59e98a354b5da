//! The last look at a copy before another one is destroyed because of it.
//!
//! That a copy is recorded as live says what was. So it is asked for, with all that it takes pages from; and it is read to its end:
//! what a backend acknowledges, and what it says of the size, shows no flipped bit. Where looks are many (the hot tier makes
//! room), a read that was recorded since it was written is enough, and none is made twice. What a backend keeps in cold storage is not restored for this: there its word
//! counts.
//!
//! A backend that gives nothing for [`PATIENCE`] ends the look, however much of a read is left: whoever waits for it may have
//! to answer somebody. One that goes on giving bytes is waited for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::container::PATIENCE;
use crate::connector::packs::Sound;
use crate::connector::verify::Verdict;
use crate::snapshot::Progress;
use crate::types::{Error, ErrorKind, Platform, Result};

/// The bytes that a backend gives in a second at the least, if somebody waits until a copy on it was read.
const SLOWEST: u64 = 8 << 20;

/// Which copies are read to their end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::connector) enum Reads {
    /// All.
    Always,
    /// Those that were not since they were written, or made live again.
    Once,
}

/// What came of it.
pub(in crate::connector) enum LastLook {
    /// The copy can be relied on.
    Sound,
    /// It is missing or damaged, which is recorded, or not live any more.
    Unsound,
    /// It could not be looked at, or gave nothing for too long.
    Unknown(Error),
}

impl LastLook {
    fn silent(backend: &str) -> Self {
        let what = format!("it gave nothing, or too little, for {} seconds", PATIENCE.as_secs());
        Self::Unknown(Error::timed_out(what).on_backend(backend))
    }
}

impl Host {
    /// Looks at a copy because of which another one is to go.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(in crate::connector) fn last_look<'a>(
        &'a self,
        copy: &'a Placement,
        reads: Reads,
        sound: &'a mut Sound,
    ) -> BoxFuture<'a, Result<LastLook>> {
        Box::pin(async move {
            let identity = match self.identity_of(copy.snapshot).await {
                Ok(identity) => identity,
                Err(error) => return Ok(LastLook::Unknown(error)),
            };
            let platform = &self.inner.platform;
            // Where somebody waits for an answer.
            let least = if reads == Reads::Once { SLOWEST } else { 0 };
            for deep in [false, true] {
                let moved = Arc::new(AtomicU64::new(0));
                let counter = moved.clone();
                let progress: Progress = Arc::new(move |read| counter.store(read, Ordering::Relaxed));
                let mut read = 0;
                let look = self.verify_one(copy, &identity, deep, Some(&progress), &mut read, sound);
                match unless_silent(&moved, least, platform, look).await.transpose()? {
                    Some(Verdict::Sound) => {}
                    Some(Verdict::Bad(_) | Verdict::Gone) => return Ok(LastLook::Unsound),
                    // Its bytes cannot be had now, and it was there.
                    Some(Verdict::Away(error)) if deep && matches!(error.kind(), ErrorKind::Archived(_)) => {
                        return Ok(LastLook::Sound);
                    }
                    Some(Verdict::Away(error)) => return Ok(LastLook::Unknown(error)),
                    None => return Ok(LastLook::silent(&copy.backend)),
                }
                // One that lacks something counts as sound where the whole image is beside it: that one has a look of its own.
                match unless_silent(&moved, 0, platform, self.lacks(copy, sound).boxed()).await {
                    Some(Ok(None)) => {}
                    Some(Ok(Some(_))) => return Ok(LastLook::Unsound),
                    Some(Err(error)) => return Ok(LastLook::Unknown(error)),
                    None => return Ok(LastLook::silent(&copy.backend)),
                }
                let now = self.inner.catalogue.placement_of(&copy.backend, &copy.object).await?;
                let Some(now) = now.filter(|now| now.state == PlacementState::Live) else {
                    return Ok(LastLook::Unsound);
                };
                if deep {
                    self.note_read(&now).await;
                } else if reads == Reads::Once && self.inner.catalogue.was_read(&now).await? {
                    return Ok(LastLook::Sound);
                }
            }
            Ok(LastLook::Sound)
        })
    }

    /// Notes that all of a placement was read and was right. That it is not noted costs another read at the most.
    async fn note_read(&self, placement: &Placement) {
        if let Err(error) = self.inner.catalogue.note_read(placement).await {
            tracing::info!(backend = placement.backend, %error, "a read is not recorded");
        }
    }
}

/// Waits for something for as long as it moves on, after a while by so many bytes a second; `None` if it does not.
async fn unless_silent<T>(
    moved: &AtomicU64,
    least: u64,
    platform: &Platform,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (mut work, begun) = (pin!(work), platform.now());
    loop {
        let (before, since) = (moved.load(Ordering::Relaxed), platform.since(begun));
        let first = least == 0 || since < PATIENCE;
        let wait = if first { PATIENCE } else { Duration::from_secs(1) };
        if let Ok(done) = tokio::time::timeout(wait, &mut work).await {
            return Some(done);
        }
        let (now, late) = (moved.load(Ordering::Relaxed), platform.since(begun).saturating_sub(PATIENCE));
        if (first && now == before) || now < late.as_secs().saturating_mul(least) {
            return None;
        }
    }
}
