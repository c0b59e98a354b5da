//! The options of a host and of a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::backend::Backend;
use crate::snapshot::Progress;
use crate::types::{Platform, SnapshotId};

/// The parts of a host that the embedding program provides beside the configuration.
#[derive(Clone, Default)]
pub struct HostOptions {
    /// The clock and the random numbers of the host and everything below it; the operating system's unless given.
    pub platform: Platform,
    /// Backends of the embedding program, by the names that the configuration gives them: each serves in place of the
    /// adapter that is configured, below the same layers. Simulations pass their models here.
    pub backends: BTreeMap<String, Arc<dyn Backend>>,
}

/// What a store takes as the base of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreBase {
    /// What it finds, where the route's encoding is `pages`: the snapshot that has the name, else one of the recent ones that has many
    /// pages in common. It is taken if that pays.
    Auto,
    /// Nothing: the image is stored as one without a base.
    None,
    /// This snapshot, as [`Host::update`](crate::Host::update) does.
    Snapshot(SnapshotId),
}

/// How to store.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// The route; the default one if there is none here.
    pub route: Option<String>,
    /// A name for people, by which the snapshot can be found. A snapshot can have several; one that another snapshot has is
    /// taken from it.
    pub name: Option<String>,
    /// Store the bytes unchanged, so that other programs can use the object: no copy in
    /// another encoding counts.
    pub raw: bool,
    /// What a store may take as the base, if it is not named: a file is looked at as by [`StoreBase::Auto`], and a stream is stored
    /// as it comes, since it would have to be written to the data directory first. Updates have their base.
    pub base: Option<StoreBase>,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
    /// Becomes `true` once a backend may be changed. Until then a store has only read and waited.
    pub begun: Option<Arc<AtomicBool>>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::backend::testing::MemoryBackend;
    use crate::config::Config;
    use crate::snapshot::{FileSource, Source};
    use crate::types::{Clock, Entropy, Result};
    use crate::{Host, NoSecrets};

    /// A clock that stands still, and random numbers that count.
    struct Still(Instant, AtomicU64);

    impl Still {
        fn new() -> Self {
            Self(Instant::now(), AtomicU64::new(0))
        }
    }

    impl Clock for Still {
        fn now(&self) -> Instant {
            self.0
        }

        fn time_of_day(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
        }
    }

    impl Entropy for Still {
        fn fill(&self, bytes: &mut [u8]) -> Result<()> {
            let number = self.1.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            bytes.iter_mut().zip(number.iter().cycle()).for_each(|(byte, random)| *byte = *random);
            Ok(())
        }
    }

    async fn objects_of_a_run() -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryBackend::new("local"));
        let options = HostOptions {
            platform: Platform::new(Still::new(), Still::new()),
            backends: [("local".to_owned(), memory.clone() as Arc<dyn Backend>)].into(),
        };
        let config = Config::embedded_default(dir.path().join("data"));
        let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
        let image = || {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &[7; 5000]).unwrap();
            Source::File(FileSource::new(file, "image").unwrap())
        };
        let stored = host.store(image(), StoreOptions::default()).await.unwrap();
        assert_eq!((stored.seconds, stored.stored_bytes), (0.0, 5000));
        assert_eq!(host.stat(stored.id).await.unwrap().created, 1_000_000_000);
        let back = host.retrieve(stored.id, None).await.unwrap().body.collect(5000).await.unwrap();
        assert_eq!(back, vec![7; 5000]);
        let again = host.store(image(), StoreOptions::default()).await.unwrap();
        assert_eq!(again.stored_bytes, 0, "it is there already");
        assert!(host.adapters().is_empty());
        assert_eq!(host.rollback("local").await.unwrap_err().kind().name(), "unsupported");
        memory.objects()
    }

    #[tokio::test]
    async fn a_host_runs_on_models_and_every_run_is_the_same() {
        let objects = objects_of_a_run().await;
        assert!(
            objects.len() == 2 && objects.iter().any(|name| name.starts_with("tidelock-container-")),
            "{objects:?}"
        );
        assert_eq!(objects_of_a_run().await, objects);
    }

    #[tokio::test]
    async fn a_backend_that_is_not_configured_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let backends = [("other".to_owned(), Arc::new(MemoryBackend::new("other")) as Arc<dyn Backend>)].into();
        let options = HostOptions { backends, ..HostOptions::default() };
        let config = Config::embedded_default(dir.path());
        let error = Host::start_with(&config, Arc::new(NoSecrets), options).await.err().unwrap();
        assert!(error.to_string().contains("no backend `other`"), "{error}");
    }
}
