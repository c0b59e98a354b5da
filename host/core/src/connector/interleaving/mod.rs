//! Stores, removals, rebases, collections, verifications, imports and retrieves of two hosts on one catalogue, in every order.
//!
//! A seed makes a few operations, of which some run before the others, and a schedule: at every call of the catalogue and of
//! a backend it says which operation goes on. Operations may be given up on the way, and backends fail, with or without
//! having done what they were asked. Whatever happens:
//!
//! - what was acknowledged and not removed since it was recorded can be retrieved, also while the others run;
//! - no verification finds anything of that bad;
//! - after the end, one collection leaves no object that nothing knows of, no removal, no claim and no intent;
//! - each copy then has what it needs on its own backend, and nothing is kept that nothing needs.
//!
//! A seed that fails is made smaller (fewer operations, fewer changes between them) and printed with its steps.
//! `TIDELOCK_INTERLEAVINGS=FROM..TO`, when this is compiled, runs other seeds.

mod backend;
mod events;
mod images;
mod judge;
mod scheduler;
mod watched;
mod watched_jobs;
mod world;

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::config::PackProfile;
use events::Without;
use world::{Act, Failed, Op, Stage};

/// A run: what is done, and in which order.
#[derive(Debug, Clone)]
struct Script {
    ops: Vec<Op>,
    /// How many of them run one after the other before the others begin.
    before: usize,
    choices: Vec<u8>,
}

/// Small random numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

impl Script {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        // Few images and few routes: what does not meet finds nothing. Most of all where names follow from bytes.
        let contended = random.one_in(2);
        let base = random.one_in(2).then(|| random.index(2));
        let changes = base.is_some();
        let images = match () {
            () if changes => 3,
            () if contended || random.one_in(2) => 1,
            () => 1 + random.index(4),
        };
        let routes = if contended { 1..2 } else { [0..1, 1..2, 0..3][random.index(3)].clone() };
        let before = if contended { 1 + usize::from(changes) } else { random.index(3) + usize::from(changes) };
        let count = before + if contended { 3 } else { 2 + random.index(3) };
        let choice = Choice { images, routes: &routes, contended, base };
        let mut ops: Vec<Op> = (0..count).map(|number| op(&mut random, choice, number < before)).collect();
        if let Some(image) = base {
            ops[0].act = Act::Store { image, name: random.index(3), route: routes.end - 1, stream: false };
        }
        let mut choices = vec![0; 400];
        if random.one_in(2) {
            // Most faults need a few changes at the right places.
            for _ in 0..=random.below(4) {
                choices[random.index(if contended { 30 } else { 60 })] = 1 + random.below(3) as u8;
            }
        } else {
            let stay = 1 + random.below(6);
            choices.fill_with(|| if random.below(stay) > 0 { 0 } else { random.below(5) as u8 });
        }
        Self { ops, before, choices }
    }

    fn beginning_with(self, before: usize) -> Self {
        Self { before, ..self }
    }

    fn run(&self, stage: &Stage, without: Without) -> Result<(), Failed> {
        world::run(stage, &self.ops, self.before, &self.choices, without)
    }

    /// The same with fewer operations and fewer changes, as long as it fails.
    fn shrink(mut self, stage: &Stage, without: Without) -> Self {
        let patience = Instant::now() + Duration::from_secs(15);
        let fails = |script: &Self| Instant::now() < patience && script.run(stage, without).is_err();
        loop {
            let len = self.ops.len();
            for number in (0..len).rev() {
                let mut smaller = self.clone();
                smaller.ops.remove(number);
                smaller.before -= usize::from(number < self.before);
                if fails(&smaller) {
                    self = smaller;
                }
            }
            if self.ops.len() == len {
                break;
            }
        }
        for number in 0..self.ops.len() {
            for simpler in [Op { given_up_after: None, ..self.ops[number] }, Op { fault: None, ..self.ops[number] }] {
                let mut smaller = self.clone();
                smaller.ops[number] = simpler;
                if simpler != self.ops[number] && fails(&smaller) {
                    self = smaller;
                }
            }
        }
        for size in [100, 20, 5, 1] {
            for start in (0..self.choices.len()).step_by(size) {
                let mut smaller = self.clone();
                let end = (start + size).min(smaller.choices.len());
                if smaller.choices[start..end].iter().any(|choice| *choice != 0) {
                    smaller.choices[start..end].fill(0);
                    if fails(&smaller) {
                        self = smaller;
                    }
                }
            }
        }
        while self.choices.last() == Some(&0) {
            self.choices.pop();
        }
        self
    }
}

