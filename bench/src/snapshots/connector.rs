//! The program `tidelock` as a contestant, with a folder as its backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::tool::{self, Added, Tool, Version};
use crate::peak::{Most, peak_of};
use crate::stats::median;

/// Its name in rows.
pub const TIDELOCK: &str = "tidelock";
/// The same with a hot tier, which has the base.
pub const HOT: &str = "tidelock, base hot";

/// The program and its data.
#[derive(Debug)]
pub struct Tidelock {
    name: &'static str,
    program: PathBuf,
    dir: PathBuf,
    /// How often a command is repeated; the median counts.
    rounds: usize,
    ids: BTreeMap<String, String>,
}

/// What `store` and `update` print, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Answer {
    id: String,
}

impl Tidelock {
    /// With empty data below `dir`. A first store compiles the adapter, which does not count.
    pub fn new(program: &Path, dir: &Path, rounds: usize) -> Result<Self> {
        let dir = tool::folder(dir, TIDELOCK)?;
        Self::with(TIDELOCK, program, &config(&dir), dir, rounds)
    }

    /// The same with a hot tier that has room for all that is stored.
    pub fn hot(program: &Path, dir: &Path, rounds: usize) -> Result<Self> {
        let dir = tool::folder(dir, "tidelock-hot")?;
        Self::with(HOT, program, &format!("{}[hot]\ncapacity = \"1 TiB\"\n", config(&dir)), dir, rounds)
    }

    fn with(name: &'static str, program: &Path, config: &str, dir: PathBuf, rounds: usize) -> Result<Self> {
        fs::write(dir.join("tidelock.toml"), config)?;
        let new = Self { name, program: program.to_owned(), dir, rounds: rounds.max(1), ids: BTreeMap::new() };
        let first = new.dir.join("first");
        fs::write(&first, "compiles the adapter")?;
        new.answer(new.command("store").arg(&first))?;
        Ok(new)
    }

    /// The bytes of its objects.
    pub fn stored(&self) -> Result<u64> {
        tool::bytes_in(&self.dir.join("objects"))
    }

    /// The bytes of its catalogue and of what lies beside it.
    pub fn beside(&self) -> Result<u64> {
        tool::bytes_in(&self.dir.join("data"))
    }

    /// The id of a version.
    pub fn id(&self, name: &str) -> Result<&str> {
        self.ids.get(name).map(String::as_str).with_context(|| format!("{name} was not stored"))
    }

    /// Makes the program forget a version.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let id = self.ids.remove(name).with_context(|| format!("{name} was not stored"))?;
        tool::timed(self.command("rm").arg(id)).map(drop)
    }

    /// Stores a version; of the image, `dirty` says which pages may differ from the base.
    pub fn store_dirty(&mut self, version: Version<'_>, dirty: Option<&Path>) -> Result<Added> {
        self.store_rounds(version, dirty, self.rounds)
    }

    /// Stores a version, without repeating it.
    pub fn store_once(&mut self, version: Version<'_>) -> Result<Added> {
        self.store_rounds(version, None, 1)
    }

    fn store_rounds(&mut self, version: Version<'_>, dirty: Option<&Path>, rounds: usize) -> Result<Added> {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for round in 0..rounds {
            if round > 0 {
                self.remove(version.name)?;
            }
            let before = self.stored()?;
            let mut command = self.storing(version)?;
            if let Some(dirty) = dirty {
                command.arg("--dirty").arg(dirty);
            }
            let (id, seconds) = self.answer(&mut command)?;
            self.ids.insert(version.name.to_owned(), id);
            times.push(seconds);
            bytes = self.stored()?.saturating_sub(before);
        }
        Ok(Added { bytes, seconds: median(&times) })
    }

    /// Stores a version once. Returns the most memory that the process had.
    pub(crate) fn store_watched(&mut self, version: Version<'_>) -> Result<Most> {
        let mut command = self.storing(version)?;
        let printed = self.dir.join("printed");
        let child = command.stdin(Stdio::null()).stdout(fs::File::create(&printed)?).spawn()?;
        let peak = peak_of(child)?;
        let answer: Answer = serde_json::from_str(&fs::read_to_string(printed)?)?;
        self.ids.insert(version.name.to_owned(), answer.id);
        Ok(peak)
    }

    /// Restores a version once. Returns the most memory that the process had.
    pub(crate) fn restore_watched(&self, name: &str, output: &Path) -> Result<Most> {
        let mut command = self.restoring(name, output)?;
        peak_of(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
    }

    /// Restores a version once. Returns how long it took, in seconds.
    pub fn restore_once(&self, name: &str, output: &Path) -> Result<f64> {
        let mut command = self.restoring(name, output)?;
        Ok(tool::timed(&mut command)?.1)
    }

    fn storing(&self, version: Version<'_>) -> Result<Command> {
        let mut command = match version.base {
            None => self.command("store"),
            Some((base, _)) => {
                let mut command = self.command("update");
                command.arg(self.id(base)?);
                command
            }
        };
        command.arg(version.image);
        Ok(command)
    }

    fn restoring(&self, name: &str, output: &Path) -> Result<Command> {
        let mut command = self.command("retrieve");
        command.arg(self.id(name)?).arg("-o").arg(output);
        Ok(command)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.dir.join("tidelock.toml")).args(["--json", "--quiet", name]);
        command
    }

    fn answer(&self, command: &mut Command) -> Result<(String, f64)> {
        let (printed, seconds) = tool::timed(command)?;
        let answer: Answer = serde_json::from_str(&printed).with_context(|| format!("tidelock said {printed}"))?;
        Ok((answer.id, seconds))
    }
}

impl Tool for Tidelock {
    fn name(&self) -> &'static str {
        self.name
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        self.store_dirty(version, None)
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let output = into.join("image");
        let mut times = Vec::new();
        for _ in 0..self.rounds {
            let _ = fs::remove_file(&output);
            times.push(self.restore_once(version.name, &output)?);
        }
        Ok((output, median(&times)))
    }
}

/// A configuration with one backend, a folder.
pub fn config(dir: &Path) -> String {
    format!(
        "data_dir = {:?}\n[backends.local]\nadapter = \"fs\"\n\
         grants.directory.objects = {{ path = {:?} }}\n[routes.default]\nbackends = [\"local\"]\nencoding = \"pages\"\n",
        dir.join("data"),
        dir.join("objects")
    )
}
