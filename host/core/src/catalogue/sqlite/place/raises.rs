//! Raising the mark for several changes at once.
//!
//! To raise it takes a rename and a sync of its directory, and says that all changes up to a number were acknowledged. So whoever
//! records a change while it is being raised waits, and one of those who wait raises it for all of them. A raise covers what
//! was recorded before it began.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::types::{Error, Result};

/// Raises of one process.
#[derive(Default)]
pub(super) struct Raises {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// The incarnation of the numbers below.
    incarnation: u64,
    /// The greatest number that somebody waits for.
    wanted: u64,
    /// The last raise that has ended: up to which number, and its error.
    last: (u64, Option<Error>),
    under_way: bool,
}

impl Raises {
    /// Returns once a raise has ended that covers this number: one's own, or that of another.
    ///
    /// # Errors
    /// Those of that raise.
    pub(super) fn cover(&self, incarnation: u64, version: u64, raise: impl Fn(u64) -> Result<()>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.incarnation != incarnation {
                // Who still waits for one of another incarnation raises it alone.
                (state.incarnation, state.wanted, state.last) = (incarnation, 0, (0, None));
            }
            state.wanted = state.wanted.max(version);
            if state.last.0 >= version {
                return state.last.1.as_ref().map_or(Ok(()), |error| Err(error.duplicate()));
            }
            if !state.under_way {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let upto = state.wanted;
        state.under_way = true;
        drop(state);
        let turn = Turn(self);
        let outcome = raise(upto);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.incarnation == incarnation {
            state.last = (upto, outcome.as_ref().err().map(Error::duplicate));
        }
        drop(state);
        drop(turn);
        outcome
    }
}

/// A raise that is under way, until this is dropped.
struct Turn<'a>(&'a Raises);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).under_way = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// The first raise lasts until all others have recorded their changes: one more is enough for all of them.
    #[test]
    fn those_that_come_while_it_is_raised_share_the_next_time() {
        for fails in [false, true] {
            let raises = Arc::new(Raises::default());
            let raised = Arc::new(Mutex::new(Vec::new()));
            let (begin, begun) = channel();
            let (go, gone) = channel();
            let first = {
                let (raises, raised) = (raises.clone(), raised.clone());
                std::thread::spawn(move || {
                    raises.cover(1, 1, |upto| {
                        raised.lock().unwrap().push(upto);
                        begin.send(()).unwrap();
                        gone.recv_timeout(Duration::from_secs(60)).unwrap();
                        Ok(())
                    })
                })
            };
            begun.recv_timeout(Duration::from_secs(60)).unwrap();
            let others: Vec<_> = (2..=16)
                .map(|version| {
                    let (raises, raised) = (raises.clone(), raised.clone());
                    std::thread::spawn(move || {
                        raises.cover(1, version, |upto| {
                            raised.lock().unwrap().push(upto);
                            if fails { Err(Error::unavailable("no mark")) } else { Ok(()) }
                        })
                    })
                })
                .collect();
            while raises.state.lock().unwrap().wanted < 16 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Whoever is not there yet is covered all the same.
            assert!(others.iter().all(|other| !other.is_finished()), "nothing of theirs is durable yet");
            go.send(()).unwrap();
            first.join().unwrap().unwrap();
            for other in others {
                assert_eq!(other.join().unwrap().is_err(), fails);
            }
            assert_eq!(*raised.lock().unwrap(), [1, 16]);
        }
    }

    #[test]
    fn nothing_is_covered_by_an_earlier_raise_another_incarnation_or_one_that_panics() {
        let (raises, count) = (Raises::default(), AtomicU64::new(0));
        let cover = |incarnation, version| {
            raises.cover(incarnation, version, |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        for (incarnation, version, then) in [(1, 5, 1), (1, 4, 1), (1, 5, 1), (1, 6, 2), (2, 3, 3), (1, 6, 4)] {
            cover(incarnation, version).unwrap();
            assert_eq!(count.load(Ordering::SeqCst), then, "{incarnation}, {version}");
        }
        let panics = std::panic::AssertUnwindSafe(|| raises.cover(1, 7, |_| panic!("as it must")));
        assert!(std::panic::catch_unwind(panics).is_err());
        cover(1, 7).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 5);
    }
}
