//! How calls are made: on blocking threads, in transactions, and on a connection of their own for leases.

use std::sync::PoisonError;

use rusqlite::{Connection, Transaction};

use super::SqliteCatalogue;
use super::errors::damaged;
use super::place::{once, transact};
use super::versions;
use crate::types::{Error, ErrorKind, Result, blocking};

impl SqliteCatalogue {
    /// Runs a call on a blocking thread: once more if it only reads and others changed the file meanwhile.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        call: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with_and_then(call, Ok).await
    }

    /// The same, and what is done after the call while others may call.
    async fn with_and_then<T: Send + 'static, U: Send + 'static>(
        &self,
        call: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
        after: impl FnOnce(T) -> Result<U> + Send + 'static,
    ) -> Result<U> {
        #[cfg(test)]
        if self.inline {
            let mut call = call;
            return after(call(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))?);
        }
        let (connection, place) = (self.connection.clone(), self.place.clone());
        let result = blocking(move || {
            // A panic in a call cannot leave a transaction half done: dropping one rolls it back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            place.follow(&mut connection)?;
            place.relieve(&mut connection);
            let called = place.call(&mut connection, call)?;
            drop(connection);
            after(called)
        });
        result.await.map_err(|error| self.hinted(error))
    }

    /// Makes a change, in a transaction that nobody else's comes between.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        #[cfg(test)]
        if self.inline {
            let mut change = Some(change);
            return self.with(move |db| transact(db, once(&mut change)?)).await;
        }
        let (place, mut change) = (self.place.clone(), Some(change));
        self.with(move |db| {
            place.before_change(db)?;
            let change = once(&mut change)?;
            let changed = place.transact(db, |db, _| change(db)).inspect_err(|error| place.after_failure(error))?;
            place.check_found()?;
            Ok(changed)
        })
        .await
    }

    /// Makes a change that acknowledges something: what an older copy of the catalogue holds as begun has ended with it.
    pub(super) async fn acknowledge<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (place, marked, mut change) = (self.place.clone(), self.place.clone(), Some(change));
        let recorded = move |db: &mut Connection| {
            place.before_change(db)?;
            let change = once(&mut change)?;
            let numbered = |db: &Transaction<'_>, incarnation| {
                place.check_marked(incarnation)?;
                Ok((incarnation, change(db)?, versions::next_version(db)?))
            };
            place.transact(db, numbered).inspect_err(|error| place.after_failure(error))
        };
        // While others record theirs: the mark is raised once for all that wait for it.
        self.with_and_then(recorded, move |(incarnation, changed, version)| {
            marked.acknowledged(incarnation, version)?;
            // After the mark: whoever puts a copy in its place from now on is found out by that.
            marked.check_found()?;
            Ok(changed)
        })
        .await
    }

    /// Makes a change to leases, on the connection and on a thread for that.
    pub(super) async fn change_leases<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        #[cfg(test)]
        if self.inline {
            return self.change(change).await;
        }
        let (leases, main, place) = (self.leases.clone(), self.connection.clone(), self.place.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        let call = move || {
            let mut leases = leases.lock().unwrap_or_else(PoisonError::into_inner);
            transact(place.leases(&main, &mut leases)?, change)
        };
        std::thread::Builder::new()
            .name("tidelock-lease".to_owned())
            // Nobody may wait for the answer any more.
            .spawn(move || drop(tell.send(call())))
            .map_err(|error| Error::io("a thread for a lease", error))?;
        let result = told.await.map_err(|error| Error::other("the change of a lease panicked").with_source(error))?;
        result.map_err(|error| self.hinted(error))
    }

    fn hinted(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Corrupt if error.advice().is_none() => error.hint(damaged(&self.path)),
            _ => error,
        }
    }
}
