//! Persistence of adapters: the swap log in the catalogue, components in `data_dir/adapters`.
//!
//! The order is: make the component durable → add the row, in a transaction of its own → make sure that the component is
//! still there. A crash leaves a file that no row needs, never a row without its file. Files that no row needs are removed
//! when a new one has come. How that goes beside other processes is in `component_files.rs`.
//!
//! Stored components are checked like any component when they are loaded: against the digest in the swap log, and for
//! the signatures that the configuration requires.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::component_files::ComponentFiles;
use crate::catalogue::{Catalogue, SwapRow};
use crate::runtime::{Component, Event, History, HistoryRow, ROWS, Stage, SwapLog};
use crate::types::{Error, ErrorKind, Platform, Result, blocking};

/// The swap log of one data directory.
pub(super) struct CatalogueSwapLog {
    catalogue: Arc<dyn Catalogue>,
    files: ComponentFiles,
}

impl CatalogueSwapLog {
    /// One whose folder is made when the first component is kept.
    pub(super) fn new(catalogue: Arc<dyn Catalogue>, dir: PathBuf, platform: Platform) -> Self {
        Self { catalogue, files: ComponentFiles::new(dir, platform) }
    }

    async fn append(&self, backend: &str, row: HistoryRow, component: Option<Component>) -> Result<HistoryRow> {
        let Some(component) = component else {
            // It may be one that another process is about to find unneeded.
            let (files, digest) = (self.files.clone(), row.digest.clone());
            blocking(move || files.touch(&digest)).await?;
            return from_catalogue(self.catalogue.add_swap(backend, to_catalogue(row), ROWS).await?);
        };
        if component.digest().to_string() != row.digest {
            return Err(Error::other(format!("the component is {}, its row says {}", component.digest(), row.digest)));
        }
        let component = Arc::new(component);
        let (files, kept) = (self.files.clone(), component.clone());
        let fresh = blocking(move || files.keep(&kept)).await?;
        let row = self.catalogue.add_swap(backend, to_catalogue(row), ROWS).await?;
        let files = self.files.clone();
        let kept = blocking(move || if files.is_kept(&component) { Ok(false) } else { files.keep(&component) }).await;
        if let Err(error) = kept {
            // The row is there and cannot be taken back: the component serves until the next start, which will say so.
            tracing::error!(backend, %error, "the component that serves now is not on disk any more");
        }
        if fresh && let Err(error) = self.sweep().await {
            tracing::warn!(%error, "cannot remove unused components");
        }
        from_catalogue(row)
    }

    /// Removes the files that no history needs.
    async fn sweep(&self) -> Result<()> {
        let (files, needed) = (self.files.clone(), self.needed().await?);
        let aside = blocking(move || files.set_aside(&needed)).await?;
        if !aside.is_empty() {
            let (files, needed) = (self.files.clone(), self.needed().await?);
            blocking(move || files.settle(aside, &needed)).await?;
        }
        Ok(())
    }

    /// The names of the files that the histories of all backends need.
    async fn needed(&self) -> Result<BTreeSet<String>> {
        let mut histories = BTreeMap::<String, History>::new();
        for (backend, row) in self.catalogue.all_swaps().await? {
            histories.entry(backend).or_default().add(from_catalogue(row)?);
        }
        let mut needed = BTreeSet::new();
        for digest in histories.values().flat_map(History::needed) {
            needed.extend(self.files.names(digest)?);
        }
        Ok(needed)
    }
}

impl SwapLog for CatalogueSwapLog {
    fn past<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<HistoryRow>>> {
        Box::pin(async { self.catalogue.swaps(backend).await?.into_iter().map(from_catalogue).collect() })
    }

