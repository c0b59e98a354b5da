//! Having the daemon fetch a bag that it lacks.
//!
//! The daemon takes any id and looks for it for as long as it lives. So there is an end of patience here: a bag of which
//! nothing more has come for `download_timeout` seconds is `unavailable`, and forgotten again if it was this operation that
//! had it looked for. One that comes, however slowly, is waited for until the operation's own deadline.

use tidelock_sdk::{Error, clock, log, timer};

use crate::bag::BagId;
use crate::daemon::{Daemon, Details};
use crate::options::Settings;

/// Where bags from others go, below the shared directory.
pub const FETCHED: &str = "fetched";

/// How long it is waited before the daemon is asked again, at least and at most.
const SHORTEST_WAIT_MS: u64 = 50;
const LONGEST_WAIT_MS: u64 = 1000;

/// How often it is said how far it has come.
const REPORT_NS: u64 = 5_000_000_000;

/// Details of a bag that the daemon has to its last piece; until then it fetches.
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
        // That it fails is no news beside the error that led here.
        let _ = daemon.remove(id, true).await;
    }
    outcome
}

/// Asks until all is there or nothing more comes.
async fn follow(daemon: &Daemon, settings: &Settings, id: BagId) -> Result<Details, Error> {
    let patience = u64::from(settings.download_timeout).saturating_mul(1_000_000_000);
    let mut last = Progress::default();
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
        let (now, progress) = (clock::monotonic(), Progress::of(&details));
        if progress != last {
            (last, moved) = (progress, now);
        }
        if now.saturating_sub(reported) >= REPORT_NS {
            reported = now;
            log::info(&last.say(&details));
        }
        if now.saturating_sub(moved) >= patience {
            return Err(Error::unavailable(last.why(&details, settings.download_timeout)));
        }
    }
}

/// What has come of a bag. Peers are not progress: one that has nothing comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    info: bool,
    header: bool,
    bytes: u64,
    /// What is still to come, as far as that is known.
    left: Option<u64>,
}

impl Progress {
    fn of(details: &Details) -> Self {
        let left = details.known().then(|| details.size.saturating_sub(details.downloaded));
        Self { info: details.info_loaded, header: details.header_loaded, bytes: details.downloaded, left }
    }

    /// Milliseconds until it is worth asking again, when this was the last answer in so many since the fetch began: an
    /// eighth of those, and no more than half of what the rest will take if it comes as fast.
    fn wait(self, since: u64) -> u32 {
        let rest = match self.left {
            Some(left) if self.bytes > 0 => since.saturating_mul(left) / self.bytes,
            _ => u64::MAX,
        };
        // Within what a u32 holds.
        (since / 8).min(rest / 2).clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS) as u32
    }

    fn say(self, details: &Details) -> String {
        let peers = details.peers.len().to_string();
        if !self.info {
            return ["looking for somebody who has the bag; ", &peers, " peers"].concat();
        }
        let (bytes, all) = (self.bytes.to_string(), details.size.to_string());
        ["fetched ", &bytes, " of ", &all, " bytes from ", &peers, " peers"].concat()
    }

    fn why(self, details: &Details, seconds: u32) -> String {
        let seconds = seconds.to_string();
        if !self.info {
            return ["nobody was found who has the bag, in ", &seconds, " s"].concat();
        }
        let (bytes, all) = (self.bytes.to_string(), details.size.to_string());
        ["the bag came to ", &bytes, " of ", &all, " bytes, and no further in ", &seconds, " s"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_slept_through() {
        let progress = |bytes, left| Progress { info: true, header: true, bytes, left };
        assert_eq!(Progress::default().wait(0), 50, "at first");
        assert_eq!(Progress::default().wait(1600), 200, "while nothing is known");
        assert_eq!(progress(100, Some(1_000_000)).wait(60_000), 1000, "far from the end");
        assert_eq!(progress(900, Some(100)).wait(9_000), 500, "a second before it");
        assert_eq!(progress(1000, Some(0)).wait(9_000), 50, "at it");
        assert_eq!(progress(1, Some(u64::MAX)).wait(u64::MAX), 1000, "what a daemon may say");
    }
}
