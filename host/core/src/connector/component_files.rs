//! The components that a history needs, as files of `data_dir/adapters`, named after their content.
//!
//! A component is `<sha256>.wasm`, with its signatures in `<sha256>.wasm.sig`. It is written under another name, made
//! durable and renamed into place *before* the row that needs it is added to the catalogue, so a crash leaves a file
//! that no row needs and never a row without its file. Several processes may share the folder, and no lock spans files
//! and catalogue.
//!
//! **Adding.** [`keep`](ComponentFiles::keep) the files, which makes them young → add the row → keep them again if they are
//! gone ([`is_kept`](ComponentFiles::is_kept)).
//!
//! **Sweeping.** Look which files the rows need → rename the others out of the way, those alone that are older than an hour
//! ([`set_aside`](ComponentFiles::set_aside)) → look at the rows again → put back what is needed by now and remove the rest
//! ([`settle`](ComponentFiles::settle)).
//!
//! Say that a sweep removes the files of a row that is being added. The sweep's second look has not seen the row, so it came
//! before the row was added, and so did the renaming. The adder's last look comes after, finds the files gone, and writes
//! them again. Each side may stand still between any two steps for as long as it likes. The name that a file is renamed
//! to is used once, so a sweep removes nothing but what it had set aside itself, or found set aside before its own
//! second look. What a sweep leaves aside when it is killed is put back by the first that reads it, and settled by the
//! next sweep.
//!
//! The age covers an adder that is killed between its row and its last look: for the row to be without its files, it would
//! also have to have stood still for an hour before.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::runtime::{Component, signatures_beside};
use crate::types::{Error, ErrorKind, Platform, Result, blocking, durable};

/// Files that are younger are never swept.
const YOUNG: Duration = Duration::from_secs(3600);
/// How a file's name ends that a sweep has set aside: `<name>.<16 random digits>.unneeded`.
const ASIDE: &str = ".unneeded";

/// The folder. Its functions block for a moment, but for [`Self::read`].
#[derive(Clone)]
pub(super) struct ComponentFiles {
    dir: PathBuf,
    platform: Platform,
}

/// A file that was set aside.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    /// The name that it had.
    name: String,
}

impl ComponentFiles {
    /// The folder at a path. It is made when the first file is kept.
    pub(super) fn new(dir: PathBuf, platform: Platform) -> Self {
        Self { dir, platform }
    }

    /// The names of the files of a component.
    ///
    /// # Errors
    /// `corrupt` for a text that is not a digest.
    pub(super) fn names(&self, digest: &str) -> Result<[String; 2]> {
        let name = name_of(digest)?;
        Ok([format!("{name}.sig"), name])
    }

