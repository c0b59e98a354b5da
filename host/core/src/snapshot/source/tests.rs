//! Reading real files, pipes and streams.

mod written;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::identity::Identifier;
use super::super::segment::{SEGMENT, ZERO_SEGMENT, segment_digest};
use super::super::testing::{drain, pattern};
use super::*;

fn expected(bytes: &[u8]) -> Identity {
    let mut identifier = Identifier::new();
    identifier.update(bytes);
    identifier.finish()
}

fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn counter() -> (Arc<AtomicU64>, Option<Progress>) {
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let progress: Progress = Arc::new(move |done| {
        seen.fetch_max(done, Ordering::Relaxed);
    });
    (most, Some(progress))
}

#[tokio::test]
async fn a_file_is_read_and_identified() {
    for len in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 4 * SEGMENT + 77] {
        let bytes = pattern(len);
        let file = file_with(&bytes);
        let (done, progress) = counter();
        let source = Source::open(file.path()).await.unwrap();
        assert_eq!(source.size(), Some(len as u64));
        let (body, reading) = source.read(progress);
        assert_eq!(body.remaining(), Some(len as u64));
        let (all, error) = drain(body).await;
        assert!(error.is_none() && all == bytes, "{len} {error:?}");
        assert_eq!(reading.identity().await.unwrap(), expected(&bytes));
        assert_eq!(done.load(Ordering::Relaxed), len as u64);
        let (done, progress) = counter();
        assert_eq!(identify_file(file.path(), progress).await.unwrap(), expected(&bytes));
        assert_eq!(done.load(Ordering::Relaxed), len as u64);
    }
}

#[tokio::test]
async fn a_file_can_be_read_again() {
    let bytes = pattern(SEGMENT + 1);
    let file = file_with(&bytes);
    let source = FileSource::new(File::open(file.path()).unwrap(), file.path()).unwrap();
    for _ in 0..2 {
        assert_eq!(drain(source.read(None).0).await.0, bytes);
    }
}

/// A reader that knows the size may stop before the end is announced: it has the identity all the same.
#[tokio::test]
async fn the_identity_is_there_with_the_last_byte() {
    let bytes = pattern(SEGMENT + 1);
    let file = file_with(&bytes);
    let (mut body, reading) = Source::open(file.path()).await.unwrap().read(None);
    while body.remaining() != Some(0) {
        body.next().await.unwrap().unwrap();
    }
    assert_eq!(reading.identity().await.unwrap(), expected(&bytes));
}

#[tokio::test]
async fn holes_read_as_zeros() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(5 * SEGMENT as u64 + 12_345).unwrap();
    // One page within a segment, one across two, and holes before, between and after.
    file.as_file().write_all_at(&pattern(4096), SEGMENT as u64 + 8192).unwrap();
    file.as_file().write_all_at(&pattern(8192), 4 * SEGMENT as u64 - 4096).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let (body, reading) = Source::open(file.path()).await.unwrap().read(None);
    assert_eq!(drain(body).await.0, bytes);
    assert_eq!(reading.identity().await.unwrap(), expected(&bytes));
    assert_eq!(identify_file(file.path(), None).await.unwrap(), expected(&bytes));
}

