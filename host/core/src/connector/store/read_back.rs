//! Packs that count only once the image was read back through them.
//!
//! Who stores an image without a base relies on nothing that is stored, and what a job sends has no other copy's proof. So a pack that takes
//! pages from a base which was found, or that a job sends, counts only where all of the image was read back through it, from that
//! backend alone: the pages of the base too.

use super::StoredCopy;
use crate::connector::Host;
use crate::connector::upload::StoreUpload;
use crate::types::Result;

impl Host {
    /// Sends a pack as [`Self::send_pack`] does, and reads the image back through it. `None`, with nothing left of the pack, if that
    /// fails: the image is sent whole then.
    ///
    /// # Errors
    /// As [`Self::send_pack`].
    pub(super) async fn send_and_read_back(&self, upload: StoreUpload) -> Result<Option<StoredCopy>> {
        let Some(copy) = self.send_pack(upload).await? else { return Ok(None) };
        let Some(placement) = copy.unrecorded().filter(|_| copy.made().is_some()) else { return Ok(Some(copy)) };
        let Err(error) = Box::pin(self.prove(&placement, &copy.identity)).await else { return Ok(Some(copy)) };
        tracing::warn!(backend = copy.backend(), %error, "what the pack takes pages from is not sound here: the image is stored whole");
        self.discard(vec![copy]).await;
        Ok(None)
    }
}
