//! A body that outlives the generation it began on.
//!
//! Bytes come from the generation that served when the read began. If that is cut, or fails while it is on trial, the
//! read is begun again on another one at the byte where it stopped: objects do not change, and whoever opens them here
//! checks every byte. The reader sees one body.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};

use super::turn::{Cut, Turn};
use super::{Generation, Slot};
use crate::runtime::Adapter;
use crate::types::{Body, Error, Result};

type Open = Arc<dyn Fn(Arc<Adapter>, u64) -> BoxFuture<'static, Result<Body>> + Send + Sync>;

/// Where a body lies between two reads, so that a cut finds it.
#[derive(Default)]
pub(super) struct Cell {
    held: Option<(Turn, Body)>,
    waker: Option<Waker>,
    /// What a cut left.
    cut: Option<Cut>,
}

impl Cell {
    /// Takes the body away from its reader and tells him.
    pub(super) fn cut(cell: &Mutex<Self>) {
        let (turn, body, waker) = {
            let mut cell = lock(cell);
            let Some((turn, body)) = cell.held.take() else { return };
            cell.cut = Some(turn.to_cut());
            (turn, body, cell.waker.take())
        };
        // The instance first, then the hold on its generation.
        drop(body);
        drop(turn);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock(cell: &Mutex<Cell>) -> std::sync::MutexGuard<'_, Cell> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Reads an object. `open` gives its bytes from the one with the given number on (0 at first); it may be called again
    /// after some of them have been handed out.
    ///
    /// # Errors
    /// Those of `open`. A body that is cut ends in an error only if it cannot be begun again.
    pub async fn read<F, B>(&self, open: F) -> Result<Body>
    where
        F: Fn(Arc<Adapter>, u64) -> B + Send + Sync + 'static,
        B: Future<Output = Result<Body>> + Send + 'static,
    {
        let open: Open = Arc::new(move |adapter, given| open(adapter, given).boxed());
        let mut turn = self.begin();
        loop {
            match turn.run(open(turn.adapter().clone(), 0)).await {
                Ok(body) => {
                    let size = body.remaining();
                    return Ok(Body::new(Reading::of(turn, body, open), size));
                }
                Err(error) => match turn.end(Err(&error), true) {
                    Some(next) => turn = next,
                    None => return Err(error),
                },
            }
        }
    }
}

struct Reading {
    cell: Arc<Mutex<Cell>>,
    open: Open,
    given: u64,
    opening: Option<BoxFuture<'static, (Turn, Result<Body>)>>,
}

/// What a look into the cell came to.
enum Seen {
    Chunk(Bytes),
    /// It ended or broke off.
    Over(Turn, Result<(), Error>),
    Cut(Cut),
    Nothing,
}

impl Reading {
    fn of(turn: Turn, body: Body, open: Open) -> Self {
        let reading = Self { cell: Arc::default(), open, given: 0, opening: None };
        reading.hold(turn, body);
        reading
    }

    fn hold(&self, turn: Turn, body: Body) {
        let generation: Option<Arc<Generation>> = turn.generation().cloned();
        lock(&self.cell).held = Some((turn, body));
        if let Some(generation) = generation {
            generation.hold(&self.cell);
            // The cut may have come before the body lay there.
            if generation.is_cut() {
                Cell::cut(&self.cell);
            }
        }
    }

    fn look(&self, context: &mut Context<'_>) -> Poll<Seen> {
        let mut cell = lock(&self.cell);
        if let Some(cut) = cell.cut.take() {
            return Poll::Ready(Seen::Cut(cut));
        }
        let Some((_, body)) = &mut cell.held else { return Poll::Ready(Seen::Nothing) };
        let end = match body.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(chunk))) => return Poll::Ready(Seen::Chunk(chunk)),
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(None) => Ok(()),
            Poll::Pending => {
                cell.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        let held = cell.held.take();
        drop(cell);
        Poll::Ready(held.map_or(Seen::Nothing, |(turn, _)| Seen::Over(turn, end)))
    }

    fn begin_again(&mut self, turn: Turn) {
        let (open, given) = (self.open.clone(), self.given);
        self.opening = Some(Box::pin(async move {
            let outcome = turn.run(open(turn.adapter().clone(), given)).await;
            (turn, outcome)
        }));
    }

    /// Ends a turn; gives the error if nobody else can go on.
    fn over(&mut self, turn: Turn, outcome: Result<(), Error>) -> Option<Error> {
        match turn.end(outcome.as_ref().copied(), true) {
            Some(next) => {
                self.begin_again(next);
                None
            }
            None => outcome.err(),
        }
    }
}

impl Stream for Reading {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(opening) = &mut self.opening {
                let (turn, outcome) = ready!(opening.poll_unpin(context));
                self.opening = None;
                match outcome {
                    Ok(body) => self.hold(turn, body),
                    Err(error) => {
                        if let Some(error) = self.over(turn, Err(error)) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
                continue;
            }
            match ready!(self.look(context)) {
                Seen::Chunk(chunk) => {
                    self.given += chunk.len() as u64;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Seen::Over(turn, outcome) => match self.over(turn, outcome) {
                    Some(error) => return Poll::Ready(Some(Err(error))),
                    None if self.opening.is_some() => {}
                    None => return Poll::Ready(None),
                },
                Seen::Cut(cut) => match cut.again() {
                    Ok(turn) => self.begin_again(turn),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Seen::Nothing => return Poll::Ready(None),
            }
        }
    }
}
