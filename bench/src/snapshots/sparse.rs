//! Large images with holes, of which a hypervisor says which pages are dirty: the cost shall follow the dirty pages, and not
//! the image.

use std::fs;

use anyhow::{Result, ensure};
use xtask::image::difference;

use super::connector::{TIDELOCK, Tidelock};
use super::ram::{self, Numbers, PAGE, Sparse};
use super::{Plan, Row, Version, first, report};
use crate::GIB;

const SEED: u64 = 5;
/// Sizes of images with the same data.
pub const SIZES: [u64; 2] = [2, 16];

/// The case of an image of so many GiB, with what is dirty.
pub fn case(gib: u64) -> String {
    format!("{gib} GiB sparse, --dirty")
}

/// Measures. 31 % of the data is dirty: at 512 MiB of data, 160 MiB, which is 1 % of 16 GiB.
pub fn run(plan: &Plan, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let data = plan.bytes().min(GIB);
    let mut rows = Vec::new();
    for gib in SIZES {
        let dir = plan.folder(data * 8)?;
        let [image, back, bits] = ["image", "back", "dirty"].map(|name| dir.path().join(name));
        let sparse = Sparse { len: gib * GIB, data };
        note(&format!("making a sparse image of {gib} GiB with {} MiB of data", data / crate::MIB));
        sparse.write(&image, SEED)?;
        let mut tidelock = Tidelock::new(&plan.program, dir.path(), plan.rounds)?;
        // Changed in place, so the base is stored once.
        let mut add = |row: Row| {
            note(&report::line(&row));
            rows.push(row);
        };
        let added = tidelock.store_once(first("base", &image))?;
        add(Row::new(&format!("{gib} GiB sparse, whole"), TIDELOCK).stored(sparse.len, added));
        let mut numbers = Numbers::new(SEED + 1);
        let pages = data / PAGE as u64;
        let dirty = ram::pick(SEED, pages, (pages * 5 / 16).max(1), &mut numbers);
        let dirty: Vec<u64> = dirty.into_iter().map(|number| sparse.page(number)).collect();
        ram::change(&image, &dirty, &mut numbers)?;
        fs::write(&bits, ram::bitmap(&dirty, sparse.len))?;

        let version = Version { name: "dirty", image: &image, base: Some(("base", &image)) };
        let added = tidelock.store_dirty(version, Some(&bits))?;
        let id = tidelock.id("dirty")?.to_owned();
        let seconds = tidelock.restore_once("dirty", &back)?;
        ensure!(difference(&image, &back)?.is_none(), "what was restored differs");
        add(Row::new(&case(gib), TIDELOCK).stored(sparse.len, added).restored(sparse.len, seconds));
        tidelock.remove("dirty")?;
        let added = tidelock.store_dirty(version, None)?;
        ensure!(tidelock.id("dirty")? == id, "the ids with --dirty and without differ");
        add(Row::new(&format!("{gib} GiB sparse, all compared"), TIDELOCK).stored(sparse.len, added));
    }
    Ok(rows)
}
