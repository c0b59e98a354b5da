//! A container that is replaced while a host lives: what was acknowledged is in the one that is recorded.

use std::sync::Arc;

use tidelock::backend::Backend;
use tidelock::backend::testing::MemoryBackend;
use tidelock::config::Config;
use tidelock::types::ObjectId;
use tidelock::{ErrorKind, Host, HostOptions, NoSecrets};
use tidelock_tests::data::noise;

use crate::support::{read, store};

#[tokio::test]
async fn a_container_that_is_replaced_under_a_living_host_takes_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryBackend::new("local"));
    let backends = [("local".to_owned(), memory.clone() as Arc<dyn Backend>)].into();
    let options = HostOptions { backends, ..HostOptions::default() };
    let config = Config::embedded_default(dir.path().join("data"));
    let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
    let first = store(&host, &noise(5000, 1)).await.unwrap();
    let identity = memory.objects().into_iter().find(|name| name.contains("container")).expect("an identity");
    // However soon after the last look.
    store(&host, &noise(5500, 3)).await.unwrap();
    memory.delete(&ObjectId::new(identity.as_str()).unwrap()).await.unwrap();
    let error = store(&host, &noise(6000, 2)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(host.list(None, 10).await.unwrap().snapshots.len(), 2);
    assert_eq!(read(&host, first.id).await.unwrap(), noise(5000, 1));
}