/// Reading 1 TiB would take minutes; the test only checks the result.
#[tokio::test]
async fn a_sparse_giant_is_identified_by_its_data() {
    let size: u64 = (1 << 40) + 3;
    let file = tempfile::NamedTempFile::new().unwrap();
    if let Err(error) = file.as_file().set_len(size) {
        eprintln!("SKIPPED: this file system does not hold a sparse file of 1 TiB: {error}");
        return;
    }
    let at = 777 * SEGMENT as u64 + 4096;
    file.as_file().write_all_at(b"data", at).unwrap();
    let mut digests = vec![ZERO_SEGMENT; (1 << 40) / SEGMENT];
    let mut touched = vec![0; SEGMENT];
    touched[4096..4100].copy_from_slice(b"data");
    digests[777] = segment_digest(&touched);
    digests.push(segment_digest(&[0; 3]));
    let (done, progress) = counter();
    let identity = identify_file(file.path(), progress).await.unwrap();
    assert_eq!(identity, identity_of(size, digests));
    assert_eq!(done.load(Ordering::Relaxed), size);
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let kind_of = |error: Error| (error.kind().name(), error.to_string());
    let (kind, text) = kind_of(Source::open(directory.path().join("absent")).await.err().unwrap());
    assert_eq!(kind, "not-found");
    assert!(text.ends_with("/absent: no such file or directory"), "{text}");
    let (kind, text) = kind_of(Source::open(directory.path()).await.err().unwrap());
    assert_eq!(kind, "invalid");
    assert!(text.ends_with(" is a directory"), "{text}");
    let path = directory.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(Source::open(&path).await.is_err());
}

#[tokio::test]
async fn a_change_while_reading_is_a_conflict() {
    type Change = fn(&File);
    let changes: [(&str, Change); 3] = [
        ("it was written to", |file| file.write_all_at(b"x", 5).unwrap()),
        ("it had 8388608 bytes and has 8388609", |file| file.set_len(4 * SEGMENT as u64 + 1).unwrap()),
        ("it ends at byte", |file| file.set_len(3 * SEGMENT as u64 - 10).unwrap()),
    ];
    for (why, change) in changes {
        let file = file_with(&pattern(4 * SEGMENT));
        // Time stamps of some file systems are coarse.
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        file.as_file().set_modified(old).unwrap();
        let (mut body, reading) = Source::open(file.path()).await.unwrap().read(None);
        let first = body.next().await.unwrap().unwrap();
        change(file.as_file());
        let (rest, error) = drain(body).await;
        let error = error.expect(why);
        assert_eq!(error.kind().name(), "conflict");
        assert!(error.to_string().contains("changed while it was being read"), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(first.len() + rest.len() < 4 * SEGMENT, "all bytes passed before the verdict");
        assert_eq!(reading.identity().await.unwrap_err().kind().name(), "conflict");
    }
}

/// What backup programs and hypervisors do to the images of others.
#[tokio::test]
async fn what_touches_no_byte_is_no_change() {
    use std::os::unix::fs::PermissionsExt;
    type Touch = fn(&std::path::Path);
    let touches: [Touch; 4] = [
        |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap(),
        |path| std::fs::hard_link(path, path.with_extension("link")).unwrap(),
        |path| std::fs::rename(path, path.with_extension("renamed")).unwrap(),
        |path| {
            let times = std::fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
            File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        },
    ];
    for touch in touches {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, pattern(3 * SEGMENT)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (mut body, reading) = Source::open(&path).await.unwrap().read(None);
        let first = body.next().await.unwrap().unwrap();
        touch(&path);
        let (rest, error) = drain(body).await;
        assert!(error.is_none() && first.len() + rest.len() == 3 * SEGMENT, "{error:?}");
        assert_eq!(reading.identity().await.unwrap(), expected(&pattern(3 * SEGMENT)));
    }
}

/// Also if something else that was done to the file could explain that its change time moved.
#[tokio::test]
async fn a_write_whose_time_was_set_back_is_seen() {
    use std::os::unix::fs::PermissionsExt;
    type Touch = fn(&std::path::Path);
    let touches: [Touch; 3] = [
        |_| (),
        |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap(),
        |path| std::fs::hard_link(path, path.with_extension("link")).unwrap(),
    ];
    for touch in touches {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, pattern(4 * SEGMENT)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        file.set_modified(old).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let write = || {
            file.write_all_at(b"x", 5).unwrap();
            file.set_modified(old).unwrap();
            touch(&path);
        };
        let source = FileSource::new(File::open(&path).unwrap(), &path).unwrap();
        let (mut body, reading) = source.read(None);
        body.next().await.unwrap().unwrap();
        write();
        let (_, error) = drain(body).await;
        assert!(error.unwrap().to_string().contains("it was written to"));
        assert_eq!(reading.identity().await.unwrap_err().kind().name(), "conflict");
        // What the file is now is an image, for as long as nobody writes again.
        assert_eq!(source.identify(None).await.unwrap(), expected(&std::fs::read(&path).unwrap()));
        assert!(drain(source.read(None).0).await.1.is_none());
    }
}

/// A file system whose times are of whole seconds, as those of ext4 with small inodes; `None` where nobody may mount.
struct Coarse(tempfile::TempDir);

impl Coarse {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let script =
            "truncate -s 32M disk && mkfs.ext4 -q -O ^has_journal -I 128 disk && mkdir m && mount -o loop disk m";
        let run = std::process::Command::new("sh").args(["-c", script]).current_dir(&directory).output();
        run.is_ok_and(|run| run.status.success()).then_some(Self(directory))
    }
}

