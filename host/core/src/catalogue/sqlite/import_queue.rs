//! The list of an import.
//!
//! It lies in a database of its own that SQLite keeps in its folder for temporary files and that is gone when it is closed.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use rusqlite::{Connection, Row};

use super::sql;
use crate::catalogue::{ImportItem, ImportQueue};
use crate::types::{InventoryEntry, ObjectId, Result, blocking};

/// `found` is what came, `items` the same in order. The last part of a name decides among objects of one second, since
/// that is where hosts put their keys, which begin with the time.
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

/// The list.
pub(super) struct SqliteImportQueue {
    connection: Arc<Mutex<Connection>>,
}

impl SqliteImportQueue {
    pub(super) async fn new() -> Result<Self> {
        let connection = blocking(|| {
            // An empty name is a temporary file of SQLite's own: https://sqlite.org/inmemorydb.html
            let connection = Connection::open("").map_err(sql)?;
            connection.execute_batch(SCHEMA).map_err(sql)?;
            Ok(connection)
        });
        Ok(Self { connection: Arc::new(Mutex::new(connection.await?)) })
    }

    async fn add(&self, entries: Vec<InventoryEntry>) -> Result<usize> {
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

    async fn sort(&self) -> Result<()> {
        self.with(|db| {
            db.execute_batch(
                "INSERT INTO items (object, size, modified)
                     SELECT object, size, modified FROM found ORDER BY modified, tail, object",
            )
            .map_err(sql)
        })
        .await
    }

    async fn lacks(&self, objects: Vec<ObjectId>) -> Result<Vec<ObjectId>> {
        self.with(move |db| {
            let mut query = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM found WHERE object = ?1)").map_err(sql)?;
            let mut lacking = Vec::new();
            for object in objects {
                let listed: bool = query.query_row([object.as_str()], |row| row.get(0)).map_err(sql)?;
                if !listed {
                    lacking.push(object);
                }
            }
            Ok(lacking)
        })
        .await
    }

    async fn name(&self, objects: Vec<ObjectId>) -> Result<()> {
        self.with(move |db| {
            let mut insert = db.prepare("INSERT INTO items (object) VALUES (?1)").map_err(sql)?;
            objects.iter().try_for_each(|object| insert.execute([object.as_str()]).map(drop)).map_err(sql)
        })
        .await
    }

    async fn count(&self) -> Result<u64> {
        self.with(|db| db.query_row("SELECT count(*) FROM items", [], |row| row.get(0)).map_err(sql)).await
    }

    async fn page(&self, after: u64, limit: u32) -> Result<Vec<ImportItem>> {
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

    async fn defer_bases(&self, bases: Vec<(u64, ObjectId)>) -> Result<()> {
        self.with(move |db| {
            let change = db.transaction().map_err(sql)?;
            for (number, base) in &bases {
                change
                    .prepare_cached("UPDATE items SET base = ?2 WHERE number = ?1")
                    .and_then(|mut update| update.execute((number, base.as_str())))
                    .map_err(sql)?;
            }
            change.commit().map_err(sql)
        })
        .await
    }

    async fn deferred_bases(&self, after: u64, limit: u32) -> Result<Vec<(u64, ObjectId, ObjectId)>> {
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

/// Each operation is the method of the same name above.
impl ImportQueue for SqliteImportQueue {
    fn add(&self, entries: Vec<InventoryEntry>) -> BoxFuture<'_, Result<usize>> {
        Box::pin(Self::add(self, entries))
    }

    fn sort(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::sort(self))
    }

    fn lacks(&self, objects: Vec<ObjectId>) -> BoxFuture<'_, Result<Vec<ObjectId>>> {
        Box::pin(Self::lacks(self, objects))
    }

    fn name(&self, objects: Vec<ObjectId>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::name(self, objects))
    }

    fn count(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(Self::count(self))
    }

    fn page(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<ImportItem>>> {
        Box::pin(Self::page(self, after, limit))
    }

    fn defer_bases(&self, bases: Vec<(u64, ObjectId)>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::defer_bases(self, bases))
    }

    fn deferred_bases(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<(u64, ObjectId, ObjectId)>>> {
        Box::pin(Self::deferred_bases(self, after, limit))
    }
}

/// SQLite's integers have 63 bits; a backend may say anything.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn object(row: &Row<'_>, column: usize) -> Result<ObjectId> {
    ObjectId::new(row.get::<_, String>(column).map_err(sql)?)
}
