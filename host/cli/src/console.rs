//! Standard error: progress on a terminal, and logs that do not garble it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use tidelock::snapshot::Progress;

/// Stderr. Cheap to clone.
#[derive(Clone)]
pub(super) struct Console {
    bars: MultiProgress,
    visible: bool,
    quiet: bool,
}

impl Console {
    /// Progress is drawn only on a terminal, and not if the user wants it quiet.
    pub(super) fn new(quiet: bool) -> Self {
        let visible = io::stderr().is_terminal() && !quiet;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), visible, quiet }
    }

    /// Prints a note that is neither an answer nor a failure, unless `--quiet` is set.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            // An error on stderr cannot be reported anywhere.
            let _ = self.clone().write_all(format!("{text}\n").as_bytes());
        }
    }

    /// Shows that the command is waiting, with the time so far. [`Bar::say`] adds a text.
    pub(super) fn waiting(&self, what: String) -> Bar {
        if !self.visible {
            return Bar(None);
        }
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, waiting for {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar(Some(bar))
    }

    /// Sends the logs of this process to stderr. `RUST_LOG` decides which; otherwise `verbosity` does: -1 for errors, 0
    /// for warnings, and more from there on.
    pub(super) fn log(&self, verbosity: i8) {
        let wanted = match verbosity {
            ..0 => "error",
            0 => "error,tidelock=warn",
            1 => "warn,tidelock=info",
            2 => "info,tidelock=debug",
            3.. => "debug,tidelock=trace",
        };
        let said = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
        let (filter, refused) = match said.map(EnvFilter::try_new) {
            Some(Ok(filter)) => (filter, None),
            Some(Err(error)) => (EnvFilter::new(wanted), Some(error)),
            None => (EnvFilter::new(wanted), None),
        };
        let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(self.clone()).with_ansi(ansi);
        // An embedding program may have its own subscriber; ours is only a fallback.
        let _ = match verbosity {
            ..=0 => logs.without_time().with_target(false).compact().try_init(),
            _ => logs.compact().try_init(),
        };
        if let Some(error) = refused {
            tracing::warn!("RUST_LOG is ignored: {error}");
        }
    }

    /// Shows progress in bytes, with the total if it is known.
    pub(super) fn bar(&self, what: &'static str, total: Option<u64>) -> Bar {
        if !self.visible {
            return Bar(None);
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg} {bar:28} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            ),
            None => (ProgressBar::no_length(), "{msg} {spinner} {bytes}  {bytes_per_sec}"),
        };
        let bar = self.bars.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(Some(bar))
    }
}

/// A line that shows progress until it is dropped; or nothing.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Moves it on by some bytes.
    pub(super) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// Sets the number of bytes done.
    pub(super) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// Sets the text.
    pub(super) fn say(&self, what: String) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
        }
    }

    /// Returns the progress callback for the library.
    pub(super) fn progress(&self) -> Option<Progress> {
        let bar = self.0.clone()?;
        let most = AtomicU64::new(0);
        Some(Arc::new(move |done| bar.set_position(most.fetch_max(done, Ordering::Relaxed).max(done))))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Write for Console {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
