//! Hostile guests and hostile servers. Each attacks one thing, and each must end with an error that names the limit or
//! cause, while a well-behaved backend of the same host keeps storing and reading (`arena`).
//!
//! The attacks are a table: a backend's configuration, the operation, and the expected error. They
//! run one at a time, so that the latency of the well-behaved backend can be reported for each; it is printed, never
//! asserted. Nothing here measures speed: timeouts against hanging are far above every limit.
//!
//! | module | attacks |
//! | --- | --- |
//! | `compute` | processors, memory, tables, instances, stack |
//! | `calls` | host calls: their number, size, handles, headers, log |
//! | `depth` | nesting: taps, components, types, manifests |
//! | `hold` | what the host holds and works for a guest |
//! | `streams` | streams that stall, trickle, lie |
//! | `sync` | the same by a guest of synchronous functions, over bodies that the host holds for it |
//! | `reach` | origins, addresses, headers, files and keys that were not granted |
//! | `names` | names that resolve to forbidden addresses |
//! | `replies` | servers that answer with garbage, floods and silence |
//! | `secrets` | credentials, wherever they could leak |
//! | `host`, `planted` | what the host takes meanwhile; credentials and configuration |
//! | `table` | that the documentation matches all this |

#![recursion_limit = "256"]

mod arena;
mod calls;
mod components;
mod compute;
mod depth;
mod hold;
mod host;
mod names;
mod planted;
mod reach;
mod replies;
mod secrets;
mod server;
mod streams;
mod sync;
mod table;

use std::sync::Arc;

use arena::{Arena, Attack};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let attacks = attacks();
    let names: Vec<String> = attacks.iter().map(|attack| attack.name.to_owned()).collect();
    let arena = Arc::new(std::sync::OnceLock::new());
    let attacks = Arc::new(attacks);
    let mut trials: Vec<Trial> = (0..attacks.len())
        .map(|at| {
            let (arena, attacks) = (arena.clone(), attacks.clone());
            Trial::test(attacks[at].name, move || {
                arena.get_or_init(|| Arena::open(&attacks)).run(&attacks[at]).map_err(Failed::from)
            })
        })
        .collect();
    trials.push(Trial::test("secrets_stay_in_the_host", || secrets::stay_in_the_host().map_err(Failed::from)));
    trials.push(Trial::test("the_table_of_limits_is_true", move || table::is_true(&names).map_err(Failed::from)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(arena) = arena.get() {
        arena.summary();
    }
    conclusion.exit();
}

/// All of them.
fn attacks() -> Vec<Attack> {
    [
        compute::attacks(),
        calls::attacks(),
        depth::attacks(),
        hold::attacks(),
        streams::attacks(),
        sync::attacks(),
        reach::attacks(),
        names::attacks(),
        replies::attacks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