impl Drop for Coarse {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path().join("m")).status();
    }
}

/// In the tick in which it was written before, and opened.
#[tokio::test]
async fn a_write_that_leaves_the_times_as_they_were_is_seen() {
    let Some(mounted) = Coarse::mount() else {
        return eprintln!("SKIPPED: nobody may mount here");
    };
    let path = mounted.0.path().join("m/image");
    std::fs::write(&path, pattern(4 * SEGMENT)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let times = || {
        let meta = std::fs::metadata(&path).unwrap();
        (meta.modified().unwrap(), std::os::unix::fs::MetadataExt::ctime_nsec(&meta))
    };
    let mut unseen = 0;
    for round in 0..20u8 {
        file.write_all_at(&[round], 5).unwrap();
        let before = times();
        let source = FileSource::new(File::open(&path).unwrap(), &path).unwrap();
        let (mut body, reading) = source.read(None);
        body.next().await.unwrap().unwrap();
        file.write_all_at(&[round, round], 7).unwrap();
        unseen += u8::from(times() == before);
        let (_, error) = drain(body).await;
        assert!(error.unwrap().to_string().contains("it was written to"));
        assert!(reading.identity().await.is_err());
        // As it is now, it is an image.
        assert_eq!(
            source.identify(None).await.ok(),
            (times() == before).then(|| expected(&std::fs::read(&path).unwrap()))
        );
    }
    assert!(unseen > 0, "no two writes were within one second");
    // One who cannot read twice waits until a write would show.
    let settled = FileSource::settled(File::open(&path).unwrap(), &path).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    settled.check_untouched().unwrap_err();
}

#[tokio::test]
async fn a_file_of_the_kernel_is_read_to_its_end() {
    let path = "/proc/version";
    let source = Source::open(path).await.unwrap();
    assert_eq!(source.size(), None);
    assert_eq!(source.identify(None).await.unwrap(), expected(&std::fs::read(path).unwrap()));
    // Its size is given as 4096.
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    if let Ok(bytes) = std::fs::read(path) {
        assert_eq!(identify_file(path, None).await.unwrap(), expected(&bytes));
    }
}

#[tokio::test]
async fn a_stream_of_nothing_is_an_image_only_where_it_is_allowed() {
    let stream = || StreamSource::new(&b""[..], "standard input");
    let (body, reading) = stream().read(None);
    let error = drain(body).await.1.unwrap();
    assert_eq!((error.kind().name(), error.message()), ("invalid", "standard input has no bytes"));
    assert!(reading.identity().await.is_err());
    assert_eq!(Source::Stream(stream()).checked(false).await.err().unwrap().kind().name(), "invalid");
    for source in [stream().allow_empty(), stream().of_size(0)] {
        assert_eq!(drain(source.read(None).0).await.1.map(|error| error.to_string()), None);
    }
    // A stream that was looked at loses nothing, also where a segment ends with it.
    for len in [1, SEGMENT, 2 * SEGMENT, SEGMENT + 1] {
        let bytes = pattern(len);
        let stream = StreamSource::new(std::io::Cursor::new(bytes.clone()), "test");
        let (all, error) = drain(Source::Stream(stream).checked(false).await.unwrap().read(None).0).await;
        assert!(error.is_none() && all == bytes, "{len}: {error:?}");
    }
    Source::open("/dev/null").await.unwrap().checked(false).await.err().unwrap();
}

#[tokio::test]
async fn a_pipe_is_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let bytes = pattern(2 * SEGMENT + 3);
    let writer = std::thread::spawn({
        let (path, bytes) = (path.clone(), bytes.clone());
        move || std::fs::write(path, bytes).unwrap()
    });
    let source = Source::open(&path).await.unwrap();
    assert_eq!(source.size(), None);
    let (body, reading) = source.read(None);
    let (all, error) = drain(body).await;
    writer.join().unwrap();
    assert!(error.is_none() && all == bytes);
    assert_eq!(reading.identity().await.unwrap(), expected(&bytes));
}

