//! Names below the export: looked up part by part from its root, and never through a symbolic link.
//!
//! `..` is never sent, and a symbolic link is an error where a local directory would follow one that stays inside: in
//! NFS the client interprets links, and following none cannot lead out of the export. No handle but
//! the root's is kept between operations, so nothing here can be stale for longer than one.

use std::collections::BTreeSet;

use futures::stream::{StreamExt, TryStreamExt};

use super::calls::{LISTING_HOLDS, Position};
use super::object::{Attributes, Handle, Kind};
use super::session::Session;
use super::status::{Fault, Status};
use tidelock_types::files::{Entry, FileInfo, LIST_LIMIT, Page};
use tidelock_types::path::{TEMPORARY, split};
use tidelock_types::{Error, ErrorKind, Result};

/// How often a name is looked up again when a handle went stale on the way to it, or a listing is begun anew.
pub(super) const TRIES: usize = 4;
/// Entries of a listing that are looked up at once.
const AT_ONCE: usize = 8;
/// The most replies that a directory's listing may take: at 50 names in a small one, 50 million entries.
const MAX_REPLIES: u32 = 1 << 20;
/// The longest name that is shown (Linux's `NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// The most bytes that are held for a page of so many entries: a reply to READDIR, and twice the names and entries.
pub(super) fn listing_holds(limit: u32) -> u64 {
    // A name, its attributes, and what an ordered set keeps beside it.
    const ENTRY: u64 = LONGEST_NAME as u64 + 128;
    LISTING_HOLDS.saturating_add(2 * ENTRY * (u64::from(limit.clamp(1, LIST_LIMIT)) + 2))
}

impl Session {
    /// The directory at a checked path; the empty one is the root.
    pub(super) async fn directory(&self, path: &str) -> Result<Handle> {
        self.looked_up(path, false).await
    }

    /// The same, made with its parents where it is not there.
    pub(super) async fn made_directory(&self, path: &str) -> Result<Handle> {
        self.looked_up(path, true).await
    }

    async fn looked_up(&self, path: &str, make: bool) -> Result<Handle> {
        let mut tries = TRIES;
        loop {
            let mounted = self.found().await?;
            tries -= 1;
            match self.walk(&mounted.root, path, make).await {
                Err(fault) if fault.is_stale() && tries > 0 => self.see_to_root().await?,
                result => return result.map_err(|fault| fault.of(format!("`{path}`"))),
            }
        }
    }

    /// After a handle went stale: if it is the root's own that did, the export is mounted anew.
    async fn see_to_root(&self) -> Result<()> {
        let mounted = self.found().await?;
        if self.attributes(&mounted.root).await.is_err_and(|fault| fault.is_stale()) {
            self.forget(&mounted).await;
        }
        Ok(())
    }

