//! Which files a connection has open. What is open need not be what its path names any more: a file that was moved away or
//! removed is there for those who have it open, and for nobody else.
//!
//! A connection that finds another file under its path is opened anew. If only some of the files are others, the log beside
//! the file belongs to what was there before: nothing can be saved by going on.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::paths::beside;
use crate::types::{Error, Result};

/// How often others may replace the file while it is opened.
const ATTEMPTS: u32 = 10;

/// What tells that a file is another one: its device and number.
type Identity = (u64, u64);

/// The file of a catalogue, and its log and the index of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenFiles {
    file: Option<Identity>,
    beside: [Option<Identity>; 2],
}

/// What the path names, compared with what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The same.
    Same,
    /// Another file.
    Another,
    /// No file, or one that is empty: somebody is about to write it.
    Nothing,
    /// The same file with others beside it, or another one with the same beside it.
    Torn,
}

impl OpenFiles {
    /// Opens a file, and makes sure which one that is.
    ///
    /// # Errors
    /// What opening it meets; `unavailable` if others replace it all the time.
    pub(super) fn open(path: &Path, open: impl Fn(&Path) -> Result<Connection>) -> Result<(Self, Connection)> {
        for _ in 0..ATTEMPTS {
            let before = identity(path);
            let connection = open(path)?;
            let files = Self::of(path);
            // One that was made just now had none.
            if before.is_none() || before == files.file {
                return Ok((files, connection));
            }
        }
        Err(Error::unavailable(format!("others replace the catalogue {} all the time", path.display()))
            .hint("try again"))
    }

    fn of(path: &Path) -> Self {
        Self { file: identity(path), beside: ["-wal", "-shm"].map(|end| identity(&beside(path, end))) }
    }

    /// What the path names now. What was not there when the file was opened is not missed.
    pub(super) fn find(&self, path: &Path) -> Found {
        let now = Self::of(path);
        let beside = || self.beside.iter().zip(now.beside).filter_map(|(open, now)| open.map(|open| now == Some(open)));
        if now.file == self.file {
            return if beside().all(|same| same) { Found::Same } else { Found::Torn };
        }
        match std::fs::metadata(path) {
            Ok(found) if found.len() > 0 && beside().any(|same| same) => Found::Torn,
            Ok(found) if found.len() > 0 => Found::Another,
            _ => Found::Nothing,
        }
    }
}

impl Found {
    /// What to say of a path that does not name what is open.
    pub(super) fn error(self, path: &Path) -> Error {
        let shown = path.display();
        let (what, hint) = match self {
            Self::Torn => (
                format!("the catalogue {shown} or the files beside it were replaced while this process has them open"),
                "stop all processes that use it, remove its `-wal` and `-shm` files, put it back, and start them again",
            ),
            _ => (
                format!("the catalogue {shown} was removed, moved away or replaced while this process has it open"),
                "put it back; or start this process again, which makes a new one, and run `tidelock import BACKEND`",
            ),
        };
        Error::unavailable(what).hint(hint)
    }
}

/// Lets a connection end without writing what is in a log that belongs to another file by now.
pub(super) fn give_up(connection: &Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!(%error, "a connection to a catalogue whose log was replaced writes it when it ends");
    }
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
