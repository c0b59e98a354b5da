//! Small reads of a hot image: in place, page by page, without asking the catalogue each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use super::failover::ImageSource;
use crate::connector::hot::HotView;
use crate::types::ErrorKind;

/// The most bytes that are read so. Of more, whole segments are proven faster than their pages.
const MOST: usize = 256 << 10;

/// A hot image in place, once it was looked for.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    view: OnceCell<Option<Arc<HotView>>>,
    /// Set once it is damaged or gone.
    over: AtomicBool,
}

impl InPlace {
    /// Fills `buffer` as [`Image::read_at`](super::Image::read_at) does; `None` if that has to be done in another way.
    pub(super) async fn read(&self, source: &ImageSource, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let host = &source.host;
        if buffer.len() > MOST || host.inner.hot.is_none() || self.over.load(Ordering::Relaxed) {
            return None;
        }
        let view = self.view.get_or_init(|| async {
            let view = host.hot_view(source.identity.id()).await.unwrap_or_default();
            view.filter(|view| view.proves_pages())
        });
        let view = view.await.as_ref()?;
        if !view.is_there() {
            self.over.store(true, Ordering::Relaxed);
            return None;
        }
        match view.read(offset, buffer).await {
            Ok(filled) => Some(filled),
            Err(error) => {
                self.over.store(true, Ordering::Relaxed);
                // Of a pack, the read that follows finds out which object is at fault.
                if *error.kind() == ErrorKind::Corrupt && view.is_whole() {
                    host.examine_failure(&view.placement, &source.identity, offset, error).await;
                }
                None
            }
        }
    }
}
