//! Downloads of bags that the daemon does not have.
//!
//! The daemon accepts any id and searches for it for ever. So a bag that makes no progress for `download_timeout` seconds
//! is `unavailable`, and is removed from the daemon if this operation added it. A download that makes progress, however
//! slow, may last until the deadline of the operation.

use tidelock_sdk::{Error, clock, log, timer};

use crate::bag::BagId;
use crate::daemon::{Daemon, Details};
use crate::options::Settings;

/// The folder of downloaded bags, below the shared directory.
pub const FETCHED: &str = "fetched";

/// The bounds of the time between two requests for the state of a download.
const SHORTEST_WAIT_MS: u64 = 50;
const LONGEST_WAIT_MS: u64 = 1000;

/// The time between two notes in the log.
const REPORT_NS: u64 = 5_000_000_000;

/// Returns the details of a bag that the daemon has completely. Downloads it first if necessary.
pub async fn obtain(daemon: &Daemon, settings: &Settings, id: BagId) -> Result<Details, Error> {
    let first = daemon.details(id).await?;
    let asked_here = first.is_none();
    match first {
        Some(details) if details.known() && details.completed => return Ok(details),
        _ => daemon.add(id, &settings.daemon_path(FETCHED)).await?,
    }
    log::info(&["fetching the bag ", &id.hex()].concat());
    let outcome = follow(daemon, settings, id).await;
    if outcome.is_err() && asked_here {
        // The first error is the one to report.
        let _ = daemon.remove(id, true).await;
    }
    outcome
}

/// Polls the daemon until the bag is complete, or makes no progress for too long.
async fn follow(daemon: &Daemon, settings: &Settings, id: BagId) -> Result<Details, Error> {
    let patience = u64::from(settings.download_timeout).saturating_mul(1_000_000_000);
    let mut last = Download::default();
    let began = clock::monotonic();
    let (mut moved, mut reported) = (began, began);
    loop {
        timer::wait(last.wait(clock::monotonic().saturating_sub(began) / 1_000_000)).await;
        let details = daemon.details(id).await?;
        let details = details.ok_or_else(|| Error::unavailable("the bag was removed while it was being fetched"))?;
        if details.known() && details.completed {
            log::info(&["fetched the bag ", &id.hex()].concat());
            return Ok(details);
        }
        let (now, progress) = (clock::monotonic(), Download::of(&details));
        if progress != last {
            (last, moved) = (progress, now);
        }
        if now.saturating_sub(reported) >= REPORT_NS {
            reported = now;
            log::info(&last.message(&details));
        }
        if now.saturating_sub(moved) >= patience {
            return Err(Error::unavailable(last.timeout(&details, settings.download_timeout)));
        }
    }
}

/// The state of a download. It has no peers: they come and go without any progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Download {
    info: bool,
    header: bool,
    bytes: u64,
    /// The bytes that are missing, if that is known.
    left: Option<u64>,
}

impl Download {
    fn of(details: &Details) -> Self {
        let left = details.known().then(|| details.size.saturating_sub(details.downloaded));
        Self { info: details.info_loaded, header: details.header_loaded, bytes: details.downloaded, left }
    }

    /// Returns the milliseconds to wait before the next request, `since` milliseconds after the start: an eighth of that
    /// time, but at most half of the time that the rest needs at the present rate.
    fn wait(self, since: u64) -> u32 {
        let rest = match self.left {
            Some(left) if self.bytes > 0 => since.saturating_mul(left) / self.bytes,
            _ => u64::MAX,
        };
        // Within what a u32 holds.
        (since / 8).min(rest / 2).clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS) as u32
    }

    fn message(self, details: &Details) -> String {
        let peers = details.peers.len().to_string();
        if !self.info {
            return ["looking for peers that have the bag; connected to ", &peers].concat();
        }
        let (bytes, all) = (self.bytes.to_string(), details.size.to_string());
        ["fetched ", &bytes, " of ", &all, " bytes from ", &peers, " peers"].concat()
    }

    fn timeout(self, details: &Details, seconds: u32) -> String {
        let seconds = seconds.to_string();
        if !self.info {
            return ["no peer with the bag was found in ", &seconds, " s"].concat();
        }
        let (bytes, all) = (self.bytes.to_string(), details.size.to_string());
        ["the download stopped at ", &bytes, " of ", &all, " bytes for ", &seconds, " s"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_get_shorter_towards_the_end() {
        let progress = |bytes, left| Download { info: true, header: true, bytes, left };
        assert_eq!(Download::default().wait(0), 50, "at first");
        assert_eq!(Download::default().wait(1600), 200, "while nothing is known");
        assert_eq!(progress(100, Some(1_000_000)).wait(60_000), 1000, "far from the end");
        assert_eq!(progress(900, Some(100)).wait(9_000), 500, "a second before it");
        assert_eq!(progress(1000, Some(0)).wait(9_000), 50, "at it");
        assert_eq!(progress(1, Some(u64::MAX)).wait(u64::MAX), 1000, "what a daemon may say");
    }
}
