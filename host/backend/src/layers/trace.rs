//! A span for each operation, which names backend and operation, and an event if it fails, which names the kind of error.
//!
//! Spans are of level `debug`, with the target `tidelock::backend`. Without a subscriber none is made and the operation
//! runs as it is.

use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, Either};
use futures::{FutureExt as _, StreamExt as _};
use tracing::{Instrument as _, Span};

use tidelock_types::{Body, Error, Result};

use super::around::{Around, Surrounded};
use super::{Layer, Position};
use crate::{Backend, Operation};

const TARGET: &str = "tidelock::backend";

/// Runs each operation in a span.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace;

impl Layer for Trace {
    fn position(&self) -> Position {
        Position::Trace
    }

    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let backend = inner.name().to_owned();
        Surrounded::wrap(Traced { backend }, inner)
    }
}

struct Traced {
    backend: String,
}

impl Traced {
    fn span(&self, operation: Operation) -> Span {
        tracing::debug_span!(target: TARGET, "backend", backend = self.backend, operation = operation.name())
    }
}

fn failed(error: &Error) {
    tracing::debug!(target: TARGET, kind = error.kind().name(), %error, "failed");
}

impl Around for Traced {
    fn around<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        work: BoxFuture<'a, Result<T>>,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        let span = self.span(operation);
        match span.is_disabled() {
            true => Either::Left(work),
            false => Either::Right(work.map(|outcome| outcome.inspect_err(failed)).instrument(span)),
        }
    }

    /// The operation's span is over when its bytes come; what breaks them off is told in one of its own.
    fn body(&self, body: Body) -> Body {
        let span = self.span(Operation::Get);
        if span.is_disabled() {
            return body;
        }
        let size = body.remaining();
        let chunks = body.inspect(move |chunk| {
            if let Err(error) = chunk {
                span.in_scope(|| failed(error));
            }
        });
        Body::new(chunks, size)
    }
}
