//! What signals do to a command: it is dropped, cleans up, and ends.

use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use tidelock::types::Error;

/// How long after a signal the process ends at the latest, whatever it waits for: a call that cannot be interrupted, as the
/// opening of a named pipe or a file of a server that is away, keeps a command from being dropped.
const LATEST: Duration = Duration::from_secs(5);

/// Makes a write beyond the limit of file sizes (`ulimit -f`) fail with an error, rather than end the process. Needs a
/// runtime.
pub(super) fn survive_file_size_limit() {
    // A handler is in place from here on; no receiver is needed. Without one, the process ends as it would have.
    let _ = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
}

/// Waits for a signal to end the process, and returns its number. A terminal that is closed is one, unless the process
/// was started so that it outlives it (`nohup`).
pub(super) fn interruption() -> Result<impl Future<Output = u8>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Error::io("cannot handle signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = if is_ignored(Signal::HUP) { None } else { Some(listen(SignalKind::hangup())?) };
    let (tell, told) = tokio::sync::oneshot::channel();
    // On a thread of its own: the one that runs the command may be waiting for the system.
    tokio::spawn(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hung_up => SignalKind::hangup(),
        };
        let number = kind.as_raw_value() as u8;
        if tell.send(number).is_ok() {
            tokio::time::sleep(LATEST).await;
            std::process::exit(Failure::Interrupted(number).status().into());
        }
    });
    Ok(async move {
        match told.await {
            Ok(number) => number,
            Err(_) => std::future::pending().await,
        }
    })
}

/// Returns whether the process was started with a signal ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}
