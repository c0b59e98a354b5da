//! Temporary files on a server, and distinguishing leftovers from those in use.
//!
//! NFSv3 alone has no lock that ends with its holder. Instead a temporary file has a *lease*: a writer that writes to
//! it, or touches it each [`HEARTBEAT`], renews the server's time of its last change, and gc removes only
//! files that have not changed for the whole lease, by the server's own clock. A writer that was disconnected for longer
//! finds its file gone, and fails; readers are unaffected, since only a complete file gets a name.
//!
//! A file that is about to be replaced gets a second name here first. Without any name a server deletes it, and reads of
//! it would fail; so readers have the lease's time to finish.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;

use super::object::{Handle, Kind};
use super::session::Session;
use super::status::{Fault, Status};
use tidelock_types::path::{TEMPORARY, split};
use tidelock_types::{Error, Platform, Result};

/// How often a writer that waits for its source renews the lease.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(60);
/// How often another name is tried for a new file. One try is enough unless a reply was lost.
const TRIES: usize = 4;

/// A temporary file that is being written. Dropping it removes it, unless it got its name.
pub(super) struct Temporary {
    at: Place,
    pub(super) file: Handle,
}

/// The name of a temporary file that may exist. Dropping it removes the file, unless that was done.
struct Place {
    session: Arc<Session>,
    home: Handle,
    name: String,
    done: bool,
}

impl Temporary {
    /// Makes a new, empty one.
    pub(super) async fn create(session: &Arc<Session>) -> Result<Self> {
        for _ in 0..TRIES {
            let home = session.made_directory(TEMPORARY).await?;
            // Before the call: whoever gives up in the middle of it leaves a file, too.
            let mut at =
                Place { session: Arc::clone(session), home, name: random_name(session.platform())?, done: false };
            match session.create(&at.home, &at.name).await {
                Ok(file) => return Ok(Self { at, file }),
                // Made by the same call, whose reply was lost.
                Err(fault) if fault.is(Status::EXIST) => {}
                // The directory was removed by another process.
                Err(fault) if fault.is(Status::NOENT) || fault.is_stale() => at.done = true,
                Err(fault) => {
                    at.done = matches!(fault, Fault::Status(_));
                    return Err(fault.of("making a temporary file"));
                }
            }
        }
        Err(Error::unavailable("every new temporary file was taken by another process")
            .hint("check which other program writes to `.tmp` on the export"))
    }

    /// Renews the lease.
    pub(super) async fn renew(&self) -> Result<()> {
        self.at.session.touch(&self.file).await.map_err(|fault| fault.of("keeping a temporary file"))
    }

    /// Renames the file: atomically, and replacing an existing one unless `if_absent`.
    ///
    /// # Errors
    /// `conflict` if the name is taken and `if_absent`; `invalid` if it is a directory's; `unavailable` if the file does
    /// not have the size that was written to it.
    pub(super) async fn place(mut self, path: &str, size: u64, if_absent: bool) -> Result<()> {
        let session = Arc::clone(&self.at.session);
        let of_file = session.attributes(&self.file).await.map_err(|fault| fault.of("a temporary file"))?;
        if of_file.size != size {
            return Err(Error::unavailable(format!("the server kept {} of {size} bytes written", of_file.size)));
        }
        let (parent, name) = split(path);
        let directory = session.made_directory(parent).await?;
        let named = match if_absent {
            true => session.link(&self.file, (&directory, name)).await,
            false => {
                self.keep_readable(path).await?;
                session.rename((&self.at.home, &self.at.name), (&directory, name)).await
            }
        };
        // A call whose reply was lost is made twice, and then fails because it was done the first time.
        let done = match &named {
            Err(fault) if fault.is(Status::EXIST) || fault.is(Status::NOENT) => {
                matches!(session.lookup(&directory, name).await, Ok((_, found)) if found.number == of_file.number)
            }
            _ => named.is_ok(),
        };
        if done && !if_absent {
            self.at.done = true;
            return Ok(());
        }
        // After a link it has another name.
        self.discard().await;
        if done {
            return Ok(());
        }
        Err(match named {
            Err(fault) if if_absent && fault.is(Status::EXIST) => Error::conflict(format!("`{path}` already exists")),
            Err(fault) if if_absent && fault.is(Status::NOTSUPP) => Error::unsupported(format!(
                "naming `{path}`: the server does not support hard links, which `if-absent` needs"
            )),
            Err(fault) if fault.is(Status::NOENT) => {
                Error::unavailable(format!("naming `{path}`: the temporary file was removed")).hint("try again")
            }
            Err(fault) => fault.of(format!("naming `{path}`")),
            Ok(()) => Error::other(format!("naming `{path}`")),
        })
    }

    /// Removes it, and returns when that is done: a process that ends next leaves nothing.
    pub(super) async fn discard(mut self) {
        // Where this fails, the file is a leftover as soon as its lease is over.
        let _ = self.at.session.remove(&self.at.home, &self.at.name).await;
        self.at.done = true;
    }

    /// Keeps a file that is replaced for its readers. Not possible without hard links.
    async fn keep_readable(&self, path: &str) -> Result<()> {
        if let Some((old, found)) = self.at.session.named(path).await?
            && found.kind == Kind::File
        {
            let _ = self.at.session.link(&old, (&self.at.home, &random_name(self.at.session.platform())?)).await;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where this fails, the file is a leftover as soon as its lease is over.
        if !self.done
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            let (session, home) = (Arc::clone(&self.session), self.home.clone());
            let name = std::mem::take(&mut self.name);
            runtime.spawn(async move { session.remove(&home, &name).await });
        }
    }
}

/// Removes files that have not changed for the lease, and returns their number.
pub(super) async fn gc(session: &Arc<Session>) -> Result<u64> {
    // The server's clock counts, and a new file shows it.
    let clock = Temporary::create(session).await?;
    let removed = gc_by(session, &clock).await;
    clock.discard().await;
    removed
}

async fn gc_by(session: &Session, clock: &Temporary) -> Result<u64> {
    let failed = |fault: Fault| fault.of("cleaning up `.tmp`");
    let now = u64::from(session.attributes(&clock.file).await.map_err(failed)?.changed);
    let mut names = Vec::new();
    session
        .each_name(&clock.at.home, |name| {
            // The others are left to the next run.
            if names.len() < 10_000 {
                names.push(name.to_owned());
            }
        })
        .await
        .map_err(failed)?;
    let mut removed = 0;
    for name in names {
        match session.lookup(&clock.at.home, &name).await {
            Ok((_, found)) if found.kind == Kind::File => {
                let quiet = now.saturating_sub(u64::from(found.changed));
                if quiet > session.grant().lease.as_secs() && session.remove(&clock.at.home, &name).await.is_ok() {
                    removed += 1;
                }
            }
            // Not ours, or gone meanwhile.
            _ => {}
        }
    }
    Ok(removed)
}

fn random_name(platform: &Platform) -> Result<String> {
    let mut random = [0u8; 16];
    platform.fill(&mut random)?;
    Ok(data_encoding::HEXLOWER.encode(&random))
}
