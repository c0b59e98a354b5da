//! Changes of a catalogue that is what it was, and the mark that goes with what they acknowledge.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Place;
use crate::catalogue::sqlite::mark::Mark;
use crate::catalogue::sqlite::put_back::{self, Settled, Witness};
use crate::catalogue::sqlite::sql;
use crate::types::{Error, Result};

/// How often a catalogue may be put back while a change is made.
const ATTEMPTS: u32 = 5;

impl Place {
    /// Makes sure that the catalogue is what it was when something was last acknowledged (`put_back.rs`).
    ///
    /// # Errors
    /// What the database and the mark meet.
    pub(in crate::catalogue::sqlite) fn check(&self, connection: &mut Connection) -> Result<()> {
        match self.witness() {
            Some(witness) if self.check_writable().is_ok() => put_back::check(connection, &witness),
            _ => Ok(()),
        }
    }

    /// Makes a change in a transaction that nobody else's comes between, of a catalogue that is what it was: a new incarnation
    /// is begun in a transaction of its own before. The change is told the incarnation. It is on disk or rolled back when this
    /// returns.
    ///
    /// # Errors
    /// What the change, the database and the mark meet.
    pub(in crate::catalogue::sqlite) fn transact<T>(
        &self,
        connection: &mut Connection,
        change: impl FnOnce(&Transaction<'_>, Option<u64>) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
            let settled = self.witness().map(|witness| put_back::settle(&transaction, &witness)).transpose()?;
            let incarnation = match settled {
                Some(Settled::Begun) => {
                    transaction.commit().map_err(sql)?;
                    continue;
                }
                Some(Settled::Same(incarnation)) => Some(incarnation),
                Some(Settled::Unmarked) | None => None,
            };
            let changed = change(&transaction, incarnation)?;
            transaction.commit().map_err(sql)?;
            return Ok(changed);
        }
        Err(Error::unavailable(format!("the catalogue {} is put back again and again", self.path.display()))
            .hint("try again, and let the mark beside it be"))
    }

    /// Makes sure that something can be acknowledged in this incarnation.
    ///
    /// # Errors
    /// `unavailable` without a mark.
    pub(in crate::catalogue::sqlite) fn check_marked(&self, incarnation: Option<u64>) -> Result<()> {
        match &self.mark {
            Some(mark) if incarnation.is_none() => {
                let what = format!("the mark of the catalogue, {}, cannot be made", mark.path().display());
                Err(Error::unavailable(what).hint("make room in the data directory, and make it writable"))
            }
            _ => Ok(()),
        }
    }

    fn witness(&self) -> Option<Witness<'_>> {
        let mark = self.mark.as_ref()?;
        Some(Witness { mark, file: &self.path, platform: &self.platform })
    }

    /// Notes that a change of this number is about to be acknowledged, durably. If that fails, there is no mark from then on, so
    /// that every copy of the catalogue is known for one. Those that come while the mark is raised share the next time.
    ///
    /// # Errors
    /// `unavailable` if neither can be done: then the change must not be acknowledged, though it is recorded.
    pub(in crate::catalogue::sqlite) fn acknowledged(&self, incarnation: Option<u64>, version: u64) -> Result<()> {
        let (Some(mark), Some(incarnation)) = (&self.mark, incarnation) else { return Ok(()) };
        self.raises.cover(incarnation, version, |version| raise(mark, incarnation, version))
    }
}

fn raise(mark: &Mark, incarnation: u64, version: u64) -> Result<()> {
    let Err(error) = mark.raise(incarnation, version) else { return Ok(()) };
    let shown = mark.path().display();
    match mark.void() {
        Ok(()) => {
            tracing::warn!(%error, path = %shown, "the mark of the catalogue cannot be written, and was removed");
            Ok(())
        }
        Err(_) => Err(Error::unavailable(format!(
            "the mark of the catalogue, {shown}, cannot be written ({error}): the change is recorded, but a copy of the \
             catalogue that is put back later would not be known to be older, and a collection could remove what was stored"
        ))
        .hint("make the folder writable and try again; until then, do not put back a copy of the catalogue")
        .with_source(error)),
    }
}

/// Takes a change to be made. It is made once: where calls are repeated, nothing can be changed.
pub(in crate::catalogue::sqlite) fn once<T>(change: &mut Option<T>) -> Result<T> {
    change.take().ok_or_else(|| Error::other("a change of the catalogue was made twice"))
}

/// One transaction, which is on disk or rolled back when this returns.
pub(in crate::catalogue::sqlite) fn transact<T>(
    db: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<T> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let changed = change(&transaction)?;
    transaction.commit().map_err(sql)?;
    Ok(changed)
}
