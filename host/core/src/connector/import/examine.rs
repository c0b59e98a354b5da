//! Examining one object: its metadata on the backend, and the identity of its bytes.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;

use crate::backend::Backend;
use crate::catalogue::{Adopted, ImportItem, NewPack, NewPlacement, NewSnapshot, WantedCopies};
use crate::connector::container::{IDENTITY_SIZE, is_identity};
use crate::connector::encoding::of_unknown;
use crate::connector::labels::{keys_in, read_labels};
use crate::sealed::{is_sealed, looks_sealed};
use crate::snapshot::pages::{LAST_BYTES, looks_like_pack};
use crate::snapshot::{Identity, identify};
use crate::types::{ArchiveState, Body, Encoding, Error, ErrorKind, ObjectStat, Result};

use super::LeftState;
use super::report::Meter;

/// Why an object is left alone that has no label and is a pack by its bytes. Taken for an image, what it holds would be lost:
/// it would be recorded as another snapshot. Taken for a pack, an image that holds the bytes of one would.
const UNLABELLED: &str = "it looks like a pack whose label `tidelock-encoding` is lost: put the label back, or import the \
                          object by name with `--encoding pages`, or `raw` if it is an image that holds a pack";

/// Why an object is left alone that is sealed by its bytes, and not by the name that it has here.
const SEALED: &str = "it looks encrypted with a key that is not configured: name the key in the table [encryption], or import \
                      the object by name with `--encoding raw` if it is an image that holds an encrypted object";

/// An object that was looked at.
pub(super) struct Examined {
    pub(super) item: ImportItem,
    pub(super) finding: Finding,
}

/// The result of examining an object.
pub(super) enum Finding {
    /// Its snapshot.
    Snapshot(Box<Found>),
    /// It is a pack, which has to wait for what it takes pages from.
    Pack,
    /// It identifies a container, and holds no snapshot.
    Identity,
    /// It cannot be imported, and asking again will not help soon.
    Left(LeftState, String),
    /// The backend did not return it.
    Failed(Error),
}

/// An object and the identity of its bytes.
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) encoding: Encoding,
    pub(super) pack: Option<NewPack>,
    pub(super) stat: ObjectStat,
}

impl Found {
    /// The record for the catalogue.
    pub(super) fn placed(self, backend: &str, seals: bool, item: ImportItem, wanted: &WantedCopies) -> Adopted {
        let (base, name) = read_labels(&self.stat.labels);
        let snapshot = NewSnapshot {
            id: self.identity.id(),
            size: self.identity.size(),
            base,
            by_id: name.is_none(),
            name,
            segments: self.identity.segments().to_bytes(),
        };
        let placement = NewPlacement {
            backend: backend.to_owned(),
            object: item.object,
            encoding: self.encoding,
            pack: self.pack,
            stored_bytes: self.stat.size,
        };
        let (base, stored) = (self.stat.base, self.stat.modified.or(item.modified));
        let weak_name = seals && !is_sealed(&placement.object);
        Adopted { snapshot, placement, base, stored, weak_name, wanted: Some(wanted.clone()) }
    }
}

/// How objects are looked at.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Ask for the restore of what is cold, for so many days.
    pub(super) restore: Option<u32>,
    /// What the bytes are, whatever the labels say.
    pub(super) encoding: Option<Encoding>,
}

/// Looks at an object and reads it.
pub(super) async fn examine(objects: &dyn Backend, item: ImportItem, how: Manner, meter: &Meter) -> Examined {
    let finding = match look(objects, &item, how, meter).await {
        Ok(finding) => finding,
        Err(error) => judge(error),
    };
    Examined { item, finding }
}

