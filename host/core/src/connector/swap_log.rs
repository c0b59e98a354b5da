//! Persistence of adapters: the swap log in the catalogue, components in `data_dir/adapters`.
//!
//! A component is a file named after its digest, with its signatures beside it. The order: write both under other
//! names and make them durable → in one transaction of the catalogue, rename them into place and add the row. A crash
//! leaves a file without a row, never a row without its file; and since the transaction locks out other processes on the
//! same directory, none of them removes the file as unused. Unused files are removed at the next swap.
//!
//! Stored components are checked like any component when they are loaded: against the digest in the swap log, and for
//! the signatures that the configuration requires.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use tempfile::{NamedTempFile, TempPath};

use crate::catalogue::{Catalogue, SwapRow};
use crate::runtime::{Component, Event, History, HistoryRow, ROWS, Stage, SwapLog, signatures_beside};
use crate::types::{Error, Result, blocking};

/// The swap_log of one data directory.
pub(super) struct CatalogueSwapLog {
    catalogue: Catalogue,
    dir: PathBuf,
}

impl CatalogueSwapLog {
    /// Makes the folder if it is not there. Blocks for a moment.
    pub(super) fn open(catalogue: Catalogue, dir: PathBuf) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| Error::io(format!("the adapter directory {}", dir.display()), error))?;
        Ok(Self { catalogue, dir })
    }

    async fn append(&self, backend: &str, row: HistoryRow, component: Option<Component>) -> Result<HistoryRow> {
        let file = file_of(&self.dir, &row.digest)?;
        let dir = self.dir.clone();
        let written = match component {
            Some(component) => blocking(move || write(&dir, &file, &component)).await?,
            None => Vec::new(),
        };
        let fresh = !written.is_empty();
        let dir = self.dir.clone();
        let settle = move || settle(&dir, written);
        let row = self.catalogue.add_swap(backend, to_catalogue(row), ROWS, settle).await?;
        if fresh {
            let dir = self.dir.clone();
            let swept = self.catalogue.sweep_swaps(move |rows| sweep(&dir, rows)).await;
            if let Err(error) = swept {
                tracing::warn!(%error, "cannot remove unused components");
            }
        }
        from_catalogue(row)
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
        Box::pin(self.append(backend, row, component))
    }

    fn component<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Component>> {
        Box::pin(async { Component::read(&file_of(&self.dir, digest)?).await })
    }
}

/// Where the component of a digest is: the digest is a file name once it is known to be one.
fn file_of(dir: &Path, digest: &str) -> Result<PathBuf> {
    let hex =
        digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| Error::corrupt(format!("the swap log has an invalid digest `{digest}`")))?;
    Ok(dir.join(format!("{hex}.wasm")))
}

/// Writes a component and its signatures under other names, durably; the component last, since the signatures have to be
/// there when it is. Nothing that is there already is written again, except for signatures, of which there may be new ones.
fn write(dir: &Path, file: &Path, component: &Component) -> Result<Vec<(TempPath, PathBuf)>> {
    let durably = |target: PathBuf, bytes: &[u8]| -> Result<(TempPath, PathBuf)> {
        let write = || -> std::io::Result<TempPath> {
            let mut temporary = NamedTempFile::new_in(dir)?;
            temporary.write_all(bytes)?;
            temporary.as_file().sync_all()?;
            Ok(temporary.into_temp_path())
        };
        let path = write().map_err(|error| Error::io(format!("keeping {}", target.display()), error))?;
        Ok((path, target))
    };
    let mut written = Vec::new();
    if !component.signatures.is_empty() {
        let text: String = component.signatures.iter().map(|signature| format!("{signature}\n")).collect();
        let beside = signatures_beside(file);
        if std::fs::read(&beside).ok().as_deref() != Some(text.as_bytes()) {
            written.push(durably(beside, text.as_bytes())?);
        }
    }
    // One that was damaged since is replaced.
    if std::fs::read(file).ok().as_deref() != Some(&component.bytes) {
        written.push(durably(file.to_owned(), &component.bytes)?);
    }
    Ok(written)
}