    /// Makes a component and its signatures durable under their names; what is there already becomes young, and what was
    /// damaged is replaced. Returns whether anything was written.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn keep(&self, component: &Component) -> Result<bool> {
        let file = self.dir.join(name_of(&component.digest().to_string())?);
        let mut written = false;
        // The signatures first: they have to be there when the component is.
        if !component.signatures.is_empty() {
            let text: String = component.signatures.iter().map(|signature| format!("{signature}\n")).collect();
            written |= self.write(&signatures_beside(&file), text.as_bytes())?;
        }
        written |= self.write(&file, &component.bytes)?;
        if written {
            self.sync()?;
        }
        Ok(written)
    }

    /// Returns whether the files of a component are there.
    pub(super) fn is_kept(&self, component: &Component) -> bool {
        let Ok(name) = name_of(&component.digest().to_string()) else { return false };
        let file = self.dir.join(name);
        file.exists() && (component.signatures.is_empty() || signatures_beside(&file).exists())
    }

    /// Makes the files of a component young, where they are there: a row is about to need them again.
    ///
    /// # Errors
    /// `corrupt` for a text that is not a digest.
    pub(super) fn touch(&self, digest: &str) -> Result<()> {
        for name in self.names(digest)? {
            let _ = rejuvenate(&self.dir.join(name));
        }
        Ok(())
    }

    /// Reads a component.
    ///
    /// # Errors
    /// `not-found` if it is gone; what the operating system refuses.
    pub(super) async fn read(&self, digest: &str) -> Result<Component> {
        let file = self.dir.join(name_of(digest)?);
        match Component::read(&file).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                let (files, digest) = (self.clone(), digest.to_owned());
                blocking(move || files.put_back(&digest)).await?;
                Component::read(&file).await
            }
            read => read,
        }
    }

    /// Sets the files aside that are old and not among those needed, and returns them with those that other sweeps have set
    /// aside. What was being written an hour ago is removed.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn set_aside(&self, needed: &BTreeSet<String>) -> Result<Vec<Aside>> {
        let mut aside = Vec::new();
        for name in self.list()? {
            let path = self.dir.join(&name);
            if name.starts_with(".tmp") && is_old(&path) {
                gone(std::fs::remove_file(&path)).map_err(|error| Error::io(path.display(), error))?;
            } else if let Some(before) = name_before(&name) {
                aside.push(Aside { name: before.to_owned(), path });
            } else if (name.ends_with(".wasm") || name.ends_with(".wasm.sig"))
                && !needed.contains(&name)
                && is_old(&path)
            {
                let mut random = [0; 8];
                self.platform.fill(&mut random)?;
                let to = self.dir.join(format!("{name}.{}{ASIDE}", data_encoding::HEXLOWER.encode(&random)));
                match std::fs::rename(&path, &to) {
                    Ok(()) => aside.push(Aside { path: to, name }),
                    Err(error) if error.kind() == Io::NotFound => {}
                    Err(error) => return Err(Error::io(path.display(), error)),
                }
            }
        }
        Ok(aside)
    }

    /// Puts back what is needed, or has become young meanwhile, and removes the rest. Returns how much was removed.
    ///
    /// `needed` has to follow from a look at all rows that began after `set_aside` returned.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn settle(&self, aside: Vec<Aside>, needed: &BTreeSet<String>) -> Result<usize> {
        let mut removed = 0;
        // Signatures before components.
        for Aside { path, name } in aside.into_iter().rev() {
            let back = needed.contains(&name) || !is_old(&path);
            if back {
                self.link(&path, &name)?;
                // Before the other name goes: a crash must not leave none.
                self.sync()?;
            }
            gone(std::fs::remove_file(&path)).map_err(|error| Error::io(path.display(), error))?;
            removed += usize::from(!back);
        }
        Ok(removed)
    }

    /// Renames a component that a sweep has set aside to its name again. The sweep, or the next one, removes the other name.
    fn put_back(&self, digest: &str) -> Result<()> {
        let names = self.names(digest)?;
        let list = self.list()?;
        for name in &names {
            for aside in list.iter().filter(|aside| name_before(aside) == Some(name)) {
                self.link(&self.dir.join(aside), name)?;
            }
        }
        Ok(())
    }

    /// Links a file under its name again, unless there is one of that name, or it is gone.
    fn link(&self, path: &Path, name: &str) -> Result<()> {
        match std::fs::hard_link(path, self.dir.join(name)) {
            Err(error) if !matches!(error.kind(), Io::AlreadyExists | Io::NotFound) => {
                Err(Error::io(format!("putting {name} back"), error))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file durably and puts it in place, unless it is there with the same bytes.
    fn write(&self, target: &Path, bytes: &[u8]) -> Result<bool> {
        if rejuvenate(target).is_ok() && std::fs::read(target).ok().as_deref() == Some(bytes) {
            return Ok(false);
        }
        let write = || -> std::io::Result<()> {
            durable::make_dir(&self.dir)?;
            let mut temporary = NamedTempFile::new_in(&self.dir)?;
            temporary.write_all(bytes)?;
            temporary.as_file().sync_all()?;
            temporary.persist(target).map(drop).map_err(|error| error.error)
        };
        write().map_err(|error| Error::io(format!("keeping {}", target.display()), error))?;
        Ok(true)
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| Error::io(format!("making {} durable", self.dir.display()), error))
    }

    /// The names in the folder, in order: a component before its signatures.
    fn list(&self) -> Result<BTreeSet<String>> {
        let fail = |error| Error::io(self.dir.display(), error);
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == Io::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(fail)?,
        };
        let names = entries.map(|entry| Ok(entry.map_err(fail)?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }
}

/// The digest is a file name once it is known to be one.
fn name_of(digest: &str) -> Result<String> {
    let hex =
        digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| Error::corrupt(format!("the swap log has an invalid digest `{digest}`")))?;
    Ok(format!("{hex}.wasm"))
}

/// The name that a file had before it was set aside, if it was.
fn name_before(name: &str) -> Option<&str> {
    Some(name.strip_suffix(ASIDE)?.rsplit_once('.')?.0)
}

/// By the clock of the file system, from which files have their times.
fn is_old(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > YOUNG)
}

fn rejuvenate(path: &Path) -> std::io::Result<()> {
    File::options().append(true).open(path)?.set_modified(SystemTime::now())
}

/// Another sweep may have been faster.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    removed.or_else(|error| if error.kind() == Io::NotFound { Ok(()) } else { Err(error) })
}
