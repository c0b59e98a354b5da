//! Stores that answer once the image is durable on this machine (`ack = "local"`).
//!
//! The image goes to the hot tier, and one transaction records that placement and the job that pushes it to the backends of
//! the route. Until that has ended, the image is on this machine alone: the hot tier does not let it go, and its bytes are *at
//! risk*. There is a bound for these, of which no backend holds more than it leaves to those of other such routes
//! (`catalogue/reserved.rs`): a store that would exceed either goes to the backends of its route. If these cannot take it, it
//! waits, and meanwhile does what the others have left to be pushed. What the hot tier cannot take is stored on the backends, as
//! if the route waited for all copies.

use std::time::Duration;

use futures::FutureExt as _;

use futures::future::BoxFuture;

use super::hot::HotChange;
use crate::catalogue::RiskBound;
use crate::config::DEFAULT_ROUTE;
use crate::connector::change::Change;
use crate::connector::object_bytes::again;
use crate::connector::report::Stored;
use crate::connector::reserved::Room;
use crate::connector::{Host, StoreOptions};
use crate::snapshot::Source;
use crate::types::{Error, ErrorKind, Result};

/// How long a store waits for a push that others run before it looks again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it looks while nothing is pushed.
const LOOKS: u32 = 120;

/// Takes images off this machine alone. Jobs do that, which store as well: so a host is given it when it is set up.
pub(in crate::connector) trait Pushes: Send + Sync {
    /// Does one at a time what has been left to be pushed, and returns how much of it is done.
    ///
    /// # Errors
    /// Errors of the catalogue; what fails of a push is none.
    fn push<'h>(&self, host: &'h Host) -> BoxFuture<'h, Result<u64>>;
}

/// What came of a store onto this machine.
pub(super) enum Locally {
    /// It is acknowledged.
    Stored(Stored),
    /// The backends have to take it.
    Elsewhere(Source),
    /// Too much is at risk: the backends have to take it, or it waits.
    PastRisk(Source),
}

impl Host {
    /// Stores an image into the hot tier. Waits for others to be pushed if that is asked for.
    ///
    /// # Errors
    /// `unavailable` if too much is at risk and nothing of it can be pushed; those of reading the image and of the catalogue.
    pub(super) async fn store_locally(
        &self,
        source: Source,
        change: Change<'_>,
        options: &StoreOptions,
        waits: bool,
    ) -> Result<Locally> {
        let Some(most) = self.inner.hot.as_ref().map(|hot| hot.at_risk) else { return Ok(Locally::Elsewhere(source)) };
        // The bounds of the hot tier are kept before a byte is in it, so the size has to be known.
        let source = match source.size() {
            Some(_) => source,
            None => Source::File(self.spooled(source).await?),
        };
        let (size, bound) = (source.size().unwrap_or(u64::MAX), self.risk_bound(most));
        let route = options.route.as_deref().unwrap_or(DEFAULT_ROUTE);
        let most = bound.largest(route);
        if size > most {
            tracing::warn!(size, most, "the image is larger than what may be at risk: it is stored on the backends");
            return Ok(Locally::Elsewhere(source));
        }
        let Some(room) = self.room_at_risk(&bound, route, size, waits).await? else {
            return Ok(Locally::PastRisk(source));
        };
        let stored = self.store_at_risk(source, change, options).boxed().await;
        room.end().await;
        stored
    }

    /// The same, once there is room for it.
    async fn store_at_risk(&self, source: Source, change: Change<'_>, options: &StoreOptions) -> Result<Locally> {
        let (once_more, mut identity) = (again(&source), change.pack.map(|pack| pack.identity.clone()));
        let changed = change.pack.and_then(|pack| pack.changed.as_deref()).or(change.changed);
        let hot = HotChange { base: change.base, changed };
        let copy = match self.put_hot(source, hot, &mut identity, options).boxed().await {
            Ok(copy) => copy,
            Err(error)
                if error.another_may_serve()
                    && let Some(source) = once_more.as_ref().and_then(again) =>
            {
                tracing::warn!(%error, "the hot tier cannot take the image: it is stored on the backends");
                return Ok(Locally::Elsewhere(source));
            }
            Err(error) => return Err(error),
        };
        // What was written counts only once it was read back: the name must not lead to anything else.
        let copy = match (self.proven_hot(copy).boxed().await, &once_more) {
            (Err(error), Some(source)) => {
                let Some(source) = again(source) else { return Err(error) };
                tracing::warn!(%error, "the hot copy is not proven: the image is stored on the backends");
                return Ok(Locally::Elsewhere(source));
            }
            (proven, _) => proven?,
        };
        let relies = copy.relies();
        match (self.record(vec![copy], change.base, options, true).boxed().await, once_more) {
            // What was hot already, or what the pack takes pages from, made room meanwhile.
            (Err(error), Some(source)) if relies && *error.kind() == ErrorKind::Conflict => {
                tracing::info!(%error, "what the hot copy relies on was removed: the image is stored on the backends");
                Ok(Locally::Elsewhere(source))
            }
            (stored, _) => stored.map(Locally::Stored),
        }
    }

    /// Reserves room for so many more bytes at risk. `None`, or it waits, if there is none.
    async fn room_at_risk(&self, bound: &RiskBound, route: &str, size: u64, waits: bool) -> Result<Option<Room>> {
        let (mut least, mut looks) = (u64::MAX, 0);
        loop {
            let in_the_way = match self.reserve_risk(bound, route, size).await? {
                Ok(room) => return Ok(Some(room)),
                Err(_) if !waits => return Ok(None),
                Err(bytes) => bytes,
            };
            looks = if in_the_way < least { 0 } else { looks + 1 };
            least = least.min(in_the_way);
            if looks > LOOKS {
                return Err(Error::unavailable(format!(
                    "{in_the_way} bytes of images are on this machine alone, and cannot be pushed to the backends"
                ))
                .hint("`tidelock jobs ls` says why; raise `at_risk` in [hot] if more may be lost with this machine"));
            }
            // Nobody else may be there to do it.
            if self.inner.pushes.push(self).await? == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
