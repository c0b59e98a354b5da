//! One suite for every adapter: the guarantees to a host hold on each of them, against a real server, or it fails here.
//!
//! A test is an adapter and a case, `fs::size_0`. The cases are the same for all ([`cases`]); the storage of an adapter
//! is a [`place`], one file each in `places/`. `cargo xtask conformance` runs this program and prints a row for
//! each test; `docs/conformance.md` explains how to add an adapter.
//!
//! A case that does not apply to an adapter is left out, with the reason, and is never counted as passed. A
//! case whose server is not available on this machine is skipped, and with `TIDELOCK_NO_SKIPS=1` that fails.
//!
//! Random choices follow from a seed, which is printed; `TIDELOCK_SEED` sets it.

mod bench;
mod cases;
mod place;
mod places;
mod report;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, OnceLock, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use bench::Ground;
use cases::Case;
use place::{Entry, Need, Started};

/// Gives the seed.
const SEED: &str = "TIDELOCK_SEED";

/// A guard against hanging, far above what any case takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// What takes longer is worth a look, since the suite is to stay quick.
const LONG: Duration = Duration::from_secs(10);

/// Cases at once, unless the caller says. More than there are processors, since many wait for what does not come.
const AT_ONCE: usize = 4;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// An adapter with its place, which is started by the first case that needs it.
struct Adapter {
    entry: Arc<Entry>,
    place: OnceLock<Result<Started, String>>,
    /// Held for writing by a case that needs the server for itself.
    alone: RwLock<()>,
}

impl Adapter {
    fn place(&self) -> &Result<Started, String> {
        self.place.get_or_init(|| {
            let started = std::panic::catch_unwind(AssertUnwindSafe(|| (self.entry.start)()));
            let started = started.map_err(|panic| report::reason(&*panic))?;
            if let Ok(place) = &started {
                place.servers().iter().for_each(report::server);
            }
            Ok(started)
        })
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(fresh_seed);
    if !arguments.list {
        eprintln!("conformance: {SEED}={seed} repeats what the dice decide");
    }
    // `fs::` is a part of `nfs::`, and who writes it means the adapter.
    let only = arguments.filter.as_deref().and_then(|filter| filter.split_once("::")).map(|(name, _)| name.to_owned());
    let trials = trials(seed, only.as_deref(), arguments.list);
    let conclusion = libtest_mimic::run(&arguments, trials);
    bench::clear();
    conclusion.exit();
}

fn fresh_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

/// Case by case rather than adapter by adapter, so that those that wait for one server have others beside them.
fn trials(seed: u64, only: Option<&str>, listing: bool) -> Vec<Trial> {
    let mut entries = places::all();
    if entries.iter().any(|entry| only == Some(&entry.name)) {
        entries.retain(|entry| only == Some(&entry.name));
    }
    let adapters: Vec<Arc<Adapter>> = entries
        .into_iter()
        .map(|entry| Adapter { entry: Arc::new(entry), place: OnceLock::new(), alone: RwLock::new(()) })
        .map(Arc::new)
        .collect();
    let shared =
        cases::all().into_iter().flat_map(|case| adapters.iter().map(move |adapter| (adapter.clone(), case.clone())));
    let own = adapters.iter().flat_map(|adapter| (adapter.entry.own)().into_iter().map(|case| (adapter.clone(), case)));
    let mut trials = Vec::new();
    for (adapter, case) in shared.chain(own) {
        if let Some(why) = case.left_out(&adapter.entry) {
            if !listing {
                report::left_out(&adapter.entry.name, &case.name, why);
            }
            continue;
        }
        let name = format!("{}::{}", adapter.entry.name, case.name);
        trials.push(Trial::test(name, move || perform(&adapter, &case, seed)));
    }
    trials
}

/// Runs one case and notes what came of it.
fn perform(adapter: &Adapter, case: &Case, seed: u64) -> Result<(), Failed> {
    let name = &adapter.entry.name;
    let place = match adapter.place() {
        Ok(Ok(place)) => place.clone(),
        Ok(Err(why)) => {
            report::row(name, &case.name, "skipped", Some(why));
            xtask::skip::skip(&format!("conformance {name}::{}", case.name), why);
            return Ok(());
        }
        Err(why) => {
            report::row(name, &case.name, "failed", Some(why));
            return Err(why.into());
        }
    };
    let alone = case.needs.contains(&Need::Alone);
    let _alone = alone.then(|| adapter.alone.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    let _beside = (!alone).then(|| adapter.alone.read().unwrap_or_else(std::sync::PoisonError::into_inner));
    let ground = Arc::new(Ground::new(adapter.entry.clone(), place, &case.name, seed));
    let work = AssertUnwindSafe((case.run)(ground));
    let began = Instant::now();
    let ended =
        RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, futures::FutureExt::catch_unwind(work)).await });
    if began.elapsed() > LONG {
        eprintln!("conformance: {name}::{} took {:.0} s", case.name, began.elapsed().as_secs_f32());
    }
    match ended {
        Ok(Ok(())) => {
            report::row(name, &case.name, "passed", None);
            Ok(())
        }
        Ok(Err(panic)) => {
            let why = report::reason(&*panic);
            report::row(name, &case.name, "failed", Some(&why));
            Err(format!("{why}\n{SEED}={seed} repeats it").into())
        }
        Err(_) => {
            report::row(name, &case.name, "failed", Some("it hangs"));
            Err(format!("it hangs; {SEED}={seed} repeats it").into())
        }
    }
}
