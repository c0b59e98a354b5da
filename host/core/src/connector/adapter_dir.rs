//! The adapter directory: a component that is put there is swapped in.
//!
//! `BACKEND.wasm`, with its signatures in `BACKEND.wasm.sig` beside it, becomes the adapter of that backend. Put the
//! signatures there first and rename the component into place, so that it appears atomically. A file that is still
//! growing is waited for; one that was read too early is rejected like any other invalid component.
//!
//! Each version of a file is tried once: a rejected one is tried again when the file changes, not before. A component
//! that was rolled back is not swapped in again, even though its file is still there, also after a restart: it must be
//! swapped in explicitly. The current component is left unchanged.
//!
//! The operating system reports changes. Where it does not (network file systems), the directory is polled every two
//! seconds.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Host;
use crate::runtime::{Component, Event, SwapOptions, SwapReport, signatures_beside};
use crate::types::{Error, Result, blocking};

/// Polling interval of the directory.
const POLL: Duration = Duration::from_secs(2);
/// How long a file must stay as it is before it is taken.
const SETTLED: Duration = Duration::from_millis(200);
/// How many notices wait for a reader; older ones are forgotten.
const NOTICES: usize = 64;

/// A watched adapter directory. Dropping it stops the watch; a swap that has not been published is abandoned.
pub struct AdapterDir {
    notices: broadcast::Receiver<AdapterDirEvent>,
    _task: AbortOnDropHandle<()>,
    /// `None` if the system cannot report changes.
    _watcher: Option<RecommendedWatcher>,
}

/// The outcome of a file in the adapter directory.
#[derive(Debug, Clone)]
pub struct AdapterDirEvent {
    /// The file.
    pub file: PathBuf,
    /// The outcome.
    pub outcome: AdapterDirOutcome,
}

/// The outcome of a component.
#[derive(Debug, Clone)]
pub enum AdapterDirOutcome {
    /// It serves.
    Swapped(Arc<SwapReport>),
    /// It served before it was looked at.
    Serving,
    /// It was put aside before, for this reason.
    Aside(String),
    /// It does not serve.
    Refused(Arc<Error>),
}

impl AdapterDir {
    /// Waits for the next file to be processed. Returns `None` once the watch has ended.
    pub async fn noticed(&mut self) -> Option<AdapterDirEvent> {
        loop {
            match self.notices.recv().await {
                Ok(noticed) => return Some(noticed),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Host {
    /// Watches an adapter directory, which is created if it does not exist: a component `BACKEND.wasm` in it is swapped in,
    /// at once for existing files. Outcomes are logged, added to the history, and returned by the result.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub async fn watch_adapter_dir(&self, dir: impl Into<PathBuf>) -> Result<AdapterDir> {
        let dir = dir.into();
        let made = dir.clone();
        blocking(move || {
            let fail = |error| Error::io(format!("the adapter directory {}", made.display()), error);
            std::fs::create_dir_all(&made).map_err(fail)?;
            std::fs::read_dir(&made).map(drop).map_err(fail)
        })
        .await?;
        let changed = Arc::new(Notify::new());
        let (tell, notices) = broadcast::channel(NOTICES);
        let watcher = watcher(&dir, changed.clone());
        let folder = Folder { host: self.clone(), dir, changed, tell, seen: BTreeMap::new() };
        let task = AbortOnDropHandle::new(tokio::spawn(folder.watch()));
        Ok(AdapterDir { notices, _task: task, _watcher: watcher })
    }
}

fn watcher(dir: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let tell = move |_| changed.notify_one();
    let watch = || -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(tell)?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    };
    match watch() {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::info!(dir = %dir.display(), %error, "cannot watch for changes; polling instead");
            None
        }
    }
}

struct Folder {
    host: Host,
    dir: PathBuf,
    changed: Arc<Notify>,
    tell: broadcast::Sender<AdapterDirEvent>,
    seen: BTreeMap<PathBuf, Seen>,
}

/// A version of a file and of its signatures.
type FileStates = [Option<[u64; 4]>; 2];

struct Seen {
    state: FileStates,
    acted: bool,
}

impl Folder {
    async fn watch(mut self) {
        let mut swaps = JoinSet::new();
        let mut starting = true;
        loop {
            let dir = self.dir.clone();
            let settling = match blocking(move || look(&dir)).await {
                Ok(files) => self.act(files, starting, &mut swaps),
                Err(error) => {
                    tracing::warn!(dir = %self.dir.display(), %error, "cannot read the adapter directory");
                    false
                }
            };
            starting = starting && settling;
            while swaps.try_join_next().is_some() {}
            if settling {
                tokio::time::sleep(SETTLED).await;
            } else {
                // Not an error: nothing has changed for so long.
                let _ = tokio::time::timeout(POLL, self.changed.notified()).await;
            }
        }
    }

