//! Errors of the operating system, also where a library's error hides them.

use std::fmt;

use super::{Error, ErrorKind};

/// Linux: no more threads or other things that are counted; no more memory; too many open files, on the machine and in
/// this process.
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

impl Error {
    /// Creates an error from one of the local operating system. A missing file is `not-found`, missing permission `denied`, a
    /// directory in place of a file `invalid`, a timeout `timed-out`; a full disk and everything else is `unavailable`.
    pub fn io(what: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::IsADirectory | Io::NotADirectory | Io::InvalidInput | Io::InvalidFilename => ErrorKind::Invalid,
            Io::AlreadyExists => ErrorKind::Conflict,
            Io::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Unavailable,
        };
        let hint = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
                Some("free some space, or configure another location".to_owned())
            }
            _ if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => Some(
                "allow more open files (`ulimit -n`), or lower `open_bodies` and `in_flight` of the backends"
                    .to_owned(),
            ),
            _ if error.raw_os_error() == Some(ENOMEM) => {
                Some("allow this process more memory and address space (`ulimit -v`)".to_owned())
            }
            _ => None,
        };
        let mut made = Self::new(kind, format!("{what}: {}", io_reason(&error)));
        made.0.hint = hint;
        made.with_source(error)
    }

    /// Creates an error from one of a library, if what lies below it is that the operating system has no more open files,
    /// memory or threads for this process. That is neither the library's fault nor that of what it was given.
    pub fn of_system(what: impl fmt::Display, error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let error = std::io::Error::from_raw_os_error(lacking(error)?);
        Some(Self::io(what, error))
    }
}

/// The code of the operating system for what it has no more of, if that lies below an error.
fn lacking(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    /// Errors that are their own cause are the fault of their library.
    const DEEPEST: usize = 32;
    let mut next = Some(error);
    for _ in 0..DEEPEST {
        let error = next?;
        let io = error.downcast_ref::<std::io::Error>();
        let code = match error.downcast_ref::<rustix::io::Errno>() {
            Some(errno) => Some(errno.raw_os_error()),
            None => io.and_then(std::io::Error::raw_os_error),
        };
        if let Some(code @ (EAGAIN | ENOMEM | ENFILE | EMFILE)) = code {
            return Some(code);
        }
        // The source of an error that was made of another one is the source of that.
        let inner = io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
        next = inner.or(error.source());
    }
    None
}

/// "No space left on device" rather than "No space left on device (os error 28)".
fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_keep_their_meaning() {
        let kind = |code| Error::io("x", std::io::Error::from_raw_os_error(code)).kind().clone();
        assert_eq!(kind(2), ErrorKind::NotFound);
        assert_eq!(kind(13), ErrorKind::Denied);
        assert_eq!(kind(21), ErrorKind::Invalid);
        assert_eq!(kind(28), ErrorKind::Unavailable);
        let full = Error::io("writing x", std::io::Error::from_raw_os_error(28));
        assert_eq!(full.to_string(), "writing x: no space left on device");
        assert!(full.advice().is_some());
        let many = Error::io("x", std::io::Error::from_raw_os_error(EMFILE));
        assert!(many.advice().is_some_and(|hint| hint.contains("ulimit -n")));
    }

    #[test]
    fn what_the_system_lacks_is_found_below_the_errors_of_libraries() {
        #[derive(Debug)]
        struct Library(Option<Box<dyn std::error::Error + 'static>>);
        impl fmt::Display for Library {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("it did not work")
            }
        }
        impl std::error::Error for Library {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.0.as_deref()
            }
        }
        let io = std::io::Error::from_raw_os_error;
        let below = |cause: Box<dyn std::error::Error + 'static>| Library(Some(Box::new(Library(Some(cause)))));
        for code in [EMFILE, ENFILE] {
            let carried = std::io::Error::other(Error::other("x").with_source(io(code)));
            for error in [below(Box::new(io(code))), below(Box::new(carried))] {
                let found = Error::of_system("making it", &error).unwrap();
                assert!(found.message().starts_with("making it: too many open files"), "{found}");
                assert!(found.advice().is_some_and(|hint| hint.contains("ulimit -n")), "{found:?}");
                assert_eq!(*found.kind(), ErrorKind::Unavailable);
            }
        }
        let memory = Error::of_system("x", &below(Box::new(rustix::io::Errno::NOMEM))).unwrap();
        assert!(memory.advice().is_some_and(|hint| hint.contains("ulimit -v")), "{memory:?}");
        for other in [below(Box::new(io(2))), below(Box::new(rustix::io::Errno::NOENT)), Library(None)] {
            assert!(Error::of_system("x", &other).is_none());
        }
    }
}
