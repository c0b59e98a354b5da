//! Cold storage: asking for a restore, and waiting for it.
//!
//! ```text
//! archived ── retrieve asks ──▶ restoring ── hours ──▶ readable until T ── T ──▶ archived
//! ```
//!
//! A retrieve that finds every readable placement cold requests a restore of one of them and fails with `archived`, with
//! the resulting state and an estimate; a later call requests it again, which backends treat as the same request.
//! Nothing is recorded here: the backend knows the state, so a restarted host or another one on the same data finds
//! it there. So the estimate is always that of a whole restore; the caller has to know the time since the first
//! request.
//!
//! A restore costs money, so only a retrieve asks for one, and only when every other placement is known to be lost: one on
//! a backend that is away may come back. Of several cold placements, the one that costs least to read is restored. A
//! verification asks for none.

use std::time::Duration;

use super::Host;
use super::report::ColdPlacement;
use crate::catalogue::Placement;
use crate::types::{ArchiveState, Error, ErrorKind, Result, Retry, SnapshotId, format_duration};

/// The first pause between two looks at a restore; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest. Restores take minutes at the least.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often in a row no backend answers until waiting ends.
const PATIENCE: u32 = 10;

impl Host {
    /// Returns the placements of a snapshot on backends that are, or may be, cold, each with its current state on the
    /// backend. Empty if the snapshot is on no such backend. Reads and restores nothing.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; the error of the last backend, if none answers.
    pub async fn archive_states(&self, id: SnapshotId) -> Result<Vec<ColdPlacement>> {
        self.known(id).await?;
        let (mut states, mut last, mut answered) = (Vec::new(), None, false);
        for Placement { backend, object, .. } in self.readable(id).await? {
            let asked = async { self.backend(&backend).await?.objects.stat(&object).await };
            match asked.await {
                Ok(stat) => {
                    answered = true;
                    states.extend(stat.archive.map(|state| ColdPlacement { backend, object, state }));
                }
                Err(error) => {
                    tracing::warn!(backend, %error, "cannot check the placement");
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if !answered => Err(error),
            _ => Ok(states),
        }
    }

    /// Blocks until a snapshot that is being restored is readable, or no restore is in progress any more: then a retrieve
    /// requests it again. Checks at least a second after the call and then at growing intervals, up to once a
    /// minute; a backend that does not answer for a while is tolerated. `looked` gets the state after each check.
    ///
    /// Dropping the future stops waiting; the restore continues.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; the backend's error after ten failures in a row, or if it rejects the request.
    pub async fn until_restored(&self, id: SnapshotId, mut looked: impl FnMut(&ArchiveState)) -> Result<()> {
        let (mut pause, mut failures) = (FIRST_PAUSE, 0);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let states = match self.archive_states(id).await {
                Ok(states) => states,
                Err(error) => {
                    failures += 1;
                    if failures == PATIENCE || error.retry() == Retry::Never {
                        return Err(error);
                    }
                    tracing::warn!(%error, "cannot check the restore");
                    continue;
                }
            };
            failures = 0;
            let Some(restoring) = states.iter().find(|cold| matches!(cold.state, ArchiveState::Restoring(_))) else {
                return Ok(());
            };
            if states.iter().any(|cold| matches!(cold.state, ArchiveState::Readable(_))) {
                return Ok(());
            }
            looked(&restoring.state);
        }
    }

    /// Asks for the restore of a placement that was found cold.
    ///
    /// # Errors
    /// `archived`, with the resulting state, unless it has become readable meanwhile; errors of the backend.
    pub(super) async fn ask_for_restore(&self, id: SnapshotId, placement: &Placement) -> Result<()> {
        let asked = async {
            let backend = self.backend(&placement.backend).await?;
            backend.objects.restore(&placement.object, backend.restore_days).await
        };
        let (state, hint) = match asked.await {
            Ok(ArchiveState::Readable(_)) => return Ok(()),
            Ok(state) => (state, "try again later, or use `tidelock retrieve --wait`"),
            Err(error) if *error.kind() == ErrorKind::Unsupported => (
                ArchiveState::Archived,
                "restore the object by other means, or use the adapter `glacier`: this adapter cannot request restores",
            ),
            Err(error) => return Err(error),
        };
        tracing::info!(backend = placement.backend, object = %placement.object, ?state, "it is in cold storage");
        Err(cold(id, state).on_backend(&placement.backend).hint(hint))
    }
}

/// Returns the error for a snapshot whose bytes are not readable now.
fn cold(id: SnapshotId, state: ArchiveState) -> Error {
    let what = match &state {
        ArchiveState::Archived => format!("snapshot {id} is in cold storage"),
        ArchiveState::Restoring(Some(left)) if !left.is_zero() => {
            format!("snapshot {id} is being restored from cold storage, which may take {}", format_duration(*left))
        }
        _ => format!("snapshot {id} is being restored from cold storage"),
    };
    Error::new(ErrorKind::Archived(state), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archived_object_reports_its_restore() {
        let id = SnapshotId::from_bytes([0; 32]);
        let said = |state| cold(id, state).message().to_owned();
        assert!(said(ArchiveState::Archived).ends_with("is in cold storage"));
        assert!(said(ArchiveState::Restoring(Some(Duration::from_secs(5 * 3600)))).ends_with("which may take 5 h"));
        assert!(said(ArchiveState::Restoring(None)).ends_with("from cold storage"));
        assert!(said(ArchiveState::Restoring(Some(Duration::ZERO))).ends_with("from cold storage"));
    }
}
