//! Proving that a pack which no catalogue knows holds the snapshot that it names.
//!
//! Its metadata and the digests of its base lead to the id of the snapshot; what its frames and its map give is compared with
//! these digests where it is not what the base is proven to be. So that costs what has changed, and not the image.

use std::sync::Arc;

use futures::StreamExt as _;

use super::Caches;
use super::frames::RecentFrames;
use crate::catalogue::Placement;
use crate::connector::Host;
use crate::snapshot::pages::Chain;
use crate::snapshot::{Identity, verify_range};
use crate::types::{ByteRange, Error, ErrorKind, Result, blocking};

/// The most bytes that are made and hashed for each byte of a pack: each segment of 2 MiB has a digest of 32 bytes there.
const MOST_PER_BYTE: u64 = 1 << 16;
/// As many in any case.
const LEAST: u64 = 1 << 30;

impl Host {
    /// Returns the identity of the snapshot that a pack holds, of which every page is proven then, if those of its base are.
    /// `read` is told the bytes as they are read.
    ///
    /// # Errors
    /// `corrupt` if it does not hold the snapshot that it names; `unsupported` if proving it would take far more than its size
    /// explains; otherwise as a read.
    pub(in crate::connector) async fn prove_pack(
        &self,
        placement: &Placement,
        chain: Chain,
        mut read: impl FnMut(u64),
    ) -> Result<Identity> {
        let base = match chain.pack().sources().first() {
            Some(source) => Some(self.identity_of(source.snapshot).await?),
            None => None,
        };
        let chain = Arc::new(chain);
        let named = chain.pack().snapshot();
        let of = chain.clone();
        let planned = blocking(move || {
            let identity = of.pack().identity(base.as_deref())?;
            let unproven = of.unproven(&identity, base.as_deref())?;
            Ok((identity, unproven))
        });
        let (identity, unproven) = planned.await.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => Error::corrupt(format!("it is a pack that says it holds {named}, and does not")),
            _ => error,
        })?;
        let bytes: u64 = unproven.iter().map(|range| range.end - range.start).sum();
        if bytes > placement.stored_bytes.saturating_mul(MOST_PER_BYTE).saturating_add(LEAST) {
            return Err(Error::unsupported(format!(
                "it says that {bytes} bytes have changed, which its {} bytes cannot prove",
                placement.stored_bytes
            )));
        }
        let (identity, frames) = (Arc::new(identity), Arc::new(RecentFrames::default()));
        for range in unproven {
            let wanted = ByteRange::of(range.start, range.end - range.start);
            let body = self.pack_body_with(placement.clone(), chain.clone(), range, Caches::Bypass, frames.clone());
            let mut body = verify_range(body, identity.clone(), wanted)?;
            while let Some(chunk) = body.next().await {
                read(chunk?.len() as u64);
            }
        }
        Ok(Arc::unwrap_or_clone(identity))
    }
}
