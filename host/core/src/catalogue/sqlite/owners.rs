//! Leases of owners.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction};

use super::{ExpiredOwner, Intent, OwnerToken, SqliteCatalogue, sql};
use crate::types::{Error, Result};

impl SqliteCatalogue {
    pub(super) async fn acquire_owner(&self, name: &str, lease: Duration) -> Result<OwnerToken> {
        let (name, now, expires) = (name.to_owned(), self.platform.unix_seconds(), self.expiry(lease));
        self.change_leases(move |db| {
            // With it goes what others have left that ended without a word, so that nothing piles up. Not where an intent
            // needs it: whether its owner has ended is for whoever clears that intent away.
            db.execute(
                "DELETE FROM owners WHERE name = ?1
                 OR (expires <= ?2 AND token NOT IN (SELECT token FROM intents WHERE token IS NOT NULL))",
                (&name, now),
            )
            .map_err(sql)?;
            db.query_row(
                "INSERT INTO owners (name, expires) VALUES (?1, ?2) RETURNING token",
                (&name, expires),
                |row| row.get(0),
            )
            .map(OwnerToken)
            .map_err(sql)
        })
        .await
    }

    pub(super) async fn renew_owner(&self, token: OwnerToken, lease: Duration) -> Result<()> {
        let expires = self.expiry(lease);
        let renewed = self.change_leases(move |db| {
            db.execute("UPDATE owners SET expires = ?2 WHERE token = ?1", (token.0, expires)).map_err(sql)
        });
        match renewed.await? {
            0 => Err(lost(token)),
            _ => Ok(()),
        }
    }

    pub(super) async fn release_owner(&self, token: OwnerToken) -> Result<()> {
        self.change_leases(move |db| {
            db.execute("DELETE FROM owners WHERE token = ?1", [token.0]).map(drop).map_err(sql)
        })
        .await
    }

    pub(super) async fn end_owners(&self, names: Vec<String>) -> Result<()> {
        // On the connection whose changes are synced: its caller goes on to remove the other signs of these owners.
        self.change(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM owners WHERE name = ?1").map_err(sql)?;
            names.iter().try_for_each(|name| delete.execute([name]).map(drop)).map_err(sql)
        })
        .await
    }

    pub(super) async fn expired_owners(&self) -> Result<Vec<ExpiredOwner>> {
        let now = self.platform.unix_seconds();
        self.with(move |db| {
            let mut query = db
                .prepare_cached("SELECT token, name, expires FROM owners WHERE expires <= ?1 ORDER BY token")
                .map_err(sql)?;
            let owners = query.query_map([now], |row| {
                Ok(ExpiredOwner { token: OwnerToken(row.get(0)?), name: row.get(1)?, expires: row.get(2)? })
            });
            owners.and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    pub(super) async fn abandon_intents(&self, keys: Vec<String>) -> Result<()> {
        // No owner has the token 0.
        self.change_leases(move |db| {
            let mut update = db.prepare_cached("UPDATE intents SET token = 0 WHERE key = ?1").map_err(sql)?;
            keys.iter().try_for_each(|key| update.execute([key]).map(drop)).map_err(sql)
        })
        .await
    }

    pub(super) async fn stale_intents(&self, expired: Vec<ExpiredOwner>) -> Result<Vec<Intent>> {
        self.change(move |db| {
            let mut end = db.prepare_cached("DELETE FROM owners WHERE token = ?1 AND expires = ?2").map_err(sql)?;
            for owner in &expired {
                end.execute((owner.token.0, owner.expires)).map_err(sql)?;
            }
            let mut query = db
                .prepare_cached(
                    "SELECT key, backend, owner, token, started FROM intents
                     WHERE token IS NULL OR token NOT IN (SELECT token FROM owners) ORDER BY started, key",
                )
                .map_err(sql)?;
            let intents = query.query_map([], |row| {
                Ok(Intent {
                    key: row.get(0)?,
                    backend: row.get(1)?,
                    owner: row.get(2)?,
                    token: row.get::<_, Option<u64>>(3)?.map(OwnerToken),
                    started: row.get(4)?,
                })
            });
            intents.and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    /// When a lease that is taken now expires, in seconds since 1970-01-01 UTC.
    fn expiry(&self, lease: Duration) -> u64 {
        // Rounded up, and within what SQLite holds.
        let seconds = lease.as_secs().saturating_add(u64::from(lease.subsec_nanos() > 0));
        self.platform.unix_seconds().saturating_add(seconds).min(i64::MAX as u64)
    }
}

/// Makes sure that an intent is there and that its owner's lease was not ended: only then may its store be recorded.
pub(super) fn check_intent(db: &Transaction<'_>, key: &str) -> Result<()> {
    let fenced: Option<Option<u64>> = db
        .prepare_cached(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM owners WHERE owners.token = intents.token) THEN NULL ELSE token END
             FROM intents WHERE key = ?1",
        )
        .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
        .map_err(sql)?;
    match fenced {
        Some(None) => Ok(()),
        Some(Some(token)) => Err(lost(OwnerToken(token))),
        None => Err(Error::conflict(format!("the store under the key `{key}` was cleared away before it ended"))
            .hint("this process stood still for too long; store the image again")),
    }
}

/// The error of an owner whose lease was ended.
pub(super) fn lost(token: OwnerToken) -> Error {
    Error::conflict(format!(
        "the lease of this host (number {token}) was ended: it was not renewed in time, so what the host had under way \
         counts as cut short"
    ))
    .hint("this process stood still for too long; store the image again")
}