fn settle(dir: &Path, written: Vec<(TempPath, PathBuf)>) -> Result<()> {
    if written.is_empty() {
        return Ok(());
    }
    for (temporary, target) in written {
        temporary.persist(&target).map_err(|error| Error::io(format!("keeping {}", target.display()), error.error))?;
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Error::io(format!("making {} durable", dir.display()), error))
}

/// Removes the files that no history needs. Gives how many.
fn sweep(dir: &Path, rows: Vec<(String, SwapRow)>) -> Result<usize> {
    let mut histories = std::collections::BTreeMap::<String, History>::new();
    for (backend, row) in rows {
        histories.entry(backend).or_default().add(from_catalogue(row)?);
    }
    let mut needed = BTreeSet::new();
    for digest in histories.values().flat_map(History::needed) {
        let file = file_of(dir, digest)?;
        needed.insert(signatures_beside(&file));
        needed.insert(file);
    }
    let fail = |error| Error::io(dir.display(), error);
    let mut swept = 0;
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Files under other names are being written, or were left by a crash, depending on their age.
        let ours =
            name.ends_with(".wasm") || name.ends_with(".wasm.sig") || (name.starts_with(".tmp") && is_old(&path));
        if ours && !needed.contains(&path) {
            std::fs::remove_file(&path).map_err(|error| Error::io(path.display(), error))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// No write of a component takes an hour.
fn is_old(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 3600)
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
    use super::*;
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
        let catalogue = Catalogue::open(dir.path().join("c.sqlite")).await.unwrap();
        let kept = CatalogueSwapLog::open(catalogue, dir.path().join("adapters")).unwrap();
        (dir, kept)
    }

    #[tokio::test]
    async fn components_stay_as_long_as_a_history_needs_them() {
        let (_dir, kept) = fresh().await;
        let others = component(200);
        kept.add("other", row(&others.0, Event::Configured), Some(others.1)).await.unwrap();
        for number in 0..20 {
            let (digest, component) = component(number);
            let written = kept.add("b", row(&digest, Event::Swap), Some(component)).await.unwrap();
            assert_eq!(written.generation, Some(u64::from(number) + 1));
        }
        let there = |number| kept.component(Box::leak(component(number).0.into_boxed_str()));
        for number in 20 - 1 - KEPT as u8..20 {
            assert_eq!(there(number).await.unwrap().bytes, [number; 100]);
        }
        assert_eq!(there(200).await.unwrap().bytes, [200; 100], "another backend's");
        let gone = there(20 - 2 - KEPT as u8).await.unwrap_err();
        assert_eq!(*gone.kind(), crate::types::ErrorKind::NotFound);
        assert_eq!(std::fs::read_dir(&kept.dir).unwrap().count(), KEPT + 2);
    }

    #[tokio::test]
    async fn signatures_are_kept_and_damage_is_repaired() {
        let (_dir, kept) = fresh().await;
        let (digest, mut signed) = component(1);
        signed.signatures = vec![crate::runtime::SecretKey::generate().unwrap().sign(signed.digest())];
        kept.add("b", row(&digest, Event::Swap), Some(signed.clone())).await.unwrap();
        assert_eq!(kept.component(&digest).await.unwrap().signatures, signed.signatures);
        std::fs::write(file_of(&kept.dir, &digest).unwrap(), b"damaged").unwrap();
        kept.add("b", row(&digest, Event::Swap), Some(signed.clone())).await.unwrap();
        assert_eq!(kept.component(&digest).await.unwrap().bytes, signed.bytes);
    }

    #[test]
    fn only_digests_are_file_names() {
        for text in ["", "sha256:", "sha256:../../../etc/passwd", "sha256:zz", &format!("sha256:{}", "/".repeat(64))] {
            assert!(file_of(Path::new("/x"), text).is_err(), "{text}");
        }
    }
}
