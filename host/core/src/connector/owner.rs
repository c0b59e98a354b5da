//! The owner of a host's stores: a lease in the catalogue, renewed by a thread, and a lock file beside it.
//!
//! What is taken for dead gets cleaned up, and cleaning up after the living destroys data. So three things hold:
//!
//! - A lease lasts a minute and is renewed every quarter of one. Renewal has a thread of its own that needs neither the
//!   async runtime, which may be of one thread that is busy elsewhere or not run at all between two operations, nor the
//!   threads for blocking work, which a backend that hangs may take up. It waits by the machine's time.
//! - A host whose lease was ended all the same (it was stopped, or its machine slept) can record nothing that it began under
//!   that lease: the catalogue refuses it in the transaction itself. It takes another lease for what it begins next.
//! - A lock file that is free ends a lease at once, since no living host leaves it so ([`LockFile`]). After a host was
//!   killed, `gc` on the same machine need not wait for the minute. Whoever finds such a file ends the lease first and
//!   removes the file then, so that no crash loses the sign.
//!
//! The first store takes the lease: a command that only reads writes nothing.

mod ended;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use self::ended::Ended;
use super::lock_file::LockFile;
use crate::catalogue::{Catalogue, Claim, ExpiredOwner, HeldJob, Intent, OwnerToken};
use crate::types::{Error, ErrorKind, ObjectId, Platform, Result, blocking};

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(15);
/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long a host that lives needs at most to renew a lease: the pause between two renewals, a catalogue that is busy for
/// as long as one of them waits, and another try.
const GRACE: Duration = Duration::from_secs(25);
/// How long the end of a host waits for the end of its lease, which may have to wait for another process's write. The lock
/// file ends it otherwise.
const FAREWELL: Duration = Duration::from_secs(1);

/// The owner of what one host has under way. Dropping it ends its lease.
pub(super) struct Owner {
    catalogue: Arc<dyn Catalogue>,
    run: PathBuf,
    platform: Platform,
    keeper: tokio::sync::Mutex<Option<Keeper>>,
    /// What the keeper works on; there from the beginning, for those who give something up.
    shared: Arc<Shared>,
}

/// An intent that nothing can commit any more.
pub(super) struct StaleIntent {
    pub(super) intent: Intent,
    /// Whether its owner may still be there, so that its bytes may yet become an object: then the intent has to stay after
    /// its object was looked for, for some time at least.
    pub(super) owner_may_go_on: bool,
}

/// The thread that renews a lease, and holds the lock file.
struct Keeper {
    name: String,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Told when the lease has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The lease; `None` once it is known to be lost.
    token: Option<OwnerToken>,
    ending: bool,
    /// What has ended and is to be told to the catalogue.
    ended: Ended,
}

impl Owner {
    /// One without a lease so far.
    pub(super) fn new(catalogue: Arc<dyn Catalogue>, run: PathBuf, platform: Platform) -> Self {
        Self { catalogue, run, platform, keeper: tokio::sync::Mutex::new(None), shared: Arc::default() }
    }

    /// Gives up intents: their attempts have ended, and what they have left is for garbage collection to find. Those that have
    /// ended are none. Returns at once; the keeper of the lease tells the catalogue with its next renewal.
    pub(super) fn give_up(&self, keys: impl IntoIterator<Item = String>) {
        self.shared.lock().ended.keys.extend(keys);
    }

    /// Gives up a claim, as [`Self::give_up`] does intents.
    pub(super) fn release(&self, claim: Claim) {
        self.shared.lock().ended.claims.push(claim);
    }

    /// Gives up a job, as [`Self::give_up`] does intents.
    pub(super) fn release_job(&self, held: HeldJob) {
        self.shared.lock().ended.jobs.push(held);
    }

    /// Gives up room that was reserved, as [`Self::give_up`] does intents.
    pub(super) fn release_room(&self, room: u64) {
        self.shared.lock().ended.rooms.push(room);
    }

    /// Ends the leases of hosts of this machine that have ended without having done so: their jobs are due then, and what they have
    /// reserved is free.
    ///
    /// # Errors
    /// What the lock files and the catalogue meet.
    pub(super) async fn end_dead(&self) -> Result<()> {
        self.sweep().await?;
        self.flush().await
    }

    /// Tells the catalogue what was given up by now, if the keeper has not.
    async fn flush(&self) -> Result<()> {
        let ended = std::mem::take(&mut self.shared.lock().ended);
        ended.tell(&*self.catalogue).await.map_err(|(error, ended)| {
            self.shared.lock().ended.merge(ended);
            error
        })
    }

