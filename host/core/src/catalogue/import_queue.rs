//! The import queue: a list of objects in the order of their times, which may be larger than memory.
//!
//! It is a separate database in SQLite's directory for temporary files, and is deleted when it is closed, however the
//! process ends. It is never synced: an interrupted import lists its backend again.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Row};

use super::sql;
use crate::types::{InventoryEntry, ObjectId, Result, blocking};

/// `found` has the listing, `items` the same in order. The last component of a name orders objects of one second: it
/// has the key, which begins with the time.
const SCHEMA: &str = "
PRAGMA journal_mode = off;
PRAGMA synchronous = off;
CREATE TABLE found (
    object   TEXT NOT NULL PRIMARY KEY,
    tail     TEXT NOT NULL,
    size     INTEGER NOT NULL,
    modified INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE items (
    number   INTEGER PRIMARY KEY,
    object   TEXT NOT NULL,
    size     INTEGER,
    modified INTEGER,
    base     TEXT
) STRICT;
CREATE INDEX deferred ON items (number) WHERE base IS NOT NULL;
";

/// The list. Cheap to clone.
#[derive(Clone)]
pub struct ImportQueue {
    connection: Arc<Mutex<Connection>>,
}

/// One object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportItem {
    /// Its place in the order, from 1.
    pub number: u64,
    /// The backend's name for it.
    pub object: ObjectId,
    /// Its bytes, if it was listed and not named.
    pub size: Option<u64>,
    /// Time of the store (seconds since 1970-01-01 UTC), if the backend reports it.
    pub modified: Option<u64>,
}

