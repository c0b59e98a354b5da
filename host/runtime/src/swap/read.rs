//! A body that outlives the generation it began on.
//!
//! Bytes come from the generation that served when the read began. If that is preempted, or fails while it is on trial, the
//! read is begun again on another one at the byte where it stopped: objects do not change, and the caller checks every
//! byte that it is given. The reader sees one body.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};

use super::attempt::{Attempt, Preempted};
use super::part::Part;
use super::{Generation, Slot};
use tidelock_types::{Body, Error, Result};

/// Where a body is between two reads, so that a preemption finds it.
#[derive(Default)]
pub(super) struct Cell {
    held: Option<(Attempt, Body)>,
    waker: Option<Waker>,
    /// The state after a preemption.
    preempted: Option<Preempted>,
}

impl Cell {
    /// Takes the body from its reader; the next read reports it.
    pub(super) fn preempt(cell: &Mutex<Self>) {
        let (attempt, body, waker) = {
            let mut cell = lock(cell);
            let Some((attempt, body)) = cell.held.take() else { return };
            cell.preempted = Some(attempt.to_preempted());
            (attempt, body, cell.waker.take())
        };
        // The instance first, then the hold on its generation.
        drop(body);
        drop(attempt);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock(cell: &Mutex<Cell>) -> std::sync::MutexGuard<'_, Cell> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Reads an object, or a part of it.
    ///
    /// # Errors
    /// As [`crate::Adapter::retrieve`]. A body that is preempted ends in an error only if it cannot be begun again.
    pub(super) async fn read(&self, part: Part) -> Result<Body> {
        if part.is_empty() {
            return Ok(Body::from_bytes(""));
        }
        let mut attempt = self.begin();
        loop {
            match attempt.run(part.open(attempt.adapter(), 0, None)).await {
                Ok(body) => {
                    let size = body.remaining();
                    return Ok(Body::new(Reading::of(attempt, body, part), size));
                }
                Err(error) => match attempt.end(Err(&error), true) {
                    Some(next) => attempt = next,
                    None => return Err(error),
                },
            }
        }
    }
}

struct Reading {
    cell: Arc<Mutex<Cell>>,
    part: Arc<Part>,
    /// How many bytes there are in all, if that is known.
    size: Option<u64>,
    given: u64,
    opening: Option<BoxFuture<'static, (Attempt, Result<Body>)>>,
}

/// The result of polling the cell.
enum Seen {
    Chunk(Bytes),
    /// It ended, with or without an error.
    Over(Attempt, Result<(), Error>),
    Preempted(Preempted),
    Nothing,
}

impl Reading {
    fn of(attempt: Attempt, body: Body, part: Part) -> Self {
        let size = body.remaining();
        let reading = Self { cell: Arc::default(), part: Arc::new(part), size, given: 0, opening: None };
        reading.hold(attempt, body);
        reading
    }

    fn hold(&self, attempt: Attempt, body: Body) {
        let generation: Option<Arc<Generation>> = attempt.generation().cloned();
        lock(&self.cell).held = Some((attempt, body));
        if let Some(generation) = generation {
            generation.hold(&self.cell);
            // The preemption may have come before the body was there.
            if generation.is_preempted() {
                Cell::preempt(&self.cell);
            }
        }
    }

    fn look(&self, context: &mut Context<'_>) -> Poll<Seen> {
        let mut cell = lock(&self.cell);
        if let Some(preempted) = cell.preempted.take() {
            return Poll::Ready(Seen::Preempted(preempted));
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
        Poll::Ready(held.map_or(Seen::Nothing, |(attempt, _)| Seen::Over(attempt, end)))
    }

    fn begin_again(&mut self, attempt: Attempt) {
        let (part, given, size) = (self.part.clone(), self.given, self.size);
        self.opening = Some(Box::pin(async move {
            let outcome = attempt.run(part.open(attempt.adapter(), given, size)).await;
            (attempt, outcome)
        }));
    }

    /// Ends an attempt; returns the error if there is no other one.
    fn over(&mut self, attempt: Attempt, outcome: Result<(), Error>) -> Option<Error> {
        match attempt.end(outcome.as_ref().copied(), true) {
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
                let (attempt, outcome) = ready!(opening.poll_unpin(context));
                self.opening = None;
                match outcome {
                    Ok(body) => self.hold(attempt, body),
                    Err(error) => {
                        if let Some(error) = self.over(attempt, Err(error)) {
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
                Seen::Over(attempt, outcome) => match self.over(attempt, outcome) {
                    Some(error) => return Poll::Ready(Some(Err(error))),
                    None if self.opening.is_some() => {}
                    None => return Poll::Ready(None),
                },
                Seen::Preempted(preempted) => match preempted.again() {
                    Ok(attempt) => self.begin_again(attempt),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Seen::Nothing => return Poll::Ready(None),
            }
        }
    }
}