    /// Notes in the catalogue that this host is about to store an object.
    ///
    /// # Errors
    /// `conflict` if the key is in use; what the lock file and the catalogue meet.
    pub(super) async fn begin_intent(&self, key: &str, backend: &str) -> Result<()> {
        let token = self.token().await?;
        match self.catalogue.begin_intent(key, backend, token).await {
            Err(error) if *error.kind() == ErrorKind::Conflict && self.is_lost(token).await => {
                let token = self.token().await?;
                self.catalogue.begin_intent(key, backend, token).await
            }
            begun => begun,
        }
    }

    /// Claims an object for its deletion. Returns the lease under which it is claimed; `None` if it cannot be.
    ///
    /// The lease is not renewed for that: the catalogue refuses one that was ended, and to write a lease for each deletion would
    /// let all changes wait for each other.
    ///
    /// # Errors
    /// What the lock file and the catalogue meet.
    pub(super) async fn claim(
        &self,
        backend: &str,
        object: &ObjectId,
        instead_of: Option<OwnerToken>,
    ) -> Result<Option<OwnerToken>> {
        let token = self.token().await?;
        match self.catalogue.claim(backend, object, token, instead_of).await {
            Err(error) if *error.kind() == ErrorKind::Conflict && self.is_lost(token).await => {
                let token = self.token().await?;
                Ok(self.catalogue.claim(backend, object, token, instead_of).await?.then_some(token))
            }
            claimed => Ok(claimed?.then_some(token)),
        }
    }

    /// The intents whose owner does not live any more, or stood still for so long that its lease was ended. No store of
    /// theirs can be committed from now on.
    ///
    /// That a lease has expired is weak evidence: the clock may have jumped, the machine may have slept, and others may
    /// have kept the catalogue busy. That the owner's lock file is locked on this machine is strong. So such an owner is
    /// given the time in which it would renew its lease, and only one that does not is taken for one that stands still.
    ///
    /// # Errors
    /// What the lock files and the catalogue meet.
    pub(super) async fn stale_intents(&self) -> Result<Vec<StaleIntent>> {
        self.sweep().await?;
        self.flush().await?;
        self.renew().await;
        // Only leases that were seen expired are ended, and those of living hosts only after their time of grace.
        let expired = self.catalogue.expired_owners().await?;
        let locked = self.locked(&expired).await?;
        if !locked.is_empty() {
            tracing::info!(hosts = locked.len(), "giving hosts whose leases have expired time to renew them");
            tokio::time::sleep(GRACE).await;
        }
        let stale = self.catalogue.stale_intents(expired).await?;
        let run = self.run.clone();
        let judge = move |intent: Intent| {
            let locked = LockFile::is_alive(&run, &intent.owner);
            match intent.token {
                None if locked => None,
                _ => Some(StaleIntent { intent, owner_may_go_on: locked }),
            }
        };
        blocking(move || Ok(stale.into_iter().filter_map(judge).collect())).await
    }

    /// Those of the claims whose deletions have ended: their owners do not live any more, or are this host, which knows what
    /// it is deleting.
    pub(super) async fn ended_claims(&self, claims: Vec<Claim>) -> Result<Vec<Claim>> {
        if claims.is_empty() {
            return Ok(claims);
        }
        let own = self.keeper.lock().await.as_ref().map(|keeper| keeper.name.clone());
        let run = self.run.clone();
        let ended = move |claim: &Claim| own.as_ref() == Some(&claim.owner) || !LockFile::is_alive(&run, &claim.owner);
        blocking(move || Ok(claims.into_iter().filter(ended).collect())).await
    }

