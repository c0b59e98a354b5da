//! One image, and one delta from it: memory with few to many dirty pages, and a disk on which files were changed.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use xtask::image::{self, Tools};

use super::connector::Tidelock;
use super::peers::Programs;
use super::ram::{self, Numbers, PAGE};
use super::{Contest, Plan, Row, Version, attempt, first, report};
use crate::{GIB, stats};

/// The case of a whole image like memory.
pub const WHOLE: &str = "memory, whole";
/// What rows call the least that an update can do.
pub const COMPARISON: &str = "page comparison, BLAKE3";

/// Seed of the base.
const SEED: u64 = 1;
/// Of 1,000 pages, how many are dirty.
pub const DIRTY: [u64; 4] = [5, 20, 100, 300];

/// The case of a delta with so many of 1,000 pages dirty.
pub fn case(of_1000: u64) -> String {
    format!("memory, {} % dirty", of_1000 as f64 / 10.0)
}

/// Images like memory.
pub fn memory(plan: &Plan, programs: &Programs, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let size = plan.bytes();
    let dir = plan.folder(size * 10)?;
    let (base, next) = (dir.path().join("base"), dir.path().join("next"));
    note(&format!("making an image of {} MiB", plan.mib));
    ram::write(&base, size, SEED)?;
    let mut contest = Contest::new(plan, programs, dir.path(), plan.rounds, note)?;
    let mut rows = contest.hold(WHOLE, first("base", &base), true)?;
    let mut hot = Tidelock::hot(&plan.program, dir.path(), plan.rounds)?;
    hot.store_once(first("base", &base))?;
    for of_1000 in DIRTY {
        let pages = size / PAGE as u64;
        let mut numbers = Numbers::new(SEED + of_1000);
        let dirty = ram::pick(SEED, pages, (pages * of_1000 / 1000).max(1), &mut numbers);
        fs::copy(&base, &next)?;
        ram::change(&next, &dirty, &mut numbers)?;
        let name = format!("dirty-{of_1000}");
        let version = Version { name: &name, image: &next, base: Some(("base", &base)) };
        rows.extend(contest.hold(&case(of_1000), version, true)?);
        let row = attempt(&case(of_1000), &mut hot, version, true, dir.path())?;
        note(&report::line(&row));
        rows.push(row);
        hot.remove(&name)?;
        let mut times = Vec::new();
        for _ in 0..plan.rounds.max(1) {
            times.push(compare(&base, &next)?);
        }
        rows.push(Row::new(&case(of_1000), COMPARISON).timed(size, stats::median(&times)));
    }
    Ok(rows)
}

/// A disk before and after files are changed.
pub fn ext4(plan: &Plan, programs: &Programs, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let tools = match Tools::ensure() {
        Ok(tools) => tools,
        Err(why) => return Ok(vec![Row::new("ext4, files changed", "all").missing(format!("{why:#}"))]),
    };
    let dir = plan.folder(9 * GIB)?;
    let [tree, base, next] = ["tree", "base", "next"].map(|name| dir.path().join(name));
    let scratch = super::tool::folder(dir.path(), "scratch")?;
    note("making an ext4 image of 1 GiB with files of this machine");
    let (files, _) = image::gather(&tree)?;
    tools.make(&tree, &base)?;
    fs::remove_dir_all(&tree)?;
    fs::copy(&base, &next)?;
    let program = std::env::current_exe().context("this program has no path")?;
    tools.change(&next, &scratch, &files, &program)?;
    note(&format!("{} MiB of its pages changed", image::changed_pages(&base, &next)? / crate::MIB));
    let mut contest = Contest::new(plan, programs, dir.path(), 1, note)?;
    let mut rows = contest.hold("ext4, whole", first("base", &base), false)?;
    let version = Version { name: "changed", image: &next, base: Some(("base", &base)) };
    rows.extend(contest.hold("ext4, files changed", version, true)?);
    Ok(rows)
}

/// The least that finds out what an update has to store: both images are compared page by page on all processors, and each
/// dirty page is hashed. Returns the seconds that it took.
fn compare(base: &Path, next: &Path) -> Result<f64> {
    const CHUNK: usize = 1 << 20;
    let size = next.metadata()?.len();
    let at = AtomicU64::new(0);
    let work = || -> Result<u64> {
        let (base, next) = (File::open(base)?, File::open(next)?);
        let (mut old, mut new) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut dirty = 0;
        loop {
            let start = at.fetch_add(CHUNK as u64, Ordering::Relaxed);
            if start >= size {
                return Ok(dirty);
            }
            let len = (size - start).min(CHUNK as u64) as usize;
            base.read_exact_at(&mut old[..len], start)?;
            next.read_exact_at(&mut new[..len], start)?;
            for (_, page) in old[..len].chunks(PAGE).zip(new[..len].chunks(PAGE)).filter(|(old, new)| old != new) {
                std::hint::black_box(blake3::hash(page));
                dirty += 1;
            }
        }
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow!("comparing pages failed"))?.map(|dirty| {
                std::hint::black_box(dirty);
            })
        })
    })?;
    Ok(began.elapsed().as_secs_f64())
}
