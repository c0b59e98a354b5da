//! Listing the objects, page by page, with nothing remembered between pages but the cursor.
//!
//! The directories of the fan-out are visited in order of their names. A cursor is `ab/cd` (go on with that directory)
//! or `ab/cd/REST` (go on in the middle of it), where `REST` is the host's own cursor; in the flat layout it is `/REST`.
//! Objects that are stored or removed during a listing may be included or not; all others are included once.
//!
//! A page costs the host at most about [`MAX_LISTINGS`] listings, so that a tree of empty directories, which is what
//! many removals leave, cannot hold one call for long: it gives short pages instead.

use tidelock_sdk::directory::{Entry, Page};
use tidelock_sdk::{Error, InventoryEntry, InventoryPage};

use crate::layout::{Layout, Settings, below, is_fan, is_object};

/// How many listings a page may cost before it is returned as it is.
pub const MAX_LISTINGS: u32 = 1024;

/// How many entries are asked for when directories are looked for.
const DIRECTORIES: u32 = 512;

/// A source of directory listings: the host, or a test.
#[allow(async_fn_in_trait, reason = "a guest has one thread")]
pub trait Lister {
    /// Entries in order of their names, from `cursor` on.
    async fn list(&self, path: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error>;
}

/// At most `limit` (not 0) of the objects below the settings' prefix.
pub async fn walk(
    lister: &impl Lister,
    settings: &Settings,
    cursor: Option<String>,
    limit: u32,
) -> Result<InventoryPage, Error> {
    let mut walk = Walk { lister, prefix: &settings.prefix, limit: limit as usize, listings: 0, entries: Vec::new() };
    let next = match settings.layout {
        Layout::Flat => walk.flat(cursor).await?,
        Layout::FanOut => walk.fan_out(cursor).await?,
    };
    Ok(InventoryPage { entries: walk.entries, next })
}

struct Walk<'a, L> {
    lister: &'a L,
    prefix: &'a str,
    limit: usize,
    listings: u32,
    entries: Vec<InventoryEntry>,
}

impl<L: Lister> Walk<'_, L> {
    async fn flat(&mut self, cursor: Option<String>) -> Result<Option<String>, Error> {
        let rest = match &cursor {
            None => None,
            Some(cursor) => Some(cursor.strip_prefix('/').ok_or_else(malformed)?.to_owned()),
        };
        let stopped = self.objects("", rest).await?;
        Ok(stopped.map(|rest| ["/", rest.as_deref().unwrap_or("")].concat()))
    }

    async fn fan_out(&mut self, cursor: Option<String>) -> Result<Option<String>, Error> {
        let (start, mut rest) = match &cursor {
            None => ("00/00".to_owned(), None),
            Some(cursor) => parse(cursor)?,
        };
        for outer in self.directories("").await? {
            if outer.as_str() < &start[..2] {
                continue;
            }
            for inner in self.directories(&outer).await? {
                let leaf = [outer.as_str(), "/", &inner].concat();
                if leaf < start {
                    continue;
                }
                let rest = if leaf == start { rest.take() } else { None };
                if let Some(rest) = self.objects(&leaf, rest).await? {
                    return Ok(Some(match rest {
                        Some(rest) => [&leaf, "/", rest.as_str()].concat(),
                        None => leaf,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Takes the objects of one directory. `Some(rest)` if it had to stop before the end, `None` if it is through.
    async fn objects(&mut self, path: &str, mut rest: Option<String>) -> Result<Option<Option<String>>, Error> {
        let path = below(self.prefix, path);
        loop {
            let room = self.limit.saturating_sub(self.entries.len());
            if room == 0 || self.listings >= MAX_LISTINGS {
                return Ok(Some(rest));
            }
            let page = self.list(&path, rest, room as u32).await?;
            let objects = page.entries.into_iter().filter(|entry| !entry.is_directory && is_object(&entry.name));
            self.entries.extend(objects.map(|entry| object(&path, entry)));
            match page.next {
                Some(next) => rest = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// The fan-out directories in one directory, in order. There are at most 256.
    async fn directories(&mut self, path: &str) -> Result<Vec<String>, Error> {
        let path = below(self.prefix, path);
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.list(&path, cursor, DIRECTORIES).await?;
            found.extend(page.entries.into_iter().filter(|e| e.is_directory && is_fan(&e.name)).map(|e| e.name));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    /// One listing. A directory that is not there (yet, or any more) is an empty one.
    async fn list(&mut self, path: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        self.listings += 1;
        match self.lister.list(path, cursor, limit).await {
            Err(error) if error.is_not_found() => Ok(Page { entries: Vec::new(), next: None }),
            result => result,
        }
    }
}

fn object(directory: &str, entry: Entry) -> InventoryEntry {
    InventoryEntry { id: below(directory, &entry.name), size: entry.size, modified: entry.modified }
}

/// A cursor of the fan-out: the directory, and where to go on in it.
fn parse(cursor: &str) -> Result<(String, Option<String>), Error> {
    let mut parts = cursor.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(outer), Some(inner), rest) if is_fan(outer) && is_fan(inner) => {
            Ok(([outer, "/", inner].concat(), rest.map(Into::into)))
        }
        _ => Err(malformed()),
    }
}

fn malformed() -> Error {
    Error::invalid("the cursor is not one of this adapter with these settings")
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
