//! The mark: an empty file beside the catalogue whose name says how far the catalogue has come, so that one that went back is
//! known.
//!
//! A catalogue that is put back from a copy knows less than the world: a store that it holds as begun may have been
//! acknowledged since, an object that it is about to remove may have been stored again. So the number of the last
//! acknowledged store is outside of it too, durably, before the store is acknowledged. `put_back.rs` compares the two.
//!
//! A copy of a data directory holds a mark of its own time. So it is made to be in the way of whoever puts that back:
//!
//! - Its *name* says what it says. A folder that is copied over another one then holds two marks.
//! - The catalogue knows when the file was made. It is renamed from then on, so a mark that was copied has another time,
//!   whatever program copied it.
//!
//! What puts back a whole file system with its metadata (a snapshot of a volume or of a machine) puts back both, and is not
//! noticed.
//!
//! The mark is in a directory of its own, on which who renames it holds a lock (`flock`), for a listing at that moment could
//! miss it under both names. The kernel takes the lock away when a process ends; who cannot have it within half a minute fails.
//! Who only compares takes it only if a listing without it shows anything but the mark that is expected: to wait for the lock
//! while holding that of the database would let every change wait for it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::paths::directory_of;

/// How long a call waits for whoever holds the lock, as SQLite does for its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for taking away a mark that could not be written: whoever waits has waited once by then.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// What a mark says. The order is that of the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The incarnation of the catalogue: another random number each time it is found to have been put back.
    pub(super) incarnation: u64,
    /// The number of the last change that was acknowledged.
    pub(super) version: u64,
    /// No owner of an earlier incarnation has a greater token.
    pub(super) tokens: u64,
    /// When the file was made, in nanoseconds since 1970-01-01 UTC; 0 where the file system does not say.
    pub(super) born: u64,
}

/// The mark of a catalogue. Its functions block for a moment.
#[derive(Debug)]
pub(super) struct Mark {
    dir: PathBuf,
    catalogue: PathBuf,
    patience: Duration,
}

