//! The common start of all commands: the configuration and the global options.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::arguments::Global;
use super::console::Console;
use super::credentials::Credentials;
use super::failure::Failure;
use tidelock::Host;
use tidelock::config::{Config, DEFAULT_DATA_DIR};
use tidelock::types::Error;

/// The configuration that is used if it is there and no other is named.
pub(super) const DEFAULT_FILE: &str = "tidelock.toml";

/// The largest configuration file. One with a thousand backends has a tenth of this.
const LARGEST_FILE: u64 = 1 << 20;

/// One run of the program.
pub(super) struct Session {
    /// Whether the answer is a JSON object.
    pub(super) json: bool,
    /// Stderr.
    pub(super) console: Console,
    config: Option<PathBuf>,
}

impl Session {
    /// From the global options.
    pub(super) fn new(global: Global, console: Console) -> Self {
        Self { json: global.json, console, config: global.config }
    }

    /// The configuration file that was named, or the one that is looked for.
    pub(super) fn config_file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// The configuration.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let file = self.config_file();
        let shown = file.display();
        let here = std::env::current_dir().map_err(|error| Error::io("the current directory", error))?;
        let text = match read_bounded(file) {
            Ok(bytes) if bytes.len() as u64 > LARGEST_FILE => {
                let error = Error::invalid(format!("{shown} has more than 1 MiB and cannot be a configuration"));
                return Err(error.hint("name a configuration file with --config").into());
            }
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{shown} is not valid UTF-8")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => {
                return Ok(Config::embedded_default(here.join(DEFAULT_DATA_DIR)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let hint = format!("create one with `tidelock init --config {shown}`");
                return Err(Failure::input(Error::io(shown, error).hint(hint)));
            }
            Err(error) => return Err(Failure::input(Error::io(shown, error))),
        };
        let directory = here.join(file.parent().unwrap_or(Path::new("")));
        Config::parse(&text, &directory).map_err(|error| {
            let named = Error::new(error.kind().clone(), format!("{shown}: {}", error.message()));
            match error.advice() {
                Some(hint) => named.hint(hint),
                None => named,
            }
            .into()
        })
    }

    /// Opens the host, for a command about an existing snapshot: fails in a directory without a store, rather than
    /// creating an empty one and finding nothing in it.
    pub(super) async fn open_existing(&self) -> Result<Host, Failure> {
        if self.is_nowhere()? {
            return Err(Error::not_found(nowhere()).hint(ELSEWHERE).into());
        }
        self.open().await
    }

    /// Opens the host, for a command about all that is stored: in a directory without a store that is nothing, and none is begun.
    /// The directory that is returned then has to be kept as long as the host.
    pub(super) async fn open_any(&self) -> Result<(Host, Option<TempDir>), Failure> {
        if !self.is_nowhere()? {
            return Ok((self.open().await?, None));
        }
        tracing::warn!("{}; {ELSEWHERE}", nowhere());
        let empty = tempfile::tempdir().map_err(|error| Error::io("a temporary directory", error))?;
        let config = Config::embedded_default(empty.path().join(DEFAULT_DATA_DIR));
        Ok((start(&config).await?, Some(empty)))
    }

    /// Returns whether there is no store in the current directory, and none is named.
    fn is_nowhere(&self) -> Result<bool, Failure> {
        let nowhere = |path: &str| !Path::new(path).exists();
        // Of a directory that is gone that says more.
        std::env::current_dir().map_err(|error| Error::io("the current directory", error))?;
        Ok(self.config.is_none() && nowhere(DEFAULT_FILE) && nowhere(DEFAULT_DATA_DIR))
    }

    /// Opens the host of this configuration. Backends are opened on demand, so that a command needs no more credentials
    /// than it uses.
    pub(super) async fn open(&self) -> Result<Host, Failure> {
        let host = self.open_to_import().await?;
        let held = host.held_before().await?;
        if !held.is_empty() {
            tracing::warn!(
                "the catalogue is new, and there are objects of a store on {}: if it is not meant to be new, see that the disk of \
                 `data_dir` is mounted; {} records what is there",
                held.join(", "),
                imports(&held)
            );
        }
        let mut unknown = host.not_looked_through().await?;
        unknown.retain(|backend| !held.contains(backend));
        if !unknown.is_empty() {
            tracing::warn!(
                "the catalogue may not know all that is on {}: objects of snapshots that are removed stay there until {} has run",
                unknown.join(", "),
                imports(&unknown)
            );
        }
        Ok(host)
    }

    /// The same, without a word on what is to be imported.
    pub(super) async fn open_to_import(&self) -> Result<Host, Failure> {
        start(&self.config()?).await
    }
}

async fn start(config: &Config) -> Result<Host, Failure> {
    Ok(Host::start_lazily(config, Arc::new(Credentials::of_process())).await?)
}

/// What to do where nothing is stored.
const ELSEWHERE: &str = "change to the directory of the snapshots, or name its configuration with --config";

fn nowhere() -> String {
    format!("nothing is stored here: there is neither {DEFAULT_FILE} nor {DEFAULT_DATA_DIR}")
}

/// The commands that record what is on backends.
fn imports(backends: &[String]) -> String {
    backends.iter().map(|backend| format!("`tidelock import {backend}`")).collect::<Vec<_>>().join(", ")
}

/// The bytes of a file, and at most one more than a configuration may have.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
