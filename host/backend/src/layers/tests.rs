//! The order of layers, and what the two that exist do.

use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use tidelock_types::{Body, ByteRange, ErrorKind, ObjectId, Result};

use super::around::{Around, Surrounded};
use super::{Layer, Metrics, Position, Trace, layered};
use crate::testing::{MemoryAttempt, MemoryBackend, MemoryUpload};
use crate::{Backend, Operation, Upload};

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down what passes, on its way in and on its way out.
#[derive(Clone)]
struct Recorder(Position, Log);

impl Recorder {
    fn note(&self, way: &str) {
        self.1.lock().unwrap().push(format!("{way} {}", self.0.name()));
    }
}

impl Layer for Recorder {
    fn position(&self) -> Position {
        self.0
    }

    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Surrounded::wrap(self.clone(), inner)
    }
}

impl Around for Recorder {
    async fn around<'a, T: Send + 'a>(&'a self, _: Operation, work: BoxFuture<'a, Result<T>>) -> Result<T> {
        self.note("to");
        let outcome = work.await;
        self.note("from");
        outcome
    }

    fn body(&self, body: Body) -> Body {
        body
    }
}

fn recorders(order: impl IntoIterator<Item = Position>, log: &Log) -> Vec<Box<dyn Layer>> {
    order.into_iter().map(|position| Box::new(Recorder(position, log.clone())) as Box<dyn Layer>).collect()
}

fn memory() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new("memory"))
}

async fn put(backend: &dyn Backend, bytes: &'static str) -> ObjectId {
    backend.put(Upload::new(Arc::new(MemoryUpload::new(bytes, true)))).await.unwrap().id
}

#[tokio::test]
async fn calls_pass_in_the_documented_order_and_results_in_the_reverse() {
    let to = Position::ORDER.map(|position| format!("to {}", position.name()));
    let from = Position::ORDER.map(|position| format!("from {}", position.name()));
    let expected: Vec<String> = to.into_iter().chain(from.into_iter().rev()).collect();
    assert_eq!(expected[..2], ["to metrics", "to trace"]);
    // However they are given.
    for turn in 0..Position::ORDER.len() {
        let (mut order, log) = (Position::ORDER, Log::default());
        order.rotate_left(turn);
        order.swap(0, 3);
        let backend = layered(memory(), recorders(order, &log)).unwrap();
        let id = put(&*backend, "bytes").await;
        assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected, "put, {order:?}");
        backend.get(&id, None).await.unwrap();
        assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected, "get, {order:?}");
        backend.stat(&id).await.unwrap();
        backend.list(None, 10).await.unwrap();
        backend.delete(&id).await.unwrap();
        backend.restore(&id, 1).await.unwrap_err();
        backend.health().await.unwrap();
        backend.balance().await.unwrap_err();
        assert_eq!(*log.lock().unwrap(), [&expected[..]; 6].concat(), "{order:?}");
    }
}

