//! Copies that turn out to be of other bytes.

use super::*;
use crate::NoSecrets;
use crate::backend::Backend as _;
use crate::backend::testing::MemoryBackend;
use crate::config::Config;
use crate::connector::HostOptions;
use crate::connector::labels::is_identity_name;
use crate::snapshot::FileSource;

fn file(bytes: &[u8]) -> FileSource {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    FileSource::new(file, "image").unwrap()
}

#[tokio::test]
async fn a_copy_of_other_bytes_is_removed_and_its_intent_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryBackend::new("local"));
    let backends = [(memory.name().to_owned(), memory.clone() as Arc<dyn crate::backend::Backend>)].into();
    let options = HostOptions { backends, ..HostOptions::default() };
    let config = Config::embedded_default(dir.path());
    let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
    // Bytes that changed after the first copy without a trace in the times, as those of a device do.
    let before = file(b"before").identify(None).await.unwrap();
    let mut identity = Some(Arc::new(before));
    let source = Source::File(file(b"behind"));
    let copied = host.copy_to("local", source, Change::default(), &StoreOptions::default(), &mut identity).await;
    assert_eq!(*copied.err().unwrap().kind(), ErrorKind::Conflict);
    let images = memory.objects().into_iter().filter(|name| !is_identity_name(name));
    assert_eq!(images.count(), 0);
    let catalogue = rusqlite::Connection::open(dir.path().join("catalogue.sqlite")).unwrap();
    let intents: u64 = catalogue.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).unwrap();
    assert_eq!(intents, 0);
}
