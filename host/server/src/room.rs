//! How many bytes of uploads may be on their way at once, all clients together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use super::problem::Problem;
use tidelock::types::{Error, ErrorKind, format_bytes};

/// When a client may try again.
const AGAIN: Duration = Duration::from_secs(30);

/// The bytes that there are.
pub(super) struct Room {
    total: u64,
    taken: AtomicU64,
}

/// What one upload has taken. Dropping it gives all back.
pub(super) struct Share {
    room: Arc<Room>,
    held: AtomicU64,
    /// What it would have come to when it was refused; 0 if it was not.
    refused: AtomicU64,
}

impl Room {
    /// So many bytes.
    pub(super) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, taken: AtomicU64::new(0) })
    }

    /// A share without any bytes so far.
    pub(super) fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share { room: self.clone(), held: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }
}

impl Share {
    /// Takes bytes, and returns whether there were so many. Otherwise [`Self::refusal`] is the answer.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.room.total);
        if self.room.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            self.held.fetch_add(bytes, Ordering::Relaxed);
            return true;
        }
        let wanted = self.held.load(Ordering::Relaxed).saturating_add(bytes);
        self.refused.store(wanted, Ordering::Relaxed);
        false
    }

    /// Returns whether there would be so many bytes if nobody else had any. Otherwise [`Self::refusal`] is the answer.
    pub(super) fn could_take(&self, bytes: u64) -> bool {
        let could = bytes <= self.room.total;
        if !could {
            self.refused.store(bytes, Ordering::Relaxed);
        }
        could
    }

    /// The answer to a client for whom there was no room: 413 if there never is, 429 if others have it now.
    pub(super) fn refusal(&self) -> Option<Problem> {
        let (wanted, total) = (self.refused.load(Ordering::Relaxed), self.room.total);
        if wanted == 0 {
            return None;
        }
        let hint = "raise `uploads` in [service]";
        if wanted > total {
            let what = format!("uploads may have {} at once, and this one has more", format_bytes(total));
            return Some(Problem::from(Error::invalid(what).hint(hint)).status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let what = format!("uploads may have {} at once, and others are in progress", format_bytes(total));
        Some(Error::new(ErrorKind::RateLimited(Some(AGAIN)), what).hint(format!("try again later, or {hint}")).into())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let room = Room::new(10);
        let (one, other) = (room.share(), room.share());
        assert!(one.take(6) && other.take(4) && one.refusal().is_none());
        assert!(!other.take(1));
        assert_eq!(other.refusal().unwrap().into_response().status(), 429);
        drop(one);
        assert!(other.take(6) && !other.take(1));
        assert_eq!(other.refusal().unwrap().into_response().status(), 413);
        assert!(!other.take(u64::MAX));
        drop(other);
        assert!(room.share().take(10));
        // What is announced takes nothing.
        let announced = room.share();
        assert!(announced.could_take(10) && room.share().take(10) && announced.refusal().is_none());
        assert!(!announced.could_take(11));
        assert_eq!(announced.refusal().unwrap().into_response().status(), 413);
    }
}
