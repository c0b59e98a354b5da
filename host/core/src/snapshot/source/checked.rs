//! Images that are known already and are read from where they are kept: the source of further copies of a stream.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::sync::oneshot;

use super::{Progress, Reading};
use crate::snapshot::identity::Identity;
use crate::types::{Body, Error, Result};

/// Opens an image at its first byte. Its body is checked: it ends in an error unless it is the image.
type Open = dyn Fn() -> BoxFuture<'static, Result<Body>> + Send + Sync;

/// An image that is known already. Can be read again.
#[derive(Clone)]
pub struct CheckedSource {
    identity: Arc<Identity>,
    open: Arc<Open>,
}

impl CheckedSource {
    /// The image of this identity. Every body that `open` gives has to be checked against it.
    pub fn new(
        identity: Arc<Identity>,
        open: impl Fn() -> BoxFuture<'static, Result<Body>> + Send + Sync + 'static,
    ) -> Self {
        Self { identity, open: Arc::new(open) }
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.identity.size()
    }

    /// What it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Returns the bytes as they come, and their identity. Opens the image when the first of them is asked for.
    pub fn read(&self, progress: Option<Progress>) -> (Body, Reading) {
        let (tell, told) = oneshot::channel();
        let start = Checked { source: self.clone(), body: None, len: 0, progress, tell: Some(tell) };
        let bytes =
            stream::unfold(start, |mut checked| async move { checked.next().await.map(|item| (item, checked)) });
        (Body::new(bytes, Some(self.size())), Reading::new(told))
    }
}

struct Checked {
    source: CheckedSource,
    body: Option<Body>,
    len: u64,
    progress: Option<Progress>,
    tell: Option<oneshot::Sender<Result<Identity>>>,
}

impl Checked {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let next = async {
            if self.body.is_none() {
                self.body = Some((self.source.open)().await?);
            }
            match &mut self.body {
                Some(body) => body.next().await.transpose(),
                None => Ok(None),
            }
        };
        match next.await {
            Ok(Some(bytes)) => {
                self.len += bytes.len() as u64;
                if let Some(progress) = &self.progress {
                    progress(self.len);
                }
                // A reader that knows the size may not poll for the end.
                if self.len == self.source.size() {
                    self.conclude();
                }
                Some(Ok(bytes))
            }
            Ok(None) if self.len == self.source.size() => {
                self.conclude();
                None
            }
            Ok(None) => {
                let what = format!("the image ended after {} of {} bytes", self.len, self.source.size());
                let error = Error::corrupt(what).during("retrieve");
                if let Some(tell) = self.tell.take() {
                    let _ = tell.send(Err(error.duplicate()));
                }
                Some(Err(error))
            }
            Err(error) => {
                if let Some(tell) = self.tell.take() {
                    let _ = tell.send(Err(error.duplicate()));
                }
                Some(Err(error))
            }
        }
    }

    fn conclude(&mut self) {
        if let Some(tell) = self.tell.take() {
            // Not everybody asks.
            let _ = tell.send(Ok((*self.source.identity).clone()));
        }
    }
}