    fn add<'a>(
        &'a self,
        backend: &'a str,
        row: HistoryRow,
        component: Option<Component>,
    ) -> BoxFuture<'a, Result<HistoryRow>> {
        Box::pin(async move {
            let configured = (row.event == Event::Configured).then(|| row.clone());
            match (self.append(backend, row, component).await, configured) {
                // It serves because the configuration names it, now and after the next start: the row is for
                // information. Where nothing can be written, readers must not need it.
                (Err(error), Some(row)) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable) => {
                    tracing::debug!(backend, %error, "the start is missing in the swap log");
                    Ok(row)
                }
                (outcome, _) => outcome,
            }
        })
    }

    fn component<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Component>> {
        Box::pin(self.files.read(digest))
    }
}

fn to_catalogue(row: HistoryRow) -> SwapRow {
    SwapRow {
        event: row.event.name().to_owned(),
        generation: row.generation,
        digest: row.digest,
        adapter: row.adapter,
        version: row.version,
        at: row.since,
        by: row.by,
        previous: row.from,
        stage: row.stage.map(|stage| stage.name().to_owned()),
        why: row.why,
        configured: row.configured,
    }
}

fn from_catalogue(row: SwapRow) -> Result<HistoryRow> {
    let event = Event::from_name(&row.event).ok_or_else(|| {
        Error::unsupported(format!("the swap log has an unknown event `{}`", row.event))
            .hint("use a newer version of tidelock, which wrote it, or configure another `data_dir`")
    })?;
    Ok(HistoryRow {
        event,
        generation: row.generation,
        digest: row.digest,
        adapter: row.adapter,
        version: row.version,
        since: row.at,
        by: row.by,
        from: row.previous,
        stage: row.stage.as_deref().and_then(Stage::from_name),
        why: row.why,
        configured: row.configured,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::catalogue::SqliteCatalogue;
    use crate::runtime::KEPT;

    fn component(number: u8) -> (String, Component) {
        let component = Component::from(vec![number; 100]);
        (component.digest().to_string(), component)
    }

    fn row(digest: &str, event: Event) -> HistoryRow {
        HistoryRow {
            event,
            generation: Some(0),
            digest: digest.to_owned(),
            adapter: "x".into(),
            version: "1".into(),
            since: 1,
            by: "a test".into(),
            from: None,
            stage: None,
            why: None,
            configured: digest.to_owned(),
        }
    }

    async fn fresh() -> (tempfile::TempDir, CatalogueSwapLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path()).await;
        (dir, log)
    }

    async fn open(dir: &Path) -> CatalogueSwapLog {
        let catalogue = SqliteCatalogue::open(dir.join("c.sqlite"), Platform::system()).await.unwrap();
        CatalogueSwapLog::new(Arc::new(catalogue), dir.join("adapters"), Platform::system())
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(dir.join("adapters")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Two hours pass for what is there.
    fn age(dir: &Path) {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        for file in files(dir) {
            std::fs::File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
        }
    }

    #[tokio::test]
    async fn components_stay_as_long_as_a_history_needs_them() {
        let (dir, log) = fresh().await;
        let others = component(200);
        log.add("other", row(&others.0, Event::Configured), Some(others.1)).await.unwrap();
        for number in 0..20 {
            let (digest, component) = component(number);
            let written = log.add("b", row(&digest, Event::Swap), Some(component)).await.unwrap();
            assert_eq!(written.generation, Some(u64::from(number) + 1));
        }
        assert_eq!(files(dir.path()).len(), 21, "what is young stays");
        age(dir.path());
        let (last, newest) = component(20);
        log.add("b", row(&last, Event::Swap), Some(newest)).await.unwrap();
        let there = async |number| log.component(&component(number).0).await;
        for number in 20 - KEPT as u8..=20 {
            assert_eq!(there(number).await.unwrap().bytes, [number; 100]);
        }
        assert_eq!(there(200).await.unwrap().bytes, [200; 100], "another backend's");
        let gone = there(19 - KEPT as u8).await.unwrap_err();
        assert_eq!(*gone.kind(), crate::types::ErrorKind::NotFound);
        assert_eq!(files(dir.path()).len(), KEPT + 2);
    }

    #[tokio::test]
    async fn signatures_are_kept_and_damage_is_repaired() {
        let (dir, log) = fresh().await;
        let (digest, mut signed) = component(1);
        signed.signatures = vec![crate::runtime::SecretKey::generate().unwrap().sign(signed.digest())];
        log.add("b", row(&digest, Event::Swap), Some(signed.clone())).await.unwrap();
        assert_eq!(log.component(&digest).await.unwrap().signatures, signed.signatures);
        let [_, name] = log.files.names(&digest).unwrap();
        std::fs::write(dir.path().join("adapters").join(name), b"damaged").unwrap();
        log.add("b", row(&digest, Event::Swap), Some(signed.clone())).await.unwrap();
        assert_eq!(log.component(&digest).await.unwrap().bytes, signed.bytes);
    }

    #[test]
    fn only_digests_are_file_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = ComponentFiles::new(dir.path().into(), Platform::system());
        for text in ["", "sha256:", "sha256:../../../etc/passwd", "sha256:zz", &format!("sha256:{}", "/".repeat(64))] {
            assert!(files.names(text).is_err(), "{text}");
        }
    }

    /// Every order in which a sweep and an addition of the same component can come, one step of each at a time.
    #[tokio::test]
    async fn a_sweep_beside_an_addition_takes_nothing_that_is_needed() {
        // Where the sweep's three steps come among the four of the addition.
        let orders = (0..=4).flat_map(|a| (a..=4).flat_map(move |b| (b..=4).map(move |c| [a, b, c])));
        for order in orders {
            let (dir, log) = fresh().await;
            let (digest, mut signed) = component(1);
            signed.signatures = vec![crate::runtime::SecretKey::generate().unwrap().sign(signed.digest())];
            // A history needed it once.
            log.files.keep(&signed).unwrap();
            age(dir.path());
            let (mut needed, mut aside) = (BTreeSet::new(), Vec::new());
            for step in 0..=4 {
                for swept in order.iter().enumerate().filter(|(_, at)| **at == step).map(|(swept, _)| swept) {
                    match swept {
                        0 => needed = log.needed().await.unwrap(),
                        1 => aside = log.files.set_aside(&needed).unwrap(),
                        _ => drop(log.files.settle(std::mem::take(&mut aside), &log.needed().await.unwrap()).unwrap()),
                    }
                }
                match step {
                    0 => drop(log.files.keep(&signed).unwrap()),
                    // It stands still for two hours.
                    1 => age(dir.path()),
                    2 => drop(log.catalogue.add_swap("b", to_catalogue(row(&digest, Event::Swap)), 9).await.unwrap()),
                    3 if !log.files.is_kept(&signed) => drop(log.files.keep(&signed).unwrap()),
                    _ => {}
                }
                if step > 2 {
                    let found = open(dir.path()).await.component(&digest).await;
                    assert_eq!(found.unwrap().bytes, signed.bytes, "{order:?} after {step}");
                }
            }
            let found = log.component(&digest).await.unwrap();
            assert_eq!(found.signatures, signed.signatures, "{order:?}");
        }
    }

    /// A sweep that is killed between its steps leaves a component aside: a reader finds it, and the next sweep ends it.
    #[tokio::test]
    async fn files_of_a_killed_sweep_are_found() {
        let (dir, log) = fresh().await;
        let (digest, kept) = component(1);
        log.add("b", row(&digest, Event::Swap), Some(kept.clone())).await.unwrap();
        age(dir.path());
        log.files.set_aside(&BTreeSet::new()).unwrap();
        assert_eq!(files(dir.path()).len(), 1);
        assert_eq!(open(dir.path()).await.component(&digest).await.unwrap().bytes, kept.bytes);
        assert_eq!(files(dir.path()).len(), 2);
        log.sweep().await.unwrap();
        assert_eq!(log.component(&digest).await.unwrap().bytes, kept.bytes);
        assert_eq!(files(dir.path()).len(), 1);
    }
}
