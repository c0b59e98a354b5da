//! How much jobs read, and how fast they may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use crate::snapshot::Progress;
use crate::types::Body;

/// The bytes that the jobs of one run have read, all together.
pub(super) struct Meter {
    read: AtomicU64,
    rate: Option<Rate>,
    progress: Option<Progress>,
}

/// A bound of bytes per second.
struct Rate {
    bytes_per_second: u64,
    /// When what was read so far may have been read.
    paid_until: tokio::sync::Mutex<Instant>,
}

impl Meter {
    /// One that lets so many bytes pass in a second.
    pub(super) fn new(bytes_per_second: Option<u64>, progress: Option<Progress>) -> Self {
        let rate = |bytes_per_second: u64| Rate {
            bytes_per_second: bytes_per_second.max(1),
            paid_until: tokio::sync::Mutex::new(Instant::now()),
        };
        Self { read: AtomicU64::new(0), rate: bytes_per_second.map(rate), progress }
    }

    /// What was read so far.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Counts some bytes, and waits until they may be read.
    pub(super) async fn pass(&self, bytes: u64) {
        let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            progress(read);
        }
        let Some(rate) = &self.rate else { return };
        let pause = Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second as f64);
        let until = {
            let mut paid_until = rate.paid_until.lock().await;
            // What was not read in the past is not made up for.
            *paid_until = (*paid_until).max(Instant::now()) + pause;
            *paid_until
        };
        tokio::time::sleep_until(until).await;
    }

    /// A body whose bytes are counted.
    pub(super) fn around(self: &std::sync::Arc<Self>, body: Body) -> Body {
        let (size, meter) = (body.remaining(), self.clone());
        let chunks = body.then(move |chunk| {
            let meter = meter.clone();
            async move {
                if let Ok(chunk) = &chunk {
                    meter.pass(chunk.len() as u64).await;
                }
                chunk
            }
        });
        Body::new(chunks, size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_by_all_together() {
        let meter = Arc::new(Meter::new(Some(1000), None));
        let began = Instant::now();
        let read = |_| meter.around(Body::from_bytes(vec![0; 2500])).collect(5000);
        let read: Vec<_> = futures::future::join_all((0..2).map(read)).await;
        assert!(read.iter().all(|bytes| bytes.as_ref().unwrap().len() == 2500));
        assert_eq!((meter.read(), began.elapsed().as_secs()), (5000, 5));
    }
}