    /// Those of the owners whose lock files are locked.
    async fn locked(&self, owners: &[ExpiredOwner]) -> Result<Vec<ExpiredOwner>> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let (owners, run) = (owners.to_vec(), self.run.clone());
        blocking(move || Ok(owners.into_iter().filter(|owner| LockFile::is_alive(&run, &owner.name)).collect())).await
    }

    /// Renews this host's own lease, if it has one: it lives, whatever the clock says. The keeper deals with failures.
    async fn renew(&self) {
        let token = self.keeper.lock().await.as_ref().and_then(|keeper| keeper.shared.lock().token);
        if let Some(token) = token {
            self.is_lost(token).await;
        }
    }

    /// Ends the leases of hosts that have ended without having done so, and removes their lock files.
    async fn sweep(&self) -> Result<()> {
        loop {
            let run = self.run.clone();
            let dead = blocking(move || LockFile::dead(&run)).await?;
            if dead.is_empty() {
                return Ok(());
            }
            self.catalogue.end_owners(dead.iter().map(|dead| dead.name.clone()).collect()).await?;
            blocking(move || dead.into_iter().try_for_each(|dead| dead.remove())).await?;
        }
    }

    /// The lease, taken if there is none or it was ended.
    ///
    /// # Errors
    /// What the lock file and the catalogue meet.
    pub(super) async fn current(&self) -> Result<OwnerToken> {
        let token = self.token().await?;
        if self.is_lost(token).await { self.token().await } else { Ok(token) }
    }

    /// The lease, taken if there is none or it was lost.
    async fn token(&self) -> Result<OwnerToken> {
        let mut keeper = self.keeper.lock().await;
        // A thread that has ended has panicked; its lock file went with it.
        let living = keeper.take().filter(|keeper| !keeper.thread.is_finished());
        if let Some(living) = living {
            let held = living.shared.lock().token;
            let living = keeper.insert(living);
            if let Some(token) = held {
                return Ok(token);
            }
            let token = self.catalogue.acquire_owner(&living.name, LEASE).await?;
            living.shared.lock().token = Some(token);
            return Ok(token);
        }
        self.sweep().await?;
        let (run, platform) = (self.run.clone(), self.platform.clone());
        let file = blocking(move || LockFile::acquire(&run, &platform)).await?;
        let token = self.catalogue.acquire_owner(file.name(), LEASE).await?;
        *keeper = Some(Keeper::start(self.catalogue.clone(), self.shared.clone(), file, token)?);
        Ok(token)
    }

    /// Returns whether a lease was ended by somebody else.
    async fn is_lost(&self, token: OwnerToken) -> bool {
        let renewed = self.catalogue.renew_owner(token, LEASE).await;
        let lost = renewed.is_err_and(|error| *error.kind() == ErrorKind::Conflict);
        if lost && let Some(keeper) = &*self.keeper.lock().await {
            keeper.shared.forget(token);
        }
        lost
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, token: OwnerToken) {
        let mut state = self.lock();
        if state.token == Some(token) {
            state.token = None;
        }
    }
}

impl Keeper {
    fn start(catalogue: Arc<dyn Catalogue>, shared: Arc<Shared>, file: LockFile, token: OwnerToken) -> Result<Self> {
        shared.lock().token = Some(token);
        let (tell, ended) = channel();
        let (name, kept) = (file.name().to_owned(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("tidelock-owner".to_owned())
            .spawn(move || keep(&kept, &*catalogue, file, &tell))
            .map_err(|error| Error::io("the thread that renews leases", error))?;
        Ok(Self { name, shared, thread, ended: Mutex::new(ended) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Too late or never: the lock file is free when the process has ended.
        let _ = ended.recv_timeout(FAREWELL);
    }
}

/// Renews the lease until the host ends, then ends it.
fn keep(shared: &Shared, catalogue: &dyn Catalogue, file: LockFile, tell: &Sender<()>) {
    let mut pause = RENEWAL;
    let mut state = shared.lock();
    while !state.ending {
        state = shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        let ended = std::mem::take(&mut state.ended);
        if !ended.is_empty() && !state.ending {
            drop(state);
            let told = block_on(ended.tell(catalogue));
            state = shared.lock();
            if let Err((error, ended)) = told {
                tracing::debug!(%error, "what was given up is told to the catalogue later");
                state.ended.merge(ended);
            }
        }
        let Some(token) = state.token.filter(|_| !state.ending) else { continue };
        drop(state);
        pause = match block_on(catalogue.renew_owner(token, LEASE)) {
            Ok(()) => RENEWAL,
            Err(error) if *error.kind() == ErrorKind::Conflict => {
                tracing::warn!(%error, "what this host had under way cannot be recorded any more");
                shared.forget(token);
                RENEWAL
            }
            Err(error) => {
                tracing::warn!(%error, "a lease could not be renewed, trying again");
                RETRY
            }
        };
        state = shared.lock();
    }
    let token = state.token.take();
    drop(state);
    if let Some(error) = token.and_then(|token| block_on(catalogue.release_owner(token)).err()) {
        tracing::debug!(%error, "a lease is left to expire");
    }
    drop(file);
    // Nobody may wait any more.
    let _ = tell.send(());
}

/// Waits for a future on this thread, which nothing else runs on. The catalogue's futures of leases need no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests;
