//! Snapshots beside programs that do the same: `cargo xtask bench snapshots`.
//!
//! Each part makes its own images (`ram.rs`) and measures whole commands, of the program `tidelock` and of its peers
//! (`connector.rs`, `peers.rs`), with files in memory if there is room. What is restored is compared with what was stored,
//! outside of the measured time. `docs/benchmarks.md` has the method and the figures.

pub mod aims;
pub mod catalogue;
pub mod connector;
pub mod deltas;
pub mod files;
pub mod peers;
pub mod ram;
pub mod reads;
pub mod report;
pub mod series;
pub mod sparse;
pub mod tool;
pub mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;
use xtask::image::difference;

use self::connector::{TIDELOCK, Tidelock};
use self::peers::Programs;
use self::tool::{Added, Tool, Version};
use crate::stats::rounded;
use crate::{MIB, place};

/// The parts of the benchmark, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One image, and one delta of each size, by every contestant.
    Deltas,
    /// The same with an ext4 image of 1 GiB before and after files are changed.
    Ext4,
    /// Ten versions in a row, and a chain of 32.
    Series,
    /// What a hypervisor says is dirty, in images of 2 and 16 GiB.
    Sparse,
    /// A large image: the program's memory, and restoring it beside `cp`.
    Whole,
    /// Pages of an image through the library.
    Reads,
    /// Many snapshots.
    Catalogue,
    /// Files that are no memory.
    Files,
}

/// What is to be measured.
#[derive(Debug)]
pub struct Plan {
    /// The parts; all of them if there is none here.
    pub only: Vec<Part>,
    /// The program `tidelock`.
    pub program: PathBuf,
    /// The size of an image like memory, in MiB.
    pub mib: u64,
    /// How often each command of `tidelock` is repeated; the median counts.
    pub rounds: usize,
    /// The sizes of large images, in GiB, smallest first.
    pub gib: Vec<u64>,
    /// How many snapshots a catalogue has, fewest first.
    pub snapshots: Vec<u64>,
    /// Operations on a catalogue of each size.
    pub operations: usize,
    /// Whether files are on the disk even if there is room in memory.
    pub on_disk: bool,
}

impl Plan {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The size of an image like memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.mib * MIB
    }

    /// A folder with room for `need` bytes: in memory, unless the plan or the machine says otherwise.
    pub fn folder(&self, need: u64) -> Result<TempDir> {
        if self.on_disk { place::on_disk() } else { place::fast(need) }
    }
}

/// What one contestant did in one case. What it did not do is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was stored.
    pub case: String,
    /// The contestant.
    pub tool: &'static str,
    /// What its store has more than before.
    pub added_bytes: Option<u64>,
    /// MiB of the image for each second of the command that stores it.
    pub encode: Option<f64>,
    /// MiB of the image for each second of the command that restores it.
    pub restore: Option<f64>,
    /// The duration of the command that stores it.
    pub encode_seconds: Option<f64>,
    /// The duration of the command that restores it.
    pub restore_seconds: Option<f64>,
    /// Of `tidelock`: the growth of its catalogue and what lies beside it, on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside_bytes: Option<u64>,
    /// Why figures are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Row {
    /// A row without figures.
    pub fn new(case: &str, tool: &'static str) -> Self {
        Self {
            case: case.to_owned(),
            tool,
            added_bytes: None,
            encode: None,
            restore: None,
            encode_seconds: None,
            restore_seconds: None,
            beside_bytes: None,
            missing: None,
        }
    }

    /// With what storing an image of `size` bytes took.
    #[must_use]
    pub fn stored(mut self, size: u64, added: Added) -> Self {
        self.added_bytes = Some(added.bytes);
        self.timed(size, added.seconds)
    }

    /// With the time that an image of `size` bytes took.
    #[must_use]
    pub fn timed(mut self, size: u64, seconds: f64) -> Self {
        self.encode = rate(size, seconds);
        self.encode_seconds = Some(rounded(seconds, 4));
        self
    }

    /// With the time that restoring an image of `size` bytes took.
    #[must_use]
    pub fn restored(mut self, size: u64, seconds: f64) -> Self {
        self.restore = rate(size, seconds);
        self.restore_seconds = Some(rounded(seconds, 4));
        self
    }

    /// A row that says why there is nothing in it.
    #[must_use]
    pub fn missing(mut self, why: String) -> Self {
        self.missing = Some(why);
        self
    }
}

/// MiB each second.
fn rate(size: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| rounded(size as f64 / MIB as f64 / seconds, 1))
}

/// Everything that was found. A part that was left out is empty or absent.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// Every contestant in every case.
    pub rows: Vec<Row>,
    /// The program's memory.
    pub peak: Vec<whole::Peak>,
    /// Pages through the library.
    pub reads: Vec<reads::Reads>,
    /// Catalogues, fewest snapshots first.
    pub catalogue: Vec<catalogue::Row>,
    /// Files that are no memory.
    pub files: Vec<files::Row>,
    /// The versions of the peers.
    pub versions: Vec<String>,
}