#[tokio::test]
async fn a_stream_of_any_length_is_identified() {
    for len in [0, 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT] {
        let bytes = pattern(len);
        let (mut writer, reader) = tokio::io::duplex(10_000);
        let sent = bytes.clone();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut writer, &sent).await });
        let (done, progress) = counter();
        let identity = Source::Stream(StreamSource::new(reader, "a test")).identify(progress).await.unwrap();
        assert_eq!(identity, expected(&bytes));
        assert_eq!(done.load(Ordering::Relaxed), len as u64);
    }
}

#[tokio::test]
async fn a_failing_stream_fails_the_body_and_the_identity() {
    let failing = zeros_and_an_error(SEGMENT + 10);
    let (body, reading) = StreamSource::new(failing, "standard input").read(None);
    let (all, error) = drain(body).await;
    assert_eq!(all.len(), SEGMENT);
    assert_eq!(error.unwrap().to_string(), "reading standard input: broken");
    assert!(reading.identity().await.is_err());
}

/// Yields zeros and then an error.
fn zeros_and_an_error(len: usize) -> impl AsyncRead + Send + Unpin + 'static {
    struct Failing;
    impl AsyncRead for Failing {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("broken")))
        }
    }
    tokio::io::repeat(0).take(len as u64).chain(Failing)
}

#[tokio::test]
async fn a_body_that_is_dropped_has_no_identity() {
    let file = file_with(&pattern(3 * SEGMENT));
    let (mut body, reading) = Source::open(file.path()).await.unwrap().read(None);
    body.next().await.unwrap().unwrap();
    drop(body);
    assert_eq!(reading.identity().await.unwrap_err().kind().name(), "cancelled");
}

#[tokio::test]
async fn a_stream_that_ends_before_its_announced_size_fails() {
    for (len, announced) in [(0, 1), (SEGMENT, SEGMENT + 1), (2 * SEGMENT - 1, 2 * SEGMENT), (5, 7)] {
        let stream = StreamSource::new(std::io::Cursor::new(pattern(len)), "test").of_size(announced as u64);
        let source = Source::Stream(stream);
        assert_eq!(source.size(), Some(announced as u64));
        let (all, error) = drain(source.read(None).0).await;
        assert!(error.is_some(), "{len} of {announced}");
        assert_eq!(all.len(), len);
    }
    let stream = StreamSource::new(std::io::Cursor::new(pattern(SEGMENT + 1)), "test").of_size(SEGMENT as u64 + 1);
    let (body, reading) = Source::Stream(stream).read(None);
    let (all, error) = drain(body).await;
    assert!(error.is_none() && all == pattern(SEGMENT + 1), "{error:?}");
    assert_eq!(reading.identity().await.unwrap(), expected(&all));
}