impl Mark {
    /// That of the catalogue in this file.
    pub(super) fn of(catalogue: &Path) -> Self {
        Self { dir: catalogue.with_extension("mark"), catalogue: catalogue.to_owned(), patience: PATIENCE }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// What it says: nothing if it is not there, and several things if others were copied to it.
    ///
    /// # Errors
    /// What the operating system says; `TimedOut` if another holds the lock.
    pub(super) fn read(&self) -> io::Result<Vec<Reached>> {
        match File::open(&self.dir) {
            Ok(dir) => {
                lock(&dir, self.patience, File::try_lock_shared)?;
                self.marks()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The same without the lock. A mark that is renamed meanwhile is missed, or is there under both names; one that is found
    /// with its time was there under that name. So what is as expected is true, and all else is to be read again with the lock.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn glance(&self) -> io::Result<Vec<Reached>> {
        self.marks()
    }

    /// Makes it say this from now on, durably, whatever it has said before. Returns what it says, with its time.
    ///
    /// # Errors
    /// What the operating system refuses; `TimedOut` if another holds the lock.
    pub(super) fn replace(&self, reached: Reached) -> io::Result<Reached> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Ok(()) => {
                self.give(&self.dir);
                File::open(directory_of(&self.dir))?.sync_all()?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let dir = File::open(&self.dir)?;
        lock(&dir, self.patience, File::try_lock)?;
        let old = self.marks()?;
        let path = self.dir.join(name_of(reached));
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        self.give(&path);
        let reached = Reached { born: born(&path), ..reached };
        made.sync_all()?;
        for old in old.into_iter().map(name_of).filter(|old| *old != name_of(reached)) {
            std::fs::remove_file(self.dir.join(old))?;
        }
        dir.sync_all()?;
        Ok(reached)
    }

    /// Notes that this change is about to be acknowledged, durably. Does nothing if the catalogue has another incarnation by
    /// now.
    ///
    /// # Errors
    /// What the operating system refuses; `TimedOut` if another holds the lock. Then nothing may be acknowledged until
    /// [`Self::void`] has done its work.
    pub(super) fn raise(&self, incarnation: u64, version: u64) -> io::Result<()> {
        let dir = match File::open(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            dir => dir?,
        };
        lock(&dir, self.patience, File::try_lock)?;
        match self.marks()?[..] {
            [old] if old.incarnation == incarnation && old.version < version => {
                let new = Reached { version, ..old };
                std::fs::rename(self.dir.join(name_of(old)), self.dir.join(name_of(new)))?;
            }
            // Another has renamed it, and may not have come to this yet.
            [old] if old.incarnation == incarnation => {}
            _ => return Ok(()),
        }
        // Only a rename has to be alone. Syncs of several processes at once are one for the disk.
        dir.unlock()?;
        dir.sync_all()
    }

    /// Takes the mark away, durably: the catalogue, and every copy of it, counts as put back from then on.
    ///
    /// # Errors
    /// What the operating system refuses; `TimedOut` if another holds the lock.
    pub(super) fn void(&self) -> io::Result<()> {
        let dir = File::open(&self.dir)?;
        lock(&dir, LITTLE_PATIENCE.min(self.patience), File::try_lock)?;
        for mark in self.marks()? {
            std::fs::remove_file(self.dir.join(name_of(mark)))?;
        }
        dir.sync_all()
    }

    /// Makes a mark that lies in the lower layer of an overlay a file of the upper one, which has another time. What is
    /// below is shared with others, as with a copy. To rename it would do the same later, under those who are at work.
    pub(super) fn take_from_below(&self) {
        for mark in self.marks().unwrap_or_default() {
            // What cannot be opened for writing cannot be renamed either, or is in no overlay.
            let _ = OpenOptions::new().write(true).open(self.dir.join(name_of(mark)));
        }
    }

    /// Gives what root has made to whom the catalogue belongs, as SQLite does with its own files.
    fn give(&self, path: &Path) {
        if let (Ok(whose), Ok(made)) = (std::fs::metadata(&self.catalogue), std::fs::metadata(path))
            && whose.uid() != made.uid()
            && let Err(error) = chown(path, Some(whose.uid()), Some(whose.gid()))
        {
            tracing::debug!(%error, path = %path.display(), "the mark belongs to another user than the catalogue");
        }
    }

    fn marks(&self) -> io::Result<Vec<Reached>> {
        let mut marks = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(mark) = entry.file_name().to_str().and_then(of_name) {
                marks.push(Reached { born: born(&entry.path()), ..mark });
            }
        }
        Ok(marks)
    }
}

/// Takes a lock, and waits for it as long as that.
fn lock(
    dir: &File,
    patience: Duration,
    try_lock: impl Fn(&File) -> std::result::Result<(), TryLockError>,
) -> io::Result<()> {
    let began = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match try_lock(dir) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() >= patience => return Err(ErrorKind::TimedOut.into()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// When a file was made.
fn born(path: &Path) -> u64 {
    let born = std::fs::metadata(path).and_then(|found| found.created()).ok();
    let since = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0).unsigned_abs())
}

/// When a catalogue's file was made, in seconds since 1970-01-01 UTC; 0 where the file system does not say.
pub(super) fn made_at(catalogue: &Path) -> u64 {
    born(catalogue) / 1_000_000_000
}

fn name_of(Reached { incarnation, version, tokens, .. }: Reached) -> String {
    format!("{incarnation:016x}.{version}.{tokens}")
}

fn of_name(name: &str) -> Option<Reached> {
    let (incarnation, rest) = name.split_once('.')?;
    let (version, tokens) = rest.split_once('.')?;
    let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
    let reached = Reached { incarnation, version: version.parse().ok()?, tokens: tokens.parse().ok()?, born: 0 };
    (name_of(reached) == name).then_some(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Mark) {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::of(&dir.path().join("catalogue.sqlite"));
        (dir, mark)
    }

    #[test]
    fn a_mark_only_grows_within_an_incarnation_and_stays_the_same_file() {
        let (_dir, mark) = fresh();
        assert_eq!(mark.read().unwrap(), []);
        mark.raise(1, 5).unwrap();
        assert_eq!(mark.read().unwrap(), [], "evidence that was lost is not made up");
        let first = mark.replace(Reached { incarnation: 1, version: 3, tokens: 9, born: 0 }).unwrap();
        for (incarnation, version, then) in [(1, 5, 5), (1, 4, 5), (2, 8, 5), (1, 6, 6)] {
            mark.raise(incarnation, version).unwrap();
            assert_eq!(mark.read().unwrap(), [Reached { version: then, ..first }]);
        }
        std::fs::write(mark.path().join("0000000000000001.05.9"), b"").unwrap();
        assert_eq!(mark.read().unwrap().len(), 1, "one number has one text");
        std::fs::write(mark.path().join("0000000000000001.5.9"), b"").unwrap();
        assert_eq!(mark.read().unwrap().len(), 2);
        let second = mark.replace(Reached { incarnation: 2, version: 1, tokens: 0, born: 0 }).unwrap();
        assert_eq!(mark.read().unwrap(), [second]);
    }

    #[test]
    fn who_holds_the_lock_for_ever_is_not_waited_for() {
        let (_dir, mark) = fresh();
        let first = mark.replace(Reached { incarnation: 1, version: 3, tokens: 9, born: 0 }).unwrap();
        let mark = Mark { patience: Duration::from_millis(50), ..mark };
        let held = File::open(mark.path()).unwrap();
        held.lock().unwrap();
        let calls = [mark.read().map(drop), mark.raise(1, 4), mark.replace(Reached::default()).map(drop), mark.void()];
        assert!(calls.iter().all(|call| call.as_ref().unwrap_err().kind() == ErrorKind::TimedOut), "{calls:?}");
        drop(held);
        assert_eq!(mark.read().unwrap(), [first]);
        mark.void().unwrap();
        assert_eq!(mark.read().unwrap(), []);
    }

    #[test]
    fn nobody_misses_it_while_many_raise_it() {
        let (_dir, mark) = fresh();
        let first = mark.replace(Reached::default()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let mark = &mark;
                scope.spawn(move || (0..50).for_each(|round| mark.raise(0, round * 3 + thread).unwrap()));
            }
            (0..200).for_each(|_| assert_eq!(mark.read().unwrap().len(), 1));
        });
        assert_eq!(mark.read().unwrap(), [Reached { version: 149, ..first }]);
    }
}
