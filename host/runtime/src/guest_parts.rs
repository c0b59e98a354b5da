//! What a body of the host's needs of the guest: bytes that the guest still makes, and its word on how they ended.
//!
//! A body travels: a guest taps it, sends it, returns it. What it needs travels with it. So the host knows when the guest's
//! part is over, who reads the guest's bytes, and how many taps lie around them.
//!
//! Each tap is one more stage of the body (`types/src/body.rs`), which takes memory and no stack. How many there are is the
//! guest's choice, so it is limited ([`TAPS`]). Nothing that a guest does puts a body into another one: bodies of one
//! request lie side by side, and so do the pieces of a body that the host holds (`body_handle.rs`).

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::operation::usage::{ReaderWait, Waiting};
use tidelock_types::LimitExceeded;
use tidelock_types::limits::TAPS;

/// From this number on, parts that are over are looked for and forgotten.
const MANY: usize = 16;

/// One part of the guest.
struct Part {
    /// Resolves when it is over.
    over: oneshot::Receiver<()>,
    /// Where the guest makes bytes: the wait for their reader.
    reader: Option<Arc<ReaderWait>>,
}

/// All that a body needs of the guest.
#[derive(Default)]
pub(super) struct GuestParts {
    parts: Vec<Part>,
    taps: u32,
}

impl GuestParts {
    /// Adds a part. `reader` is the wait for the reader of bytes that the guest makes.
    pub(super) fn add(&mut self, over: oneshot::Receiver<()>, reader: Option<Arc<ReaderWait>>) {
        if self.parts.len() >= MANY {
            self.parts.retain_mut(|part| matches!(part.over.try_recv(), Err(TryRecvError::Empty)));
        }
        self.parts.push(Part { over, reader });
    }

    /// Adds what another body needs.
    pub(super) fn merge(&mut self, other: Self) {
        self.taps = self.taps.max(other.taps);
        for Part { over, reader } in other.parts {
            self.add(over, reader);
        }
    }

    /// The same parts for a body that only has to wait for their end.
    pub(super) fn without_taps(self) -> Self {
        Self { taps: 0, ..self }
    }

    /// From now on this party reads the bytes.
    pub(super) fn read_by(&self, reader: Waiting) {
        self.parts.iter().filter_map(|part| part.reader.as_ref()).for_each(|wait| wait.becomes(reader));
    }

    /// Counts a tap around the body.
    ///
    /// # Errors
    /// The limit, if there are too many.
    pub(super) fn tap(&mut self) -> Result<(), LimitExceeded> {
        self.taps += 1;
        if self.taps > TAPS { Err(LimitExceeded::Taps) } else { Ok(()) }
    }

    /// Waits until the guest's part is over.
    pub(super) async fn over(self) {
        for part in self.parts {
            // An error means that these bytes are not read any more.
            let _ = part.over.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_over_are_forgotten() {
        let mut parts = GuestParts::default();
        let (_kept, open) = oneshot::channel();
        parts.add(open, None);
        for _ in 0..10_000 {
            let (ended, over) = oneshot::channel();
            let _ = ended.send(());
            parts.add(over, None);
        }
        assert!(parts.parts.len() <= MANY + 1, "{}", parts.parts.len());
    }

    #[test]
    fn taps_are_counted_along_a_chain_and_not_side_by_side() {
        let tapped = |times| {
            let mut parts = GuestParts::default();
            (0..times).try_for_each(|_| parts.tap()).map(|()| parts)
        };
        assert!(tapped(TAPS).is_ok());
        assert_eq!(tapped(TAPS + 1).err(), Some(LimitExceeded::Taps));
        let mut beside = tapped(TAPS).unwrap();
        beside.merge(tapped(TAPS).unwrap());
        assert_eq!(beside.tap(), Err(LimitExceeded::Taps));
        assert_eq!(beside.without_taps().tap(), Ok(()));
    }
}
