//! The cases: guarantees of every adapter, for any storage.
//!
//! | module | checks |
//! | --- | --- |
//! | `sizes` | that objects of any length come back |
//! | `ranges` | that ranges come back |
//! | `names` | ids that are gone, unknown or malformed |
//! | `many` | that concurrent operations do not disturb each other |
//! | `broken` | leftovers of interrupted stores |
//! | `lineage` | metadata from the backend alone |
//! | `manners` | that an adapter matches its description |
//! | `hosts` | snapshots on it, and detection of damage |
//! | `outages` | operations while the server is gone |
//! | `faults` | faults of the network and the server |
//! | `cold` | states of cold storage |
//! | `damage` | two copies, one of them damaged: damage × operation |

mod broken;
mod cold;
mod damage;
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
        damage::cases(),
    ]
    .concat()
}
