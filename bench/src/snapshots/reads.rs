//! Pages of an image through the library: `Image::read_at` of 4 KiB at random places, from a folder in the page cache, whose packs are
//! of the profile `random`, and from the hot tier.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tidelock::config::Config;
use tidelock::{Host, NoSecrets, Source, StoreOptions};

use super::ram::{self, Numbers, PAGE};
use super::{Plan, connector};
use crate::stats::Quantiles;

const SEED: u64 = 11;
/// The most reads of each image, and the time in which they are made.
const READS: usize = 20_000;
const TIME: Duration = Duration::from_secs(10);

/// Reads of one image.
#[derive(Debug, Serialize)]
pub struct Reads {
    /// `whole`, or `delta` for one that was stored as a change of it; `hot` if the hot tier has it.
    pub image: &'static str,
    /// How many.
    pub reads: usize,
    /// Through the library.
    pub range_us: Quantiles,
    /// The same reads of the image's file, by the kernel.
    pub file_us: Quantiles,
}

/// Reads an image of half the plan's size, and one with 2 % dirty pages.
pub async fn run(plan: &Plan, note: &dyn Fn(&str)) -> Result<Vec<Reads>> {
    let size = plan.bytes() / 2;
    let dir = plan.folder(size * 6)?;
    let (base, next) = (dir.path().join("base"), dir.path().join("next"));
    ram::write(&base, size, SEED)?;
    fs::copy(&base, &next)?;
    let mut numbers = Numbers::new(SEED + 1);
    let pages = size / PAGE as u64;
    ram::change(&next, &ram::pick(SEED, pages, (pages / 50).max(1), &mut numbers), &mut numbers)?;

    let mut all = Vec::new();
    for (names, hot) in [(["whole", "delta"], ""), (["whole, hot", "delta, hot"], "[hot]\ncapacity = \"1 TiB\"\n")] {
        let own = super::tool::folder(dir.path(), if hot.is_empty() { "cold" } else { "hot" })?;
        // The table of the route is the last one.
        let text = format!("{}profile = \"random\"\n{hot}", connector::config(&own));
        let host = Host::start(&Config::parse(&text, &own)?, &NoSecrets).await?;
        let whole = host.store(Source::open(&base).await?, StoreOptions::default()).await?.id;
        let delta = host.update(whole, Source::open(&next).await?, StoreOptions::default()).await?.id;
        for (name, id, file) in names.into_iter().zip([whole, delta]).zip([&base, &next]).map(|((n, i), f)| (n, i, f)) {
            note(&format!("reading pages: {name}"));
            let image = host.open(id).await?;
            all.push(read(name, &image, file).await?);
        }
    }
    Ok(all)
}

async fn read(name: &'static str, image: &tidelock::Image, path: &Path) -> Result<Reads> {
    let file = File::open(path)?;
    let pages = image.size() / PAGE as u64;
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    let (mut page, mut wanted) = ([0; PAGE], [0; PAGE]);
    let mut numbers = Numbers::new(SEED + 2);
    let began = Instant::now();
    while through.len() < READS && began.elapsed() < TIME {
        let offset = numbers.below(pages) * PAGE as u64;
        let start = Instant::now();
        let read = image.read_at(offset, &mut page).await?;
        through.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        file.read_exact_at(&mut wanted, offset)?;
        direct.push(start.elapsed().as_secs_f64() * 1e6);
        ensure!(read == PAGE && page == wanted, "the page at {offset} is another one");
    }
    Ok(Reads {
        image: name,
        reads: through.len(),
        range_us: Quantiles::of(&through, 1),
        file_us: Quantiles::of(&direct, 1),
    })
}
