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

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::PATIENCE;
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::packs::Sound;
use crate::connector::verify::Verdict;
use crate::snapshot::Progress;
use crate::types::{Error, ErrorKind, Result};

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
            for deep in [false, true] {
                let moved = Arc::new(AtomicU64::new(0));
                let counter = moved.clone();
                let progress: Progress = Arc::new(move |read| counter.store(read, Ordering::Relaxed));
                let mut read = 0;
                let look = self.verify_one(copy, &identity, deep, Some(&progress), &mut read, sound);
                match unless_silent(&moved, look).await.transpose()? {
                    Some(Verdict::Sound) => {}
                    Some(Verdict::Bad(_) | Verdict::Gone) => return Ok(LastLook::Unsound),
                    // Its bytes cannot be had now, and it was there.
                    Some(Verdict::Away(error)) if deep && matches!(error.kind(), ErrorKind::Archived(_)) => {
                        return Ok(LastLook::Sound);
                    }
                    Some(Verdict::Away(error)) => return Ok(LastLook::Unknown(error)),
                    None => {
                        let what = format!("it gave nothing for {} seconds", PATIENCE.as_secs());
                        return Ok(LastLook::Unknown(Error::new(ErrorKind::TimedOut, what).on_backend(&copy.backend)));
                    }
                }
                // One that lacks something counts as sound where the whole image is beside it: that one has a look of its own.
                match unless_silent(&moved, self.lacks(copy, sound).boxed()).await {
                    Some(Ok(None)) => {}
                    Some(Ok(Some(_))) => return Ok(LastLook::Unsound),
                    Some(Err(error)) => return Ok(LastLook::Unknown(error)),
                    None => {
                        return Ok(LastLook::Unknown(
                            Error::new(ErrorKind::TimedOut, "it gave nothing").on_backend(&copy.backend),
                        ));
                    }
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

/// Waits for something for as long as it moves on; `None` if it does not.
async fn unless_silent<T>(moved: &AtomicU64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if moved.load(Ordering::Relaxed) == before => return None,
            Err(_) => {}
        }
    }
}
