//! What is written, and what of the old file stays.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn written_bytes_are_read_back_for_any_chunks(
        runs in proptest::collection::vec((any::<bool>(), 1usize..200_000), 0..8), chunk in 1usize..150_000,
    ) {
        let mut image = Vec::new();
        for (data, len) in runs {
            image.resize(image.len() + len, u8::from(data));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut sink = Sink::open(Some(&path), 0).unwrap();
        for chunk in image.chunks(chunk) {
            sink.write(chunk).unwrap();
        }
        sink.finish().unwrap();
        prop_assert!(fs::read(&path).unwrap() == image);
    }
}

#[test]
fn zeros_take_no_room_and_the_mode_of_a_replaced_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let mut sink = Sink::open(Some(&path), 0).unwrap();
    for _ in 0..64 {
        sink.write(&[0; 1 << 20]).unwrap();
    }
    sink.finish().unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (link, target) = (dir.path().join("link"), dir.path().join("target"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut sink = Sink::open(Some(&link), 0).unwrap();
    sink.write(b"new").unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_device_is_written_to_and_a_directory_refused() {
    let mut sink = Sink::open(Some(Path::new("/dev/null")), 1).unwrap();
    sink.write(b"x").unwrap();
    sink.finish().unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Sink::open(Some(dir.path()), 0).err().unwrap().status(), 2);
    assert_eq!(Sink::open(Some(&dir.path().join("no/file")), 0).err().unwrap().status(), 2);
}

#[test]
fn a_new_file_is_for_its_owner_alone_and_has_no_name_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut sink = Sink::open(Some(&path), 3).unwrap();
    sink.write(b"new").unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a file system without O_TMPFILE");
    sink.finish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_to_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("absent"), &link).unwrap();
    assert_eq!(Sink::open(Some(&link), 0).err().unwrap().status(), 2);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn attributes_of_a_replaced_file_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let old = File::create(&path).unwrap();
    if fsetxattr(&old, "user.purpose", b"a test", XattrFlags::empty()).is_err() {
        eprintln!("SKIPPED: this file system has no attributes");
        return;
    }
    let mut sink = Sink::open(Some(&path), 3).unwrap();
    sink.write(b"new").unwrap();
    sink.finish().unwrap();
    let mut value = [0; 16];
    let len = fgetxattr(File::open(&path).unwrap(), "user.purpose", &mut value).unwrap();
    assert_eq!(&value[..len], b"a test");
}