async fn look(objects: &dyn Backend, item: &ImportItem, how: Manner, meter: &Meter) -> Result<Finding> {
    let stat = objects.stat(&item.object).await?;
    if let Some(state @ (ArchiveState::Archived | ArchiveState::Restoring(_))) = &stat.archive
        && let Some(left) = thaw(objects, item, state, how.restore).await?
    {
        return Ok(left);
    }
    if stat.size == IDENTITY_SIZE
        && keys_in(item.object.as_str()).next().is_none()
        && is_identity(&objects.get(&item.object, None).await?.collect(IDENTITY_SIZE as usize).await?)
    {
        return Ok(Finding::Identity);
    }
    let encoding = how.encoding.map_or_else(|| of_unknown(&stat), Ok)?;
    let (identity, ends) = match encoding {
        Encoding::Raw => read_through(objects, item, stat.size, meter).await?,
        Encoding::Pages => return Ok(Finding::Pack),
    };
    if how.encoding.is_none() && looks_like_pack(&ends.first, &ends.last) {
        return Ok(Finding::Left(LeftState::Damaged, UNLABELLED.to_owned()));
    }
    if how.encoding.is_none() && looks_sealed(&ends.first) {
        return Ok(Finding::Left(LeftState::Unreachable, SEALED.to_owned()));
    }
    if encoding.object_size(identity.size()).is_some_and(|size| size != stat.size) {
        let why = format!("it ends after {} of the {} bytes that the backend reports", identity.size(), stat.size);
        return Ok(Finding::Left(LeftState::Damaged, why));
    }
    Ok(Finding::Snapshot(Box::new(Found { identity, encoding, pack: None, stat })))
}

/// Returns the outcome for a cold object; nothing if it can be read by now.
async fn thaw(
    objects: &dyn Backend,
    item: &ImportItem,
    state: &ArchiveState,
    restore: Option<u32>,
) -> Result<Option<Finding>> {
    let pending = |why: &str| Ok(Some(Finding::Left(LeftState::Pending, why.to_owned())));
    match (state, restore) {
        (ArchiveState::Restoring(_), _) => pending("it is being restored from cold storage"),
        (_, None) => pending("it is in cold storage, and no restore was requested"),
        (_, Some(days)) => match objects.restore(&item.object, days).await {
            Ok(ArchiveState::Readable(_)) => Ok(None),
            Ok(_) => pending("it is in cold storage, and a restore was requested"),
            Err(error) if *error.kind() == ErrorKind::Unsupported => {
                pending("it is in cold storage, and the adapter cannot request a restore")
            }
            Err(error) => Err(error),
        },
    }
}

/// Reads an object of `size` bytes, and no more than these.
async fn read_through(objects: &dyn Backend, item: &ImportItem, size: u64, meter: &Meter) -> Result<(Identity, Ends)> {
    let mut before = 0;
    let ends = Arc::new(Mutex::new(Ends::default()));
    let (body, noting) = (objects.get(&item.object, None).await?, ends.clone());
    let declared = body.remaining();
    let body = body.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            noting.lock().unwrap_or_else(PoisonError::into_inner).take(chunk);
        }
    });
    let identity = identify(Body::new(body, declared), |passed| {
        meter.read(passed - before);
        before = passed;
        if passed <= size {
            return Ok(());
        }
        Err(Error::corrupt(format!("it has more than the {size} bytes that the backend reports")))
    })
    .await?;
    let ends = std::mem::take(&mut *ends.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((identity, ends))
}

/// The first and the last bytes of an object.
#[derive(Debug, Default)]
struct Ends {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Ends {
    /// Takes note of the next bytes.
    fn take(&mut self, chunk: &[u8]) {
        const FIRST_BYTES: usize = 8;
        let missing = FIRST_BYTES.saturating_sub(self.first.len());
        self.first.extend_from_slice(&chunk[..chunk.len().min(missing)]);
        self.last.extend_from_slice(&chunk[chunk.len().saturating_sub(LAST_BYTES)..]);
        self.last.drain(..self.last.len().saturating_sub(LAST_BYTES));
    }
}

/// Returns the finding for a failure.
pub(super) fn judge(error: Error) -> Finding {
    let left = |state| Finding::Left(state, error.message().to_owned());
    match error.kind() {
        // The backend has answered.
        _ if error.missing_key().is_some() => left(LeftState::Unreachable),
        ErrorKind::NotFound => left(LeftState::Gone),
        ErrorKind::Corrupt => left(LeftState::Damaged),
        ErrorKind::Archived(_) => left(LeftState::Pending),
        ErrorKind::Invalid | ErrorKind::Unsupported => left(LeftState::Unreachable),
        _ => Finding::Failed(error),
    }
}
