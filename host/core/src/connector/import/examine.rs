//! Examining one object: its metadata on the backend, and the identity of its bytes.

use crate::catalogue::{Adopted, ImportItem, NewPlacement, NewSnapshot};
use crate::connector::labels::read_labels;
use crate::connector::retrieve::part_of;
use crate::runtime::Slot;
use crate::snapshot::{Identity, identify};
use crate::types::{ArchiveState, Body, ByteRange, Encoding, Error, ErrorKind, ObjectStat, Result};

use super::LeftState;
use super::report::Meter;

/// An object that was looked at.
pub(super) struct Examined {
    pub(super) item: ImportItem,
    pub(super) finding: Finding,
}

/// The result of examining an object.
pub(super) enum Finding {
    /// Its snapshot.
    Snapshot(Box<Found>),
    /// It cannot be imported, and asking again will not help soon.
    Left(LeftState, String),
    /// The backend did not return it.
    Failed(Error),
}

/// An object and the identity of its bytes.
pub(super) struct Found {
    identity: Identity,
    stat: ObjectStat,
}

impl Found {
    /// The record for the catalogue.
    pub(super) fn placed(self, backend: &str, item: ImportItem) -> Adopted {
        let (base, name) = read_labels(&self.stat.labels);
        let snapshot = NewSnapshot {
            id: self.identity.id(),
            size: self.identity.size(),
            base,
            name,
            segments: self.identity.segments().to_bytes(),
        };
        let placement = NewPlacement {
            backend: backend.to_owned(),
            object: item.object,
            encoding: Encoding::Raw,
            stored_bytes: self.stat.size,
        };
        Adopted { snapshot, placement, base: self.stat.base, stored: self.stat.modified.or(item.modified) }
    }
}

/// Examines an object and reads it. Requests its restore, for the given days, if it is cold and `restore` is set.
pub(super) async fn examine(slot: &Slot, item: ImportItem, restore: Option<u32>, meter: &Meter) -> Examined {
    let finding = match look(slot, &item, restore, meter).await {
        Ok(finding) => finding,
        Err(error) => judge(error),
    };
    Examined { item, finding }
}

async fn look(slot: &Slot, item: &ImportItem, restore: Option<u32>, meter: &Meter) -> Result<Finding> {
    let stat = slot.stat(&item.object).await?;
    if let Some(state @ (ArchiveState::Archived | ArchiveState::Restoring(_))) = &stat.archive
        && let Some(left) = thaw(slot, item, state, restore).await?
    {
        return Ok(left);
    }
    let identity = read_through(slot, item, stat.size, meter).await?;
    if identity.size() != stat.size {
        let why = format!("it ends after {} of the {} bytes that the backend reports", identity.size(), stat.size);
        return Ok(Finding::Left(LeftState::Damaged, why));
    }
    Ok(Finding::Snapshot(Box::new(Found { identity, stat })))
}

/// Returns the finding for a cold object; `None` if it is readable by now.
async fn thaw(slot: &Slot, item: &ImportItem, state: &ArchiveState, restore: Option<u32>) -> Result<Option<Finding>> {
    let pending = |why: &str| Ok(Some(Finding::Left(LeftState::Pending, why.to_owned())));
    match (state, restore) {
        (ArchiveState::Restoring(_), _) => pending("it is being restored from cold storage"),
        (_, None) => pending("it is in cold storage, and no restore was requested"),
        (_, Some(days)) => match slot.restore(&item.object, days).await {
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
async fn read_through(slot: &Slot, item: &ImportItem, size: u64, meter: &Meter) -> Result<Identity> {
    let object = item.object.clone();
    let body = slot.read(move |adapter, given| {
        let object = object.clone();
        async move {
            if given == 0 {
                return adapter.retrieve(&object, None).await;
            }
            // Read on after a swap, from the byte where it stopped.
            let left = size.saturating_sub(given);
            if left == 0 {
                Ok(Body::from_bytes(""))
            } else if adapter.description().features.ranges {
                adapter.retrieve(&object, Some(ByteRange::of(given, left))).await
            } else {
                Ok(part_of(adapter.retrieve(&object, None).await?, given, left))
            }
        }
    });
    let mut before = 0;
    identify(body.await?, |passed| {
        meter.read(passed - before);
        before = passed;
        if passed <= size {
            return Ok(());
        }
        Err(Error::corrupt(format!("it has more than the {size} bytes that the backend reports")))
    })
    .await
}

/// Returns the finding for a failure.
fn judge(error: Error) -> Finding {
    let left = |state| Finding::Left(state, error.message().to_owned());
    match error.kind() {
        ErrorKind::NotFound => left(LeftState::Gone),
        ErrorKind::Corrupt => left(LeftState::Damaged),
        ErrorKind::Archived(_) => left(LeftState::Pending),
        ErrorKind::Invalid | ErrorKind::Unsupported => left(LeftState::Unreachable),
        _ => Finding::Failed(error),
    }
}