/// Measures. `note` says what is being done, and each row as it comes.
pub async fn run(plan: Plan, note: &dyn Fn(&str)) -> Result<Found> {
    note("looking for the peers");
    let programs = Programs::ensure();
    let mut found = Found { versions: programs.versions(), ..Found::default() };
    if plan.wants(Part::Deltas) {
        found.rows.extend(deltas::memory(&plan, &programs, note)?);
    }
    if plan.wants(Part::Ext4) {
        found.rows.extend(deltas::ext4(&plan, &programs, note)?);
    }
    if plan.wants(Part::Series) {
        found.rows.extend(series::run(&plan, &programs, note)?);
    }
    if plan.wants(Part::Sparse) {
        found.rows.extend(sparse::run(&plan, note)?);
    }
    if plan.wants(Part::Whole) {
        let (rows, peak) = whole::run(&plan, note)?;
        found.rows.extend(rows);
        found.peak = peak;
    }
    if plan.wants(Part::Reads) {
        found.reads = reads::run(&plan, note).await?;
    }
    if plan.wants(Part::Catalogue) {
        found.catalogue = catalogue::run(&plan, note).await?;
    }
    if plan.wants(Part::Files) {
        found.files = files::run(&plan, &programs, note)?;
    }
    Ok(found)
}

/// The contestants in a part, each with an empty store, and where restored images go.
struct Contest<'a> {
    tidelock: Tidelock,
    peers: Vec<(&'static str, Result<Box<dyn Tool>>)>,
    dir: &'a Path,
    note: &'a dyn Fn(&str),
    turn: usize,
}

impl<'a> Contest<'a> {
    fn new(plan: &Plan, programs: &Programs, dir: &'a Path, rounds: usize, note: &'a dyn Fn(&str)) -> Result<Self> {
        let tidelock = Tidelock::new(&plan.program, dir, rounds)?;
        Ok(Self { tidelock, peers: programs.contestants(dir), dir, note, turn: 0 })
    }

    /// Lets everyone store a version, and restore it if `restores`. A peer that cannot says so in its row; for `tidelock`,
    /// that is an error. Each time, another peer is the first.
    fn hold(&mut self, case: &str, version: Version<'_>, restores: bool) -> Result<Vec<Row>> {
        (self.note)(case);
        let before = self.tidelock.beside()?;
        let mut row = attempt(case, &mut self.tidelock, version, restores, self.dir)?;
        row.beside_bytes = Some(self.tidelock.beside()?.saturating_sub(before));
        (self.note)(&report::line(&row));
        let mut rows = vec![row];
        self.turn += 1;
        let count = self.peers.len();
        for number in 0..count {
            let Some((name, peer)) = self.peers.get_mut((number + self.turn) % count) else { continue };
            let row = match peer {
                Ok(peer) if version.base.is_none() && !peer.stores_whole() => continue,
                Ok(peer) => attempt(case, peer.as_mut(), version, restores, self.dir)
                    .unwrap_or_else(|error| Row::new(case, name).missing(format!("{error:#}"))),
                Err(why) => Row::new(case, name).missing(format!("{why:#}")),
            };
            (self.note)(&report::line(&row));
            rows.push(row);
        }
        Ok(rows)
    }
}

/// Stores a version, and restores and compares it if `restores`. A peer that fails to restore says so in its row.
fn attempt(case: &str, tool: &mut dyn Tool, version: Version<'_>, restores: bool, dir: &Path) -> Result<Row> {
    let size = version.image.metadata()?.len();
    let added = tool.store(version).with_context(|| format!("{case}, {}", tool.name()))?;
    let row = Row::new(case, tool.name()).stored(size, added);
    if !restores {
        return Ok(row);
    }
    match restore(tool, version, dir) {
        Ok(seconds) => Ok(row.restored(size, seconds)),
        Err(why) if tool.name() == TIDELOCK => Err(why),
        // What it stored is known all the same.
        Err(why) => Ok(row.missing(format!("{why:#}"))),
    }
}

/// Restores a version and compares it. Returns how long restoring took.
fn restore(tool: &mut dyn Tool, version: Version<'_>, dir: &Path) -> Result<f64> {
    let into = tool::folder(dir, "restored")?;
    let restored = tool.restore(version, &into).and_then(|(image, seconds)| match difference(version.image, &image)? {
        None => Ok(seconds),
        Some(at) => bail!("what {} restores of {} differs from byte {at} on", tool.name(), version.name),
    });
    fs::remove_dir_all(&into)?;
    restored
}

/// The first version of an image.
fn first<'a>(name: &'a str, image: &'a Path) -> Version<'a> {
    Version { name, image, base: None }
}

/// The row of the connector itself in a case.
pub fn own<'a>(rows: &'a [Row], case: &str) -> Option<&'a Row> {
    of(rows, case, TIDELOCK)
}

/// The row of a contestant in a case.
pub fn of<'a>(rows: &'a [Row], case: &str, tool: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.case == case && row.tool == tool)
}