    /// Processes files that have not changed since the last poll. Returns whether there are others.
    fn act(&mut self, files: BTreeMap<PathBuf, FileStates>, starting: bool, swaps: &mut JoinSet<()>) -> bool {
        self.seen.retain(|file, _| files.contains_key(file));
        let mut settling = false;
        for (file, state) in files {
            match self.seen.get_mut(&file) {
                Some(seen) if seen.state == state && seen.acted => {}
                Some(seen) if seen.state == state => {
                    seen.acted = true;
                    let (host, tell, dir) = (self.host.clone(), self.tell.clone(), self.dir.clone());
                    swaps.spawn(async move {
                        let outcome = put_in(&host, &file, &dir, starting).await;
                        let outcome = outcome.unwrap_or_else(|error| AdapterDirOutcome::Refused(Arc::new(error)));
                        log(&file, &outcome);
                        // Events may have no receiver.
                        let _ = tell.send(AdapterDirEvent { file, outcome });
                    });
                }
                _ => {
                    self.seen.insert(file, Seen { state, acted: false });
                    settling = true;
                }
            }
        }
        settling
    }
}

/// The components in a folder.
fn look(dir: &Path) -> Result<BTreeMap<PathBuf, FileStates>> {
    let fail = |error| Error::io(dir.display(), error);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        if let component @ Some(_) = state(&path) {
            let signatures = state(&signatures_beside(&path));
            found.insert(path, [component, signatures]);
        }
    }
    Ok(found)
}

fn state(path: &Path) -> Option<[u64; 4]> {
    let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    // Nanoseconds since 1970 fit until 2554.
    let modified =
        meta.mtime().cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec().cast_unsigned());
    Some([meta.dev(), meta.ino(), meta.len(), modified])
}

async fn put_in(host: &Host, file: &Path, dir: &Path, starting: bool) -> Result<AdapterDirOutcome> {
    let backend = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let backend = host.backend(backend).await?;
    let component = Component::read(file).await?;
    let digest = component.digest();
    if backend.serving()?.adapter.digest() == digest {
        return Ok(AdapterDirOutcome::Serving);
    }
    // A start has not seen the file change: what was refused before is refused still.
    let aside = backend.put_aside(&digest.to_string()).filter(|row| starting || row.event != Event::Refused);
    if let Some(row) = aside {
        return Ok(AdapterDirOutcome::Aside(row.why.unwrap_or_else(|| format!("{} by {}", row.event.name(), row.by))));
    }
    let options = SwapOptions { by: format!("folder {}", dir.display()), ..SwapOptions::default() };
    backend.swap(component, options).await.map(|report| AdapterDirOutcome::Swapped(Arc::new(report)))
}

fn log(file: &Path, outcome: &AdapterDirOutcome) {
    let file = file.display();
    match outcome {
        AdapterDirOutcome::Swapped(report) => {
            tracing::info!(%file, backend = report.backend, generation = report.generation, "swapped in");
        }
        AdapterDirOutcome::Serving => tracing::debug!(%file, "already serving"),
        AdapterDirOutcome::Aside(why) => {
            tracing::warn!(%file, why, "it was rolled back before; swap it in by hand");
        }
        AdapterDirOutcome::Refused(error) => {
            tracing::warn!(%file, %error, hint = error.advice(), "rejected; it is tried again when the file changes");
        }
    }
}
