//! The change of an image, written to a file: what is read, where it goes, and what ends it.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BaseOf, MAX_PACK_PERCENT};
use crate::connector::{Image, disk_room};
use crate::snapshot::pages::{Base, Encoded, FileImage, Options, changed_bytes, encode_delta};
use crate::snapshot::{Identifier, pages};
use crate::types::{Error, ErrorKind, Result, SnapshotId};

/// A change that was written.
pub(super) struct Written {
    pub(super) encoded: Encoded,
    pub(super) out: File,
    /// The identity of the pack's own bytes.
    pub(super) id: SnapshotId,
    /// The page digests of the image, if they were wanted and could be written.
    pub(super) sidecar: Option<File>,
    /// The bytes in which the image differs from the base.
    pub(super) changed: Vec<Range<u64>>,
}

/// Writes the change, and the page digests of the image if there is a file for them; `None` if it is not worth its base, or if
/// there is no room for it.
pub(super) fn encode(
    new: &Stoppable,
    base: &BaseOf,
    dirty: Option<&[Range<u64>]>,
    out: File,
    sidecar: Option<File>,
    options: &Options,
) -> Result<Option<Written>> {
    let fail = |error| Error::io("a temporary copy of the delta", error);
    let mut out = std::io::BufWriter::new(out);
    let mut sidecar = sidecar.map(|file| BestEffort { out: std::io::BufWriter::new(file), failed: None });
    let mut sent = Identifier::new();
    let parts = Base {
        chain: &base.chain,
        identity: &base.identity,
        image: Some(&*base.image),
        digests: base.digests.as_ref(),
    };
    let (most, mut written, mut given_up) = (pages::Image::size(new) / 100 * MAX_PACK_PERCENT, 0, false);
    let mut sink = |bytes: bytes::Bytes| {
        written += bytes.len() as u64;
        let result = match written <= most {
            true => {
                sent.update(&bytes);
                let room = disk_room::check(out.get_ref(), bytes.len() as u64);
                room.and_then(|()| out.write_all(&bytes)).map_err(fail)
            }
            false => Err(Error::unsupported("the change is as large as the image")),
        };
        given_up = result.is_err();
        result
    };
    let digests = sidecar.as_mut().map(|sidecar| sidecar as &mut dyn Write);
    let encoded = encode_delta(new, &parts, dirty, options, digests, &mut sink);
    let encoded = match encoded {
        Err(error) if given_up => {
            tracing::debug!(%error, "the image is stored whole");
            return Ok(None);
        }
        encoded => encoded?,
    };
    let out = out.into_inner().map_err(|error| fail(error.into_error()))?;
    let sidecar = sidecar.and_then(BestEffort::into_file);
    let changed = changed_bytes(&encoded.pack, base.chain.pack());
    Ok(Some(Written { encoded, out, id: sent.finish().id(), sidecar, changed }))
}

/// A file of a cache: what cannot be written is not there, and the work goes on.
struct BestEffort {
    out: std::io::BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl BestEffort {
    /// The file, if all of it is there.
    fn into_file(self) -> Option<File> {
        let written = match self.failed {
            None => self.out.into_inner().map_err(std::io::IntoInnerError::into_error),
            Some(error) => Err(error),
        };
        match written {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(%error, "cannot write page digests");
                None
            }
        }
    }
}

impl Write for BestEffort {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
        Ok(())
    }
}

/// Ends an encoder when it is dropped: nothing waits for it any more.
#[derive(Default)]
pub(in crate::connector) struct Stop(pub(in crate::connector) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An image that cannot be read any more once that is wanted.
pub(in crate::connector) struct Stoppable {
    pub(in crate::connector) image: FileImage,
    pub(in crate::connector) stop: Arc<AtomicBool>,
}

impl pages::Image for Stoppable {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Cancelled, "nothing waits for the change any more")),
            false => self.image.read_at(buffer, offset),
        }
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        self.image.next_data(from, end)
    }
}

/// A stored image, for an encoder. Reading blocks, and needs the runtime to go on elsewhere.
pub(super) struct StoredImage {
    pub(super) image: Image,
    pub(super) runtime: tokio::runtime::Handle,
}

impl pages::Image for StoredImage {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn is_near(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let wanted = buffer.len();
        match self.runtime.block_on(self.image.read_at(offset, buffer))? {
            filled if filled == wanted => Ok(()),
            filled => Err(Error::corrupt(format!("the base ends {} bytes early", wanted - filled))),
        }
    }
}
