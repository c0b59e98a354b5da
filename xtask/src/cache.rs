//! The cache of installed things, so that they are fetched or built once.
//!
//! An entry is a directory. It is filled under the name `NAME.partial` and renamed when it is complete: a
//! half-filled entry is never visible under its own name. Steps leave stamps, so an interrupted installation continues
//! where it stopped. A file lock makes a second process wait instead of doing the same work; the kernel
//! releases it if the first one dies.
//!
//! The place is `$TIDELOCK_CACHE`, else `$XDG_CACHE_HOME/tidelock`, else `~/.cache/tidelock`. Deleting it is always
//! safe: it comes back. An entry's name carries a version, so a change of contents is a change of name.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::say;

/// The cache directory, made if it is not there.
pub fn dir() -> Result<PathBuf> {
    let dir = place(|name| std::env::var_os(name)).ok_or_else(|| {
        anyhow!("there is no place for what has to be installed: set TIDELOCK_CACHE to a directory, or HOME")
    })?;
    fs::create_dir_all(&dir).with_context(|| {
        format!("cannot make the cache directory {}; set TIDELOCK_CACHE to one that can be written", dir.display())
    })?;
    // Programs are run from here with other working directories.
    dir.canonicalize().with_context(|| format!("cannot resolve {}", dir.display()))
}

fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TIDELOCK_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("tidelock")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/tidelock")))
}

/// A lock that other processes wait for. Given back when it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

/// Takes the lock at `path`, waiting until it is free; `what` is the purpose of the other holder, for the message.
pub fn lock(path: &Path, what: &str) -> Result<Lock> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let file = File::options().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot open the lock {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => say!("another process is at it ({what}); waiting"),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Lock(file))
}

/// The entry `name`, filled by `fill` if it is not there yet. `fill` gets the directory to fill; what an interrupted run
/// left in it is still there, so `fill` divides its work with [`step`] or begins by removing.
pub fn install(name: &str, what: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    install_in(&dir()?, name, what, fill)
}

fn install_in(dir: &Path, name: &str, what: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let whole = dir.join(name);
    // The name alone is the proof: only the rename below gives it.
    if whole.is_dir() {
        return Ok(whole);
    }
    let _lock = lock(&dir.join(format!("{name}.lock")), &format!("installing {what}"))?;
    if whole.is_dir() {
        return Ok(whole);
    }
    let partial = dir.join(format!("{name}.partial"));
    let resumed = partial.is_dir();
    say!("{} {what} in {} (once)", if resumed { "going on installing" } else { "installing" }, whole.display());
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    fill(&partial).with_context(|| format!("cannot install {what}"))?;
    fs::rename(&partial, &whole).with_context(|| format!("cannot rename {} to {name}", partial.display()))?;
    Ok(whole)
}

/// Does a step of filling `partial` unless an earlier run finished it. A step that was interrupted is done again from its
/// beginning, so it must bear what it left.
pub fn step(partial: &Path, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = partial.join(format!(".done-{name}"));
    if stamp.exists() {
        return Ok(());
    }
    work()?;
    File::create(&stamp).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(())
}

/// Enough of a digest of sources (names and contents) to tell them from others: in an entry's name, it makes another source
/// another entry.
pub fn digest(files: &[(&str, &str)]) -> String {
    let mut hasher = Sha256::new();
    for (name, text) in files {
        hasher.update([name.as_bytes(), b"\0", text.as_bytes(), b"\0"].concat());
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// An empty directory at `path`, whatever was there.
pub fn empty_dir(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Writes `bytes` so that a reader sees the old contents or the new, never a part; does not touch a file that has them
/// already. Says whether it wrote.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let parent = path.parent().ok_or_else(|| anyhow!("{} has no folder", path.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let cannot = || format!("cannot write {}", path.display());
    // What the umask leaves of this, as for any new file, and not the privacy of a temporary one.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut temporary = tempfile::Builder::new().permissions(mode).tempfile_in(parent).with_context(cannot)?;
    std::io::Write::write_all(&mut temporary, bytes).with_context(cannot)?;
    temporary.persist(path).with_context(cannot)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_first_variable_that_is_set_gives_the_place() {
        let all = |name: &str| match name {
            "TIDELOCK_CACHE" => Some("/a".into()),
            "XDG_CACHE_HOME" => Some("/b".into()),
            "HOME" => Some("/c".into()),
            _ => None,
        };
        assert_eq!(place(all), Some("/a".into()));
        assert_eq!(place(|name| all(name).filter(|_| name != "TIDELOCK_CACHE")), Some("/b/tidelock".into()));
        assert_eq!(place(|name| if name == "XDG_CACHE_HOME" { Some("".into()) } else { all(name) }), Some("/a".into()));
        assert_eq!(place(|name| all(name).filter(|_| name == "HOME")), Some("/c/.cache/tidelock".into()));
        assert_eq!(place(|_| None), None);
    }

    #[test]
    fn an_interrupted_installation_goes_on_and_shows_nothing_before_it_is_whole() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (mut first, mut second) = (0, 0);
        let mut attempt = |fails: bool| {
            install_in(dir.path(), "thing-1", "a thing", |partial| {
                step(partial, "first", || {
                    first += 1;
                    Ok(fs::write(partial.join("a"), "a")?)
                })?;
                step(partial, "second", || {
                    second += 1;
                    if fails { bail!("the network is down") } else { Ok(()) }
                })
            })
        };
        let error = attempt(true).unwrap_err();
        assert!(format!("{error:#}").contains("cannot install a thing: the network is down"));
        assert!(!dir.path().join("thing-1").exists());
        let whole = attempt(false)?;
        assert_eq!(fs::read_to_string(whole.join("a"))?, "a");
        attempt(true)?;
        assert_eq!((first, second), (1, 2));
        Ok(())
    }

    #[test]
    fn two_at_once_install_once() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let count = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    install_in(dir.path(), "thing-1", "a thing", |_| {
                        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
        Ok(())
    }

    #[test]
    fn equal_contents_are_not_written_again() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("sub/a.wasm");
        assert!(write_if_changed(&path, b"one")?);
        let before = fs::metadata(&path)?.modified()?;
        assert!(!write_if_changed(&path, b"one")?);
        assert_eq!(fs::metadata(&path)?.modified()?, before);
        assert!(write_if_changed(&path, b"two")?);
        assert_eq!(fs::read(&path)?, b"two");
        Ok(())
    }

    #[test]
    fn another_source_is_another_entry() {
        assert_eq!(digest(&[("a", "b")]), digest(&[("a", "b")]));
        assert_ne!(digest(&[("a", "b")]), digest(&[("a", "c")]));
        assert_ne!(digest(&[("a", "b")]), digest(&[("ab", "")]));
    }
}
