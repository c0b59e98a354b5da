//! The account of one operation: what the host holds, and works, on behalf of an adapter.
//!
//! Bytes, file descriptors and blocking work that an adapter can cause are charged to its operation before they are taken
//! and refunded when they go, wherever in the host they are. The limits of an operation, and those of its backend over
//! all of its operations, are kept by the implementation of [`Account`]; capabilities only charge.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::LimitExceeded;

/// Keeps count of what is done and held for one operation.
pub trait Account: Send + Sync + 'static {
    /// Counts processor time on a thread that is not the operation's own.
    fn spends(&self, time: Duration);

    /// Returns whether the operation was ended by a limit: work that is still under way for it has no purpose.
    fn is_over(&self) -> bool;

    /// Takes bytes, and things that are open (a file, a connection). The caller releases them with [`Self::give_back`].
    ///
    /// # Errors
    /// The limit, if they are too many. Nothing was taken then, and the operation ends.
    fn take(&self, bytes: u64, open: usize) -> Result<(), LimitExceeded>;

    /// Releases what was taken.
    fn give_back(&self, bytes: u64, open: usize);

    /// The places for blocking work of the operation's backend.
    fn jobs(&self) -> &Arc<Semaphore>;
}

/// Bytes and handles that are held for one operation; released when dropped.
pub struct Charge {
    account: Arc<dyn Account>,
    bytes: u64,
    open: usize,
}

impl Charge {
    /// Takes bytes.
    ///
    /// # Errors
    /// The limit, if they are too many.
    pub fn bytes(account: &Arc<dyn Account>, bytes: u64) -> Result<Self, LimitExceeded> {
        Self::new(account, bytes, 0)
    }

    /// Takes one thing that is open, and the bytes that are held for it.
    ///
    /// # Errors
    /// The limit, if they are too many.
    pub fn open(account: &Arc<dyn Account>, bytes: u64) -> Result<Self, LimitExceeded> {
        Self::new(account, bytes, 1)
    }

    fn new(account: &Arc<dyn Account>, bytes: u64, open: usize) -> Result<Self, LimitExceeded> {
        account.take(bytes, open)?;
        Ok(Self { account: account.clone(), bytes, open })
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// The limit, if they are too many.
    pub fn grow(&mut self, bytes: u64) -> Result<(), LimitExceeded> {
        self.account.take(bytes, 0)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.bytes, self.open);
    }
}

/// The account of what no adapter has caused: without limits.
pub struct Unlimited(Arc<Semaphore>);

impl Default for Unlimited {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)))
    }
}

impl Account for Unlimited {
    fn spends(&self, _: Duration) {}

    fn is_over(&self) -> bool {
        false
    }

    fn take(&self, _: u64, _: usize) -> Result<(), LimitExceeded> {
        Ok(())
    }

    fn give_back(&self, _: u64, _: usize) {}

    fn jobs(&self) -> &Arc<Semaphore> {
        &self.0
    }
}
