//! What SQLite says, in our words.

use std::path::Path;

use crate::types::{Error, ErrorKind};

/// What to do about a damaged file.
pub(super) fn damaged(path: &Path) -> String {
    format!(
        "move {} away together with its -wal and -shm files and put back a copy that was made with `sqlite3 … .backup`; \
         `sqlite3 … .recover` may save what is readable, and `tidelock import BACKEND` makes a new one from what a backend holds",
        path.display()
    )
}

/// An error of SQLite in our words.
pub(super) fn sql(error: rusqlite::Error) -> Error {
    if let rusqlite::Error::ToSqlConversionFailure(_) = error {
        // Its integers have 63 bits.
        return Error::invalid(format!("too large for the catalogue: {error}")).with_source(error);
    }
    use rusqlite::ErrorCode as Code;
    let kind = match error.sqlite_error_code() {
        Some(Code::DatabaseCorrupt | Code::NotADatabase) => ErrorKind::Corrupt,
        Some(Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied) => ErrorKind::Denied,
        Some(Code::ConstraintViolation) => ErrorKind::Conflict,
        Some(_) => ErrorKind::Unavailable,
        // A value that does not fit its column's meaning.
        None => ErrorKind::Corrupt,
    };
    if let Some(Code::CannotOpen | Code::SystemIoFailure) = error.sqlite_error_code()
        && let Some(lacking) = no_open_files()
    {
        return lacking.with_source(error);
    }
    let text = format!("the catalogue: {error}");
    let made = Error::new(kind, text);
    let hint = match error.sqlite_error_code() {
        Some(Code::DiskFull) => "free some space in the data directory",
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => "try again: another process has locked the catalogue",
        Some(Code::ReadOnly) => "make the catalogue and its directory writable",
        _ => return made.with_source(error),
    };
    made.hint(hint).with_source(error)
}

/// The reason why SQLite could not open a file, which it does not tell, if no file at all can be opened.
fn no_open_files() -> Option<Error> {
    let error = std::fs::File::open("/dev/null").err()?;
    Error::of_system("the catalogue", &error)
}
