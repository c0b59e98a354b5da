//! Error statuses of NFSv3 (`nfsstat3`, RFC 1813), and their kinds of errors.

use tidelock_types::Error;

/// A status other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) u32);

impl Status {
    pub(super) const NOENT: Self = Self(2);
    pub(super) const ACCES: Self = Self(13);
    pub(super) const EXIST: Self = Self(17);
    pub(super) const STALE: Self = Self(70);
    pub(super) const BADHANDLE: Self = Self(10001);
    pub(super) const BAD_COOKIE: Self = Self(10003);
    pub(super) const NOTSUPP: Self = Self(10004);
    pub(super) const JUKEBOX: Self = Self(10008);

    /// Returns whether a handle is no longer valid, so that another lookup may help.
    pub(super) fn is_stale(self) -> bool {
        self == Self::STALE || self == Self::BADHANDLE
    }

    fn words(self) -> &'static str {
        match self.0 {
            1 => "not the owner",
            2 => "no such file or directory",
            5 => "input/output error on the server",
            6 | 19 => "no such device on the server",
            13 => "permission denied",
            17 => "already exists",
            18 => "it is on another file system of the server",
            20 => "not a directory",
            21 => "is a directory",
            22 => "invalid argument on the server",
            27 => "the file is too large for the server",
            28 => "no space left on the server",
            30 => "the export is read-only",
            31 => "too many hard links",
            63 => "the name is too long for the server",
            66 => "the directory is not empty",
            69 => "the quota on the server is exceeded",
            70 | 10001 => "it was removed or replaced on the server",
            10003 => "the directory changes too fast to list",
            10004 => "the server does not support that",
            10006 => "internal error on the server",
            10008 => "the server is busy fetching the file",
            _ => "unknown NFS status",
        }
    }

    /// Returns the error of this status; `what` names the file or the operation.
    pub(super) fn error(self, what: impl std::fmt::Display) -> Error {
        let text = format!("{what}: {} (NFS status {})", self.words(), self.0);
        match self.0 {
            2 => Error::not_found(text),
            1 | 13 => Error::denied(text)
                .hint("check the permissions of the export for this user (`?uid=…&gid=…` in the URL) and this machine"),
            30 => Error::denied(text).hint("export it read-write"),
            17 => Error::conflict(text),
            18 | 20 | 21 | 22 | 63 | 66 => Error::invalid(text),
            10004 => Error::unsupported(text),
            27 | 28 | 69 => Error::unavailable(text).hint("free some space, or configure another location"),
            70 | 10001 => Error::unavailable(text).hint("try again"),
            _ => Error::unavailable(text),
        }
    }
}

/// The reason why an operation failed: a status of the server, or no reply.
#[derive(Debug)]
pub(super) enum Fault {
    Status(Status),
    Failed(Error),
}

impl Fault {
    /// Returns the error; `what` as for [`Status::error`].
    pub(super) fn of(self, what: impl std::fmt::Display) -> Error {
        match self {
            Self::Status(status) => status.error(what),
            Self::Failed(error) => error,
        }
    }

    pub(super) fn is(&self, status: Status) -> bool {
        matches!(self, Self::Status(said) if *said == status)
    }

    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Status(said) if said.is_stale())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn every_status_has_its_kind_and_its_words() {
        let kinds = [
            (2, ErrorKind::NotFound),
            (1, ErrorKind::Denied),
            (13, ErrorKind::Denied),
            (30, ErrorKind::Denied),
            (17, ErrorKind::Conflict),
            (21, ErrorKind::Invalid),
            (28, ErrorKind::Unavailable),
            (69, ErrorKind::Unavailable),
            (70, ErrorKind::Unavailable),
            (10004, ErrorKind::Unsupported),
            (10008, ErrorKind::Unavailable),
            (4711, ErrorKind::Unavailable),
        ];
        for (number, kind) in kinds {
            let error = Status(number).error("`a`");
            assert_eq!(*error.kind(), kind, "{error}");
        }
        assert_eq!(Status(28).error("`a`").to_string(), "`a`: no space left on the server (NFS status 28)");
        assert!(Status(28).error("`a`").advice().is_some());
    }
}
