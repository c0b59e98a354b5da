//! Clearing away what was cut short: temporary files, unfinished uploads, objects of stores that never ended, removals
//! that were interrupted. Never touches what a living host, here or in another process, still needs: a host that was killed
//! on this machine is known to be dead at once, any other one when its lease has expired (`owner.rs`).

use std::time::Duration;

use super::Host;
use super::owner::StaleIntent;
use super::report::GcReport;
use crate::catalogue::PlacementState;
use crate::types::Result;

/// Objects that are listed at once.
const PAGE: u32 = 1000;

impl Host {
    /// Clears away leftovers. Uploads to a bucket count as left over when they are older than `older_than`: an upload
    /// carries no sign of life, unlike a temporary file.
    ///
    /// # Errors
    /// Errors of a backend. Leftovers removed by then stay removed.
    pub async fn gc(&self, older_than: Duration) -> Result<GcReport> {
        let mut removed = GcReport::default();
        for name in self.inner.backends.keys() {
            let capabilities = &self.backend(name).await?.capabilities;
            removed.leftovers +=
                capabilities.gc(older_than).await.map_err(|error| error.on_backend(name).during("gc"))?;
        }
        self.finish_removals(&mut removed).await?;
        let stale = self.inner.owner.stale_intents().await?;
        for backend in self.inner.backends.keys() {
            let intents: Vec<_> = stale.iter().filter(|stale| stale.intent.backend == *backend).collect();
            if !intents.is_empty() {
                self.remove_orphans(backend, &intents, &mut removed).await?;
            }
        }
        Ok(removed)
    }

    async fn finish_removals(&self, removed: &mut GcReport) -> Result<()> {
        for placement in self.inner.catalogue.placements_in(PlacementState::Removing).await? {
            if self.inner.backends.contains_key(&placement.backend) {
                removed.removals += u64::from(self.delete_object(&placement.backend, &placement.object).await?);
            }
        }
        Ok(())
    }

    /// Removes objects that interrupted stores may have completed without a record. Their names contain
    /// the keys of the intents. An adapter that cannot list keeps its intents, for one that can.
    async fn remove_orphans(&self, backend: &str, intents: &[&StaleIntent], removed: &mut GcReport) -> Result<()> {
        let objects = &self.backend(backend).await?.objects;
        if !objects.info().inventory {
            tracing::info!(backend, "the adapter cannot list objects, so orphans cannot be found");
            return Ok(());
        }
        let mut cursor = None;
        loop {
            let page = objects.list(cursor, PAGE).await?;
            for entry in page.entries {
                let ours = intents.iter().any(|stale| entry.id.as_str().contains(&stale.intent.key));
                if ours {
                    removed.objects += u64::from(self.delete_object(backend, &entry.id).await?);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        // The intent of an owner that stands still stays: its object may come yet, and the next collection looks again.
        for stale in intents.iter().filter(|stale| !stale.owner_may_go_on) {
            self.inner.catalogue.end_intent(&stale.intent.key).await?;
        }
        Ok(())
    }
}