#[test]
fn the_order_is_that_of_the_positions_and_has_each_once() {
    assert!(Position::ORDER.is_sorted());
    assert!(Position::ORDER.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(Operation::ALL.map(|operation| operation as usize), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn two_layers_cannot_have_one_position() {
    let log = Log::default();
    let layers = recorders([Position::Retry, Position::Metrics, Position::Retry], &log);
    let error = layered(memory(), layers).err().expect("refused");
    assert_eq!(*error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`retry`"), "{error}");
}

#[tokio::test]
async fn operations_failures_and_seconds_are_counted() {
    let (memory, metrics) = (memory(), Metrics::default());
    let backend = layered(memory.clone(), vec![Box::new(Trace), Box::new(metrics.clone())]).unwrap();
    let id = put(&*backend, "0123456789").await;
    memory.fail_next(Operation::Stat, ErrorKind::Unavailable, false);
    backend.stat(&id).await.unwrap_err();
    backend.stat(&id).await.unwrap();
    let range = ByteRange { start: 3, end: Some(7) };
    let part = backend.get(&id, Some(range)).await.unwrap();
    assert_eq!(part.remaining(), Some(4));
    assert_eq!(part.collect(100).await.unwrap(), "3456");
    drop(backend.health());
    let counts = metrics.counters().counts();
    let seen: Vec<_> = counts.iter().map(|it| (it.operation.name(), it.operations, it.failures.len())).collect();
    // One that was never polled has not begun.
    assert_eq!(seen, [("put", 1, 0), ("get", 1, 0), ("stat", 2, 1)]);
    assert_eq!(counts[2].failures["unavailable"], 1);
    assert!(counts.iter().all(|it| it.seconds > 0.0 && it.seconds < 10.0), "{counts:?}");
}

/// Answers with what is under way or broken.
struct Broken(Arc<MemoryBackend>);

impl Layer for Broken {
    fn position(&self) -> Position {
        Position::Concurrency
    }

    fn wrap(&self, _: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Surrounded::wrap(Broken(self.0.clone()), self.0.clone())
    }
}

impl Around for Broken {
    async fn around<'a, T: Send + 'a>(&'a self, operation: Operation, work: BoxFuture<'a, Result<T>>) -> Result<T> {
        if operation == Operation::Health {
            std::future::pending::<()>().await;
        }
        work.await
    }

    fn body(&self, body: Body) -> Body {
        let broken = futures::stream::iter([Err(tidelock_types::Error::corrupt("broken"))]);
        Body::new(body.chain(broken), None)
    }
}

#[tokio::test]
async fn dropped_operations_and_broken_bodies_are_failures() {
    let (memory, metrics) = (memory(), Metrics::default());
    let layers: Vec<Box<dyn Layer>> = vec![Box::new(metrics.clone()), Box::new(Broken(memory.clone()))];
    let backend = layered(memory, layers).unwrap();
    let id = put(&*backend, "bytes").await;
    backend.get(&id, None).await.unwrap().collect(100).await.unwrap_err();
    assert!(futures::FutureExt::now_or_never(backend.health()).is_none());
    let counts = metrics.counters().counts();
    let failed: Vec<_> = counts.iter().flat_map(|it| it.failures.keys().map(|kind| (it.operation, *kind))).collect();
    assert_eq!(failed, [(Operation::Get, "corrupt"), (Operation::Health, "cancelled")]);
}

/// A layer that retries begins further attempts, and the source gets each outcome.
#[tokio::test]
async fn each_attempt_has_a_key_of_its_own_and_its_source_learns_how_it_ended() {
    let memory = memory();
    let source = Arc::new(MemoryUpload::new("bytes", true));
    let upload = Upload::new(source.clone());
    assert!(upload.is_replayable());
    memory.fail_next(Operation::Put, ErrorKind::RateLimited(None), false);
    memory.fail_next(Operation::Put, ErrorKind::TimedOut, true);
    memory.put(upload.clone()).await.unwrap_err();
    memory.put(upload.clone()).await.unwrap_err();
    let receipt = memory.put(upload).await.unwrap();
    assert_eq!(receipt.id.as_str(), "key-2");
    let failed = |kind| MemoryAttempt::Failed(kind);
    let expected = [
        failed(ErrorKind::RateLimited(None)),
        failed(ErrorKind::TimedOut),
        MemoryAttempt::Stored(ObjectId::new("key-2").unwrap()),
    ];
    assert_eq!(source.attempts(), expected);
    // The second one took effect although it failed: that its key is known is what finds it.
    assert_eq!(memory.objects(), ["key-1", "key-2"]);
    let page = memory.list(None, 1).await.unwrap();
    assert_eq!(page.next.as_deref(), Some("key-1"));
    assert_eq!(memory.list(page.next, 1).await.unwrap().next, None);
}

#[tokio::test]
async fn an_upload_that_can_be_read_once_has_one_attempt() {
    let memory = memory();
    let source = Arc::new(MemoryUpload::new("bytes", false));
    let upload = Upload::new(source.clone());
    assert!(!upload.is_replayable());
    memory.fail_next(Operation::Put, ErrorKind::Unavailable, false);
    memory.put(upload.clone()).await.unwrap_err();
    let error = memory.put(upload).await.unwrap_err();
    assert!(error.backend().is_none(), "it is not the backend's fault: {error}");
    assert_eq!(source.attempts(), [MemoryAttempt::Failed(ErrorKind::Unavailable)]);
}