    async fn walk(&self, root: &Handle, path: &str, make: bool) -> Result<Handle, Fault> {
        let mut directory = root.clone();
        let mut walked = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            walked += part.len() + usize::from(walked > 0);
            let found = match self.lookup(&directory, part).await {
                Err(fault) if make && fault.is(Status::NOENT) => match self.make_directory(&directory, part).await {
                    Ok(made) => Ok((made, Kind::Directory)),
                    Err(fault) if fault.is(Status::EXIST) => {
                        self.lookup(&directory, part).await.map(|(handle, found)| (handle, found.kind))
                    }
                    Err(fault) => Err(fault),
                },
                other => other.map(|(handle, found)| (handle, found.kind)),
            };
            let (handle, kind) = found?;
            match kind {
                Kind::Directory => directory = handle,
                Kind::Link => return Err(no_links(&path[..walked]).into()),
                _ => return Err(Error::invalid(format!("`{}` is not a directory", &path[..walked])).into()),
            }
        }
        Ok(directory)
    }

    /// Returns the entry at a checked path, without following links, if there is one.
    pub(super) async fn named(&self, path: &str) -> Result<Option<(Handle, Attributes)>> {
        let (parent, name) = split(path);
        for _ in 0..TRIES {
            let directory = match self.directory(parent).await {
                Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            match self.lookup(&directory, name).await {
                Ok(found) => return Ok(Some(found)),
                Err(fault) if fault.is(Status::NOENT) => return Ok(None),
                Err(fault) if fault.is_stale() => self.see_to_root().await?,
                Err(fault) => return Err(fault.of(format!("`{path}`"))),
            }
        }
        Err(Status::STALE.error(format!("`{path}`")))
    }

    /// The file at a checked path.
    pub(super) async fn file(&self, path: &str) -> Result<(Handle, Attributes)> {
        let found = self.named(path).await?.ok_or_else(|| Status::NOENT.error(format!("`{path}`")))?;
        match found.1.kind {
            Kind::File => Ok(found),
            Kind::Directory => Err(Error::invalid(format!("`{path}` is a directory"))),
            Kind::Link => Err(no_links(path)),
            Kind::Other => Err(Error::invalid(format!("`{path}` is neither a file nor a directory"))),
        }
    }

    /// Removes the name of a checked path, if it is not a directory's. One that is not there is success.
    pub(super) async fn unlink(&self, path: &str) -> Result<()> {
        match self.named(path).await? {
            None => return Ok(()),
            Some((_, found)) if found.kind == Kind::Directory => {
                return Err(Error::invalid(format!("`{path}` is a directory")));
            }
            Some(_) => {}
        }
        let (parent, name) = split(path);
        let directory = self.directory(parent).await?;
        match self.remove(&directory, name).await {
            Err(fault) if fault.is(Status::NOENT) => Ok(()),
            other => other.map_err(|fault| fault.of(format!("removing `{path}`"))),
        }
    }

    /// Keeps no more than a page in memory, however many entries there are: the least names beyond the cursor.
    pub(super) async fn list(&self, path: &str, cursor: Option<&str>, limit: u32) -> Result<Page> {
        let limit = limit.clamp(1, LIST_LIMIT) as usize;
        let mut tries = TRIES;
        let (directory, least) = loop {
            let directory = self.directory(path).await?;
            // A listing that is begun anew gives names twice.
            let mut least = BTreeSet::new();
            let listing = self.each_name(&directory, |name| {
                if name.starts_with(TEMPORARY) || cursor.is_some_and(|cursor| name <= cursor) {
                    return;
                }
                least.insert(name.to_owned());
                if least.len() > limit + 1 {
                    least.pop_last();
                }
            });
            tries -= 1;
            match listing.await {
                Ok(()) => break (directory, least),
                Err(fault) if fault.is_stale() && tries > 0 => self.see_to_root().await?,
                Err(fault) => return Err(fault.of(format!("listing `{path}`"))),
            }
        };
        let mut names: Vec<String> = least.into_iter().collect();
        let more = names.len() > limit;
        names.truncate(limit);
        let next = if more { names.last().cloned() } else { None };
        let entries = futures::stream::iter(names).map(|name| self.entry(&directory, name)).buffered(AT_ONCE);
        let entries: Vec<Option<Entry>> = entries.try_collect().await?;
        Ok(Page { entries: entries.into_iter().flatten().collect(), next })
    }

    /// Every name of a directory that is UTF-8 and could be a path's part, in the server's order.
    pub(super) async fn each_name(&self, directory: &Handle, mut take: impl FnMut(&str) + Send) -> Result<(), Fault> {
        let mut tries = TRIES;
        let mut after = Position::default();
        let mut course = Course::default();
        loop {
            match self.names(directory, after).await {
                Ok(found) => {
                    found
                        .names
                        .iter()
                        .filter_map(|name| std::str::from_utf8(name).ok())
                        .filter(|name| is_name(name))
                        .for_each(&mut take);
                    if found.end {
                        return Ok(());
                    }
                    // The names and the record that they are slices of are not kept for the next call.
                    course.goes_on_at(found.at.cookie)?;
                    after = found.at;
                }
                // The directory changed so that the server cannot go on.
                Err(fault) if fault.is(Status::BAD_COOKIE) && tries > 1 => {
                    tries -= 1;
                    after = Position::default();
                    course.again();
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn entry(&self, directory: &Handle, name: String) -> Result<Option<Entry>> {
        let found = match self.lookup(directory, &name).await {
            Ok((_, found)) => found,
            // Gone meanwhile.
            Err(fault) if fault.is(Status::NOENT) || fault.is_stale() || fault.is(Status::ACCES) => return Ok(None),
            Err(fault) => return Err(fault.of(format!("`{name}`"))),
        };
        let is_directory = found.kind == Kind::Directory;
        Ok((is_directory || found.kind == Kind::File).then(|| Entry {
            name,
            is_directory,
            size: if is_directory { 0 } else { found.size },
            modified: Some(u64::from(found.modified)),
        }))
    }
}

/// Returns the metadata of a file in the capability's type.
pub(super) fn info(found: &Attributes) -> FileInfo {
    FileInfo { size: found.size, modified: Some(u64::from(found.modified)) }
}

fn no_links(path: &str) -> Error {
    Error::denied(format!("`{path}` is a symbolic link, and links are not followed on an NFS export"))
}

/// Entries of a listing are untrusted: invalid names are skipped.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.contains(['/', '\0'])
}

/// The progress of a listing. A server continues at a cookie, and a cyclic or endless listing would
/// be followed for ever.
#[derive(Debug, Default)]
struct Course {
    replies: u32,
    /// An earlier cookie: the last one whose number is a power of two. A circle of any length comes by it (Brent's
    /// algorithm), and nothing but this is kept.
    mark: u64,
}

impl Course {
    fn goes_on_at(&mut self, cookie: u64) -> Result<()> {
        self.replies += 1;
        // The first cursor is the cookie 0, the start of the directory.
        if cookie == self.mark || self.replies > MAX_REPLIES {
            return Err(Error::unavailable("the NFS server's listing of a directory is endless")
                .hint("check the server's file system"));
        }
        if self.replies.is_power_of_two() {
            self.mark = cookie;
        }
        Ok(())
    }

    /// Begins anew, without forgetting how long it took so far.
    fn again(&mut self) {
        self.mark = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many cookies are followed.
    fn followed(cookies: impl Iterator<Item = u64>) -> usize {
        let mut course = Course::default();
        cookies.take_while(|cookie| course.goes_on_at(*cookie).is_ok()).count()
    }

    #[test]
    fn no_listing_is_followed_for_ever() {
        assert_eq!(followed(1..=1_000_000), 1_000_000);
        assert_eq!(followed(std::iter::repeat(0)), 0);
        assert_eq!(followed(std::iter::repeat(7)), 1);
        for (before, circle) in [(0, 2), (1, 3), (5, 1), (1000, 77), (3, 1000)] {
            let cookies = (1..=before).chain((before + 1..=before + circle).cycle());
            assert!(followed(cookies) <= 3 * (before + circle) as usize, "{before} and then {circle}");
        }
        assert_eq!(followed(1..), MAX_REPLIES as usize);
    }
}