/// What the operations of a script may be.
#[derive(Clone, Copy)]
struct Choice<'a> {
    images: usize,
    routes: &'a Range<usize>,
    contended: bool,
    /// Some images are stored as changes, most of them of this one.
    base: Option<usize>,
}

fn op(random: &mut Random, choice: Choice<'_>, before: bool) -> Op {
    let Choice { images, routes, contended, base } = choice;
    let mut image = random.index(images);
    let route = routes.start + random.index(routes.len());
    let mut store = Act::Store { image, name: random.index(3), route, stream: random.one_in(3) };
    if let Some(base) = base {
        let of_base = images::CHANGES.iter().position(|(of, within, _)| *of == base && within.is_none());
        let change = of_base.filter(|_| !random.one_in(3)).unwrap_or(random.index(images::CHANGES.len()));
        if before || random.one_in(2) {
            store = Act::Update { change, name: random.index(3), route };
        }
        image = if random.one_in(2) { base } else { images::CHANGES[change].2 };
    }
    let act = match random.below(13) {
        _ if before && (contended || !random.one_in(4)) => store,
        9..=11 if contended => [Act::RemoveId { image }, Act::Gc, store][random.index(3)],
        0..=3 => store,
        4 => Act::RemoveName { name: 1 + random.index(2) },
        5 | 6 => Act::RemoveId { image },
        7 | 8 => Act::Gc,
        9 => Act::Verify { deep: random.one_in(2) },
        10 => Act::Import { backend: random.index(2) },
        11 => Act::Retrieve { image },
        _ => Act::Rebase { image, profile: [PackProfile::Compact, PackProfile::Random][random.index(2)] },
    };
    Op {
        act,
        host: random.index(2),
        given_up_after: random.one_in(10).then(|| random.below(14) as u32),
        fault: random.one_in(8).then(|| (random.index(2), random.one_in(2), random.one_in(2))),
    }
}

/// Runs seeds. Returns the first that fails, as small as it can be made, with what went wrong.
fn search(seeds: Range<u64>, script: impl Fn(u64) -> Script, without: Without) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let stage = Stage::new();
    for seed in seeds {
        let script = script(seed);
        // What fails with every check in place is not found by leaving one out.
        let counts = || without == Without::Nothing || script.run(&stage, Without::Nothing).is_ok();
        if script.run(&stage, without).is_err() && counts() {
            let small = script.shrink(&stage, without);
            let Failed { what, steps } = small.run(&stage, without).err().unwrap_or_default();
            let steps = steps.iter().map(|(task, point)| format!("{task} {point}")).collect::<Vec<_>>();
            return Some(format!(
                "seed {seed}: {what}\n{:#?}, the first {} before the others\n{}",
                small.ops,
                small.before,
                steps.join(", ")
            ));
        }
    }
    None
}

#[test]
fn acknowledged_snapshots_survive_every_order_of_operations() {
    let range = option_env!("TIDELOCK_INTERLEAVINGS").and_then(|text| text.split_once(".."));
    let (from, to) = range.map_or((0, 10_000), |(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
    let half = from + (to - from) / 2;
    let found = std::thread::scope(|scope| {
        let other = scope.spawn(|| search(half..to, Script::of, Without::Nothing));
        search(from..half, Script::of, Without::Nothing).or(other.join().unwrap())
    });
    if let Some(found) = found {
        panic!("{found}");
    }
}

/// The test would not be worth much if it did not notice what it is for: each check that is left out is one that it needs.
#[test]
fn a_check_that_is_left_out_is_noticed() {
    let op = |act, host| Op { act, host, given_up_after: None, fault: None };
    let store = Act::Store { image: 0, name: 0, route: 1, stream: false };
    let remove = Act::RemoveId { image: 0 };
    let update = Act::Update { change: 0, name: 0, route: 1 };
    for (without, others) in [
        (Without::Reliance, [op(remove, 0), op(store, 1), op(Act::Gc, 1)]),
        (Without::Claims, [op(remove, 0), op(Act::Gc, 1), op(store, 1)]),
        (Without::Needs, [op(remove, 0), op(update, 1), op(Act::Gc, 1)]),
        (Without::Versions, [op(Act::Verify { deep: false }, 0), op(remove, 1), op(store, 1)]),
    ] {
        let script = |seed| {
            let ops = [op(store, 0)].into_iter().chain(others).collect();
            Script { ops, ..Script::of(seed) }.beginning_with(1)
        };
        let found = search(0..20_000, script, without).unwrap_or_else(|| panic!("nobody misses {without:?}"));
        println!("{without:?}: {found}");
        assert_eq!(search(0..200, script, Without::Nothing), None);
    }
}
