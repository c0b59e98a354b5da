//! The cases: what every adapter owes its host, whatever it keeps objects on.
//!
//! | module | asks |
//! | --- | --- |
//! | `sizes` | whether what was stored comes back, of any length |
//! | `ranges` | whether parts come back |
//! | `names` | what becomes of ids that are gone, unknown or malformed |
//! | `many` | whether operations at once disturb each other |
//! | `broken` | what a store leaves that was cut short |
//! | `lineage` | whether a backend alone tells what it holds |
//! | `manners` | whether an adapter is what it says that it is |
//! | `hosts` | whether snapshots live on it, and damage is noticed |
//! | `outages` | what happens while the server is gone |
//! | `faults` | what happens while the network or the server is bad |
//! | `cold` | states of cold storage |

mod broken;
mod cold;
mod faults;
mod hosts;
mod lineage;
mod manners;
mod many;
mod names;
mod outages;
mod ranges;
mod sizes;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::bench::Ground;
use crate::place::{Entry, Need};

/// One case. It fails by panicking, as tests do.
#[derive(Clone)]
pub struct Case {
    /// The last part of its name.
    pub name: String,
    /// What it cannot do without.
    pub needs: Vec<Need>,
    /// What it does.
    pub run: Arc<dyn Fn(Arc<Ground>) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Case {
    /// A case.
    pub fn new<F>(
        name: impl Into<String>,
        needs: &[Need],
        run: impl Fn(Arc<Ground>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name: name.into(), needs: needs.to_vec(), run: Arc::new(move |ground| run(ground).boxed()) }
    }

    /// Why an adapter leaves it out, if it does.
    pub fn left_out(&self, entry: &Entry) -> Option<&'static str> {
        let missing = self.needs.iter().find(|need| !entry.has.contains(need));
        (entry.lacks)(&self.name).or(missing.map(|need| need.without()))
    }
}

/// Cases that are functions, and what they need: `cases![[Ranges] a, b; [] c;]`.
macro_rules! cases {
    ($($needs:tt $($name:ident),+;)+) => {
        [$({
            #[allow(unused_imports, reason = "some need nothing")]
            use $crate::place::Need::*;
            let needs: &[$crate::place::Need] = &$needs;
            vec![$($crate::cases::Case::new(stringify!($name), needs, $name)),+]
        }),+]
        .concat()
    };
}
pub(crate) use cases;

/// All cases of all adapters.
pub fn all() -> Vec<Case> {
    [
        sizes::cases(),
        ranges::cases(),
        names::cases(),
        many::cases(),
        broken::cases(),
        lineage::cases(),
        manners::cases(),
        hosts::cases(),
        faults::cases(),
        outages::cases(),
        cold::cases(),
    ]
    .concat()
}
