//! The bytes of a put: an object that opens attempts.
//!
//! What became of an attempt that failed may not be known: the reply was lost, and the object is there all the same. So
//! each attempt goes out under a key that was never used before, and the key is recorded (its *intent*) before the first
//! byte leaves. The [`UploadSource`], which the caller of a put implements, does both when an attempt is begun, and is told
//! how it ended: with a receipt; without an effect, so that the intent can go; or with an effect that is unknown, so that
//! the intent has to stay until garbage collection has looked for the object.
//!
//! ```text
//! begin ─▶ send ─┬─▶ end(receipt)
//!                ├─▶ end(error)   known to have had no effect, or not
//!                └─▶ dropped      the effect is unknown
//! ```
//!
//! A backend does not call these by itself: [`Upload::attempt`] does, so that no implementation forgets one.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use tidelock_types::{Body, Error, Features, ObjectId, Receipt, Result, StoreHint};

/// The bytes of one [`put`](crate::Backend::put). Cheap to clone; all clones open attempts of the same upload.
#[derive(Clone)]
pub struct Upload(Arc<dyn UploadSource>);

/// One attempt to store the bytes.
pub struct UploadAttempt {
    /// The bytes, from the first one on.
    pub body: Body,
    /// The key of this attempt alone, and what else is known of the object.
    pub hint: StoreHint,
    /// The object that the new one changes, if the backend keeps that.
    pub base: Option<ObjectId>,
}

/// Where the bytes of an upload come from, and who answers for what attempts leave.
pub trait UploadSource: Send + Sync {
    /// Returns whether [`begin`](Self::begin) can be called more than once. A pipe, for example, can be read only once.
    fn is_replayable(&self) -> bool;

    /// Begins an attempt on a backend that has these features. The key in its hint is fresh, and its intent is durable
    /// when this returns. Several attempts may be under way at once.
    ///
    /// # Errors
    /// If the bytes cannot be read, or not once more; if the intent cannot be recorded. Nothing is left then.
    fn begin(&self, features: Features) -> BoxFuture<'_, Result<UploadAttempt>>;

    /// Ends the attempt with this key. Ends its intent as well if the error says that no object can have been made.
    /// Not called for an attempt that was dropped on its way: its intent stays.
    ///
    /// # Errors
    /// If what came of the attempt cannot be recorded.
    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>>;
}

impl Upload {
    /// The upload of a source. The caller keeps the source, to ask it what came of the attempts.
    pub fn new(source: Arc<dyn UploadSource>) -> Self {
        Self(source)
    }

    /// Returns whether another attempt can be made after one that failed.
    pub fn is_replayable(&self) -> bool {
        self.0.is_replayable()
    }

    /// Makes one attempt: begins it, hands it to `send`, and tells the source how it ended.
    ///
    /// # Errors
    /// Those of the source and those of `send`.
    pub async fn attempt<F>(&self, features: Features, send: impl FnOnce(UploadAttempt) -> F) -> Result<Receipt>
    where
        F: Future<Output = Result<Receipt>>,
    {
        let attempt = self.0.begin(features).await?;
        let key = attempt.hint.key.clone();
        let outcome = send(attempt).await;
        self.0.end(&key, outcome.as_ref()).await?;
        outcome
    }
}

/// An upload is a source, for what changes bytes on their way.
impl UploadSource for Upload {
    fn is_replayable(&self) -> bool {
        self.0.is_replayable()
    }

    fn begin(&self, features: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        self.0.begin(features)
    }

    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>> {
        self.0.end(key, outcome)
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("replayable", &self.is_replayable()).finish_non_exhaustive()
    }
}
