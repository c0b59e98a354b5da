//! Forgetting a backend that was taken out of the configuration for good.
//!
//! What is recorded on a backend that is not configured counts as no copy anywhere, and stays recorded all the same: the backend
//! may come back. Whoever knows that it does not forgets it, so that its snapshots can be removed. Nothing is deleted on any
//! backend, and an import brings back what is still there.

use super::Host;
use super::relied::Relied;
use crate::catalogue::Forgotten;
use crate::types::{Error, Result};

impl Host {
    /// Forgets all that is recorded of a backend that is not configured, and the snapshots of which nothing is left. Does nothing
    /// if a snapshot would lose its last copy, unless `lose` gives these up: a copy is one that is live on a backend that is
    /// configured and was found to be there.
    ///
    /// # Errors
    /// `invalid` for a backend that is configured; `not-found` if nothing is recorded of it; `conflict` if it is the last to hold
    /// some snapshots, which the message names; errors of the catalogue.
    pub async fn forget(&self, backend: &str, lose: bool) -> Result<Forgotten> {
        if self.inner.backends.contains_key(backend) {
            return Err(Error::invalid(format!("the backend `{backend}` is configured"))
                .hint(format!("take `backends.{backend}` out of the configuration first")));
        }
        let catalogue = &self.inner.catalogue;
        let known = catalogue.container(backend).await?.is_some();
        let (mut looks, mut relied) = (Relied::default(), Vec::new());
        for other in self.configured_names() {
            if looks.is_there(self, &other).await {
                relied.push(other);
            }
        }
        let found = catalogue.forget_backend(backend, relied, lose).await?;
        match found.done {
            true if !known && found.placements == 0 => {
                let what = format!("nothing is recorded of a backend `{backend}`");
                Err(Error::not_found(what).hint("`tidelock stat ID` shows the backends of a snapshot"))
            }
            true => Ok(found),
            false => Err(last_copies(backend, &found)),
        }
    }
}

fn last_copies(backend: &str, found: &Forgotten) -> Error {
    const SHOWN: usize = 10;
    let called = |(id, name): &(crate::types::SnapshotId, Option<String>)| match name {
        Some(name) => format!("`{name}`"),
        None => id.to_string(),
    };
    let mut shown: Vec<String> = found.last_copies.iter().take(SHOWN).map(called).collect();
    if found.last > SHOWN as u64 {
        shown.push(format!("and {} more", found.last - SHOWN as u64));
    }
    let snapshots = if found.last == 1 { "snapshot" } else { "snapshots" };
    Error::conflict(format!(
        "`{backend}` has the last copy of {} {snapshots}, as far as the other backends answer: {}",
        found.last,
        shown.join(", ")
    ))
    .hint("store these images again, or give --lose-snapshots to forget them too")
}
