//! A large image: the most memory that the program has, and restoring the image beside `cp`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Serialize;
use xtask::image::difference;

use super::connector::{HOT, TIDELOCK, Tidelock};
use super::ram::{self, Numbers, PAGE};
use super::{Plan, Row, Version, first, report, tool};
use crate::peak::Most;
use crate::stats::{median, rounded};
use crate::{GIB, MIB};

/// What rows call the peer.
pub const CP: &str = "cp --sparse=always";
/// The same, and then `sync` of the copy: what is retrieved is on the disk when the program ends.
pub const CP_DURABLE: &str = "cp --sparse=always, sync";
const SEED: u64 = 9;

/// The case of an image of so many GiB.
pub fn case(gib: u64) -> String {
    format!("{gib} GiB, retrieved")
}

/// One process.
#[derive(Debug, Serialize)]
pub struct Peak {
    /// The image's size.
    pub gib: u64,
    /// `store`, `update` or `retrieve`, of the base and of the update.
    pub command: &'static str,
    /// The most memory that it had, pages of files that it maps included.
    pub peak_mib: f64,
    /// Of that, what is not of files.
    pub anonymous_mib: f64,
}

/// Measures images of the plan's sizes, with 2 % dirty pages.
pub fn run(plan: &Plan, note: &dyn Fn(&str)) -> Result<(Vec<Row>, Vec<Peak>)> {
    let (mut rows, mut peaks) = (Vec::new(), Vec::new());
    for &gib in &plan.gib {
        let size = gib * GIB;
        let dir = plan.folder(size * 3)?;
        let [image, back] = ["image", "back"].map(|name| dir.path().join(name));
        note(&format!("making an image of {gib} GiB"));
        ram::write(&image, size, SEED)?;
        let mut tidelock = Tidelock::new(&plan.program, dir.path(), 1)?;
        let mut add = |command: &'static str, most: Most| {
            let [peak_mib, anonymous_mib] =
                [most.resident, most.anonymous].map(|bytes| rounded(bytes as f64 / MIB as f64, 1));
            note(&format!("{gib} GiB, {command}: {peak_mib} MiB of memory, {anonymous_mib} without files"));
            peaks.push(Peak { gib, command, peak_mib, anonymous_mib });
        };
        add("store", tidelock.store_watched(first("base", &image))?);
        add("retrieve", tidelock.restore_watched("base", &back)?);
        ensure!(difference(&image, &back)?.is_none(), "what was restored differs");
        tidelock.remove("base")?;
        let mut hot = Tidelock::hot(&plan.program, dir.path(), 1)?;
        hot.store_once(first("base", &image))?;
        add("retrieve, hot", hot.restore_watched("base", &back)?);
        ensure!(difference(&image, &back)?.is_none(), "what was restored of the hot tier differs");
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..plan.rounds.max(1) {
            fs::remove_file(&back)?;
            times[0].push(hot.restore_once("base", &back)?);
            for (durable, times) in [false, true].into_iter().zip(&mut times[1..]) {
                fs::remove_file(&back)?;
                times.push(copy(&image, &back, durable)?);
            }
        }
        hot.remove("base")?;
        fs::remove_dir_all(dir.path().join("tidelock-hot"))?;
        tidelock.store_once(first("base", &image))?;
        let mut own = Vec::new();
        for _ in 0..plan.rounds.max(1) {
            fs::remove_file(&back)?;
            own.push(tidelock.restore_once("base", &back)?);
        }
        fs::remove_file(&back)?;
        let mut numbers = Numbers::new(SEED + 1);
        let pages = size / PAGE as u64;
        ram::change(&image, &ram::pick(SEED, pages, pages / 50, &mut numbers), &mut numbers)?;
        let version = Version { name: "next", image: &image, base: Some(("base", &image)) };
        add("update", tidelock.store_watched(version)?);
        add("retrieve of an update", tidelock.restore_watched("next", &back)?);
        ensure!(difference(&image, &back)?.is_none(), "what was restored of the update differs");
        let [hot, plain, durable] = times;
        for (tool, times) in [(TIDELOCK, own), (HOT, hot), (CP, plain), (CP_DURABLE, durable)] {
            let row = Row::new(&case(gib), tool).restored(size, median(&times));
            note(&report::line(&row));
            rows.push(row);
        }
    }
    Ok((rows, peaks))
}

/// Copies a file as its peers do. Returns how long that took, in seconds.
fn copy(from: &Path, to: &Path, durable: bool) -> Result<f64> {
    let mut cp = Command::new("cp");
    let seconds = tool::timed(cp.args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to))?.1;
    Ok(if durable { seconds + tool::timed(Command::new("sync").arg(to))?.1 } else { seconds })
}
