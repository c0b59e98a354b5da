//! What readers of packs keep in temporary files: as little as is still needed, and never the last room of the disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::refusals::SmallDisk;
use tidelock_tests::data::MIB;
use tidelock_tests::program::{Home, Running};
use xtask::skip::skip;

const PAGE: usize = 4096;

/// So many pages, each of other bytes, that take nearly nothing when they are stored.
fn pages(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * PAGE];
    for (number, page) in (1u64..).zip(bytes.chunks_mut(PAGE)) {
        page[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn packs(data_dir: &str) -> String {
    format!(
        "data_dir = \"{data_dir}\"\n[backends.local]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
         grants.directory.objects = {{ path = \"objects\" }}\n[routes.default]\nbackends = [\"local\"]\nencoding = \"pages\"\n"
    )
}

/// The bytes that the temporary files of a program take now.
fn spilled(program: &Running, tmp: &Path) -> u64 {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", program.pid())) else { return 0 };
    let temporary = open.flatten().filter(|file| fs::read_link(file.path()).is_ok_and(|to| to.starts_with(tmp)));
    temporary.filter_map(|file| fs::metadata(file.path()).ok()).map(|found| found.blocks() * 512).sum()
}

/// A pack of few bytes, of which each frame has a page that the end of the image has once more: what is kept until then is
/// those pages.
#[test]
fn a_page_that_comes_again_late_keeps_no_whole_frame() {
    let home = Home::with(&packs("data"));
    let mut image = pages(300 * 256);
    let again: Vec<u8> = image.chunks(PAGE).step_by(2048).flatten().copied().collect();
    image.extend(again);
    home.file("image", &image);
    let id = home.line(&["store", "image"]);
    let objects = fs::read_dir(home.path("objects")).unwrap();
    let stored: u64 = objects.map(|object| object.unwrap().metadata().unwrap().len()).sum();
    assert!(stored < MIB as u64, "{stored}");
    let tmp = fs::canonicalize(home.path("data/tmp")).unwrap();
    for arguments in [&["retrieve", &id, "-o", "out"][..], &["import", "local"]] {
        if arguments[0] == "import" {
            // The pack of somebody else.
            fs::remove_dir_all(home.path("data")).unwrap();
        }
        let (mut program, mut most) = (Running::start(home.command(arguments)), 0);
        while program.runs() {
            most = most.max(spilled(&program, &tmp));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        program.finish().success(arguments);
        assert!(most < 32 << 20, "{arguments:?}: {most} bytes in temporary files");
    }
    assert!(fs::read(home.path("out")).unwrap() == image);
}

/// What would take the last room of the disk is made again instead.
#[test]
fn a_restore_leaves_room_on_the_disk_of_the_catalogue() {
    let home = Home::new();
    let Some(disk) = SmallDisk::new(&home, "24m") else {
        return skip("a_restore_leaves_room_on_the_disk_of_the_catalogue", "nobody may mount a file system here");
    };
    home.file("tidelock.toml", packs("disk/data"));
    // Everything comes twice: all of it is needed late.
    let image = pages(160 * 256).repeat(2);
    home.file("image", &image);
    let id = disk.run(&home, &["store", "image"]).success(&["store"]).stdout;
    let id = String::from_utf8(id).unwrap();
    let room = || rustix::fs::statvfs(&disk.root).map(|found| found.f_bavail * found.f_frsize).unwrap();
    let (least, done) = (std::sync::atomic::AtomicU64::new(u64::MAX), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                least.fetch_min(room(), std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let outcome = disk.run(&home, &["retrieve", id.trim(), "-o", "out"]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.success(&["retrieve"]);
    });
    let least = least.into_inner();
    assert!((1 << 20..12 << 20).contains(&least), "{least} bytes were left");
    assert!(fs::read(home.path("out")).unwrap() == image);
}