impl ImportQueue {
    /// An empty one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn new() -> Result<Self> {
        let connection = blocking(|| {
            // An empty name is a temporary file of SQLite's own: https://sqlite.org/inmemorydb.html
            let connection = Connection::open("").map_err(sql)?;
            connection.execute_batch(SCHEMA).map_err(sql)?;
            Ok(connection)
        });
        Ok(Self { connection: Arc::new(Mutex::new(connection.await?)) })
    }

    /// Adds objects that were listed; one that is there already stays as it is. Gives how many are new.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn add(&self, entries: Vec<InventoryEntry>) -> Result<usize> {
        self.with(move |db| {
            let change = db.transaction().map_err(sql)?;
            let mut new = 0;
            {
                let mut insert = change
                    .prepare_cached(
                        "INSERT OR IGNORE INTO found (object, tail, size, modified) VALUES (?1, ?2, ?3, ?4)",
                    )
                    .map_err(sql)?;
                for entry in &entries {
                    let object = entry.id.as_str();
                    let tail = object.rsplit('/').next().unwrap_or(object);
                    let row = (object, tail, stored(entry.size), entry.modified.map(stored));
                    new += insert.execute(row).map_err(sql)?;
                }
            }
            change.commit().map_err(sql)?;
            Ok(new)
        })
        .await
    }

    /// Sorts the listing: oldest first, objects without a time before all others.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn sort(&self) -> Result<()> {
        self.with(|db| {
            db.execute_batch(
                "INSERT INTO items (object, size, modified)
                     SELECT object, size, modified FROM found ORDER BY modified, tail, object;
                 DROP TABLE found;",
            )
            .map_err(sql)
        })
        .await
    }

    /// Adds named objects in the given order.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn name(&self, objects: Vec<ObjectId>) -> Result<()> {
        self.with(move |db| {
            let mut insert = db.prepare("INSERT INTO items (object) VALUES (?1)").map_err(sql)?;
            objects.iter().try_for_each(|object| insert.execute([object.as_str()]).map(drop)).map_err(sql)
        })
        .await
    }

    /// How many items there are.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn len(&self) -> Result<u64> {
        self.with(|db| db.query_row("SELECT count(*) FROM items", [], |row| row.get(0)).map_err(sql)).await
    }

    /// At most `limit` items after the one of this number, in order.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn page(&self, after: u64, limit: u32) -> Result<Vec<ImportItem>> {
        self.with(move |db| {
            let mut query = db
                .prepare_cached(
                    "SELECT number, object, size, modified FROM items WHERE number > ?1 ORDER BY number LIMIT ?2",
                )
                .map_err(sql)?;
            let mut rows = query.query((after, limit)).map_err(sql)?;
            let mut items = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                items.push(ImportItem {
                    number: row.get(0).map_err(sql)?,
                    object: object(row, 1)?,
                    size: row.get(2).map_err(sql)?,
                    modified: row.get(3).map_err(sql)?,
                });
            }
            Ok(items)
        })
        .await
    }

    /// Notes that the base of an item is known by its backend's name alone.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn defer_bases(&self, debts: Vec<(u64, ObjectId)>) -> Result<()> {
        self.with(move |db| {
            let change = db.transaction().map_err(sql)?;
            for (number, base) in &debts {
                change
                    .prepare_cached("UPDATE items SET base = ?2 WHERE number = ?1")
                    .and_then(|mut update| update.execute((number, base.as_str())))
                    .map_err(sql)?;
            }
            change.commit().map_err(sql)
        })
        .await
    }

    /// At most `limit` of the items for which that was noted, after the one of this number: number, object and base.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn deferred_bases(&self, after: u64, limit: u32) -> Result<Vec<(u64, ObjectId, ObjectId)>> {
        self.with(move |db| {
            let mut query = db
                .prepare_cached(
                    "SELECT number, object, base FROM items
                     WHERE base IS NOT NULL AND number > ?1 ORDER BY number LIMIT ?2",
                )
                .map_err(sql)?;
            let mut rows = query.query((after, limit)).map_err(sql)?;
            let mut deferred = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                deferred.push((row.get(0).map_err(sql)?, object(row, 1)?, object(row, 2)?));
            }
            Ok(deferred)
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        blocking(move || call(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// SQLite's integers have 63 bits; a backend can report any value.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn object(row: &Row<'_>, column: usize) -> Result<ObjectId> {
    ObjectId::new(row.get::<_, String>(column).map_err(sql)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, modified: Option<u64>) -> InventoryEntry {
        InventoryEntry { id: ObjectId::new(id).unwrap(), size: 7, modified }
    }

    #[tokio::test]
    async fn what_was_listed_comes_oldest_first_and_once() {
        let queue = ImportQueue::new().await.unwrap();
        let listed = [("a/9", Some(5)), ("b/1", Some(5)), ("z", None), ("c/3", Some(4)), ("d/0", Some(u64::MAX))];
        let entries: Vec<_> = listed.iter().map(|(id, modified)| entry(id, *modified)).collect();
        assert_eq!(queue.add(entries.clone()).await.unwrap(), 5);
        assert_eq!(queue.add(entries).await.unwrap(), 0);
        queue.sort().await.unwrap();
        assert_eq!(queue.len().await.unwrap(), 5);
        let mut seen = Vec::new();
        loop {
            let page = queue.page(seen.len() as u64, 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.iter().zip(seen.len() as u64 + 1..).all(|(item, number)| item.number == number));
            seen.extend(page.into_iter().map(|item| item.object.as_str().to_owned()));
        }
        assert_eq!(seen, ["z", "c/3", "b/1", "a/9", "d/0"]);
    }

    #[tokio::test]
    async fn named_ones_keep_their_order_and_debts_are_found_again() {
        let queue = ImportQueue::new().await.unwrap();
        let id = |name: &str| ObjectId::new(name).unwrap();
        queue.name(vec![id("b"), id("a"), id("c")]).await.unwrap();
        let page = queue.page(0, 10).await.unwrap();
        assert_eq!(page.iter().map(|item| item.object.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(page.iter().all(|item| item.size.is_none()));
        queue.defer_bases(vec![(3, id("a")), (1, id("x"))]).await.unwrap();
        assert_eq!(queue.deferred_bases(0, 1).await.unwrap(), [(1, id("b"), id("x"))]);
        assert_eq!(queue.deferred_bases(1, 9).await.unwrap(), [(3, id("c"), id("a"))]);
    }
}
