//! Whether the times of a file tell of every write from now on.
//!
//! A file system takes the times of its files from a clock that ticks: every 2 s on vfat, every second on ext4 with inodes of
//! 128 bytes, every 4 ms before Linux 6.13 anywhere. Two writes within one tick leave the same times, so a file that was
//! changed just now can be changed again without a trace ("racy git"). Its times say nothing until the clock has moved on.
//!
//! A time that was stamped by this machine's kernel is old enough after [`TICK`]. One that lies in the future says nothing. The
//! clock of another machine (NFS, FUSE, anything that is not known to be local) may be behind by up to [`SKEW`].
//!
//! Since Linux 6.13, some file systems give a file whose times were asked for a time of its own with its next write, however
//! soon that is: there the times always tell. Files whose times have no fraction of a second do not count among those.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest tick of a file system, and what the kernel's coarse clock lags.
pub(super) const TICK: Duration = Duration::from_millis(2100);
/// How far the clock of another machine may be behind.
const SKEW: Duration = Duration::from_secs(60);

const EXT: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683e;
const TMPFS: i64 = 0x0102_1994;
/// File systems whose times are stamped by this machine: those, vfat, exfat, f2fs, ZFS and ramfs.
const LOCAL: [i64; 9] = [EXT, XFS, BTRFS, TMPFS, 0x4d44, 0x2011_bab0, 0xf2f5_2010, 0x2fc1_2fc1, 0x8584_58f6];

/// Returns whether a file can be written to without a trace in its times. `opened` is when they were asked for, or before.
pub(super) fn hide_writes(file: &File, times: &Metadata, opened: SystemTime) -> bool {
    let last = (times.mtime(), times.mtime_nsec()).max((times.ctime(), times.ctime_nsec()));
    let magic = rustix::fs::fstatfs(file).map_or(0, |about| about.f_type);
    is_recent(last, opened, LOCAL.contains(&magic)) && !(times.ctime_nsec() != 0 && is_fine(magic, times.dev()))
}

/// Returns whether a time is of the tick in which `now` lies, or may be.
fn is_recent((seconds, nanos): (i64, i64), now: SystemTime, local: bool) -> bool {
    let window = if local { TICK } else { SKEW };
    // A clock from before 1970 tells nothing.
    let Ok(now) = now.duration_since(UNIX_EPOCH) else { return true };
    let Ok(seconds) = u64::try_from(seconds) else { return false };
    let last = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.unsigned_abs()));
    now < last.saturating_add(window)
}

/// Returns whether each write after a question for the times gets a time of its own.
fn is_fine(magic: i64, device: u64) -> bool {
    if !matches!(magic, EXT | XFS | BTRFS | TMPFS) {
        return false;
    }
    if !std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| has_fine_times(&release)) {
        return false;
    }
    // Of ext2, ext3 and ext4, which share a number, only the last has them.
    magic != EXT || std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_ext4(&mounts, device))
}

/// Returns whether a release of Linux has times of multiple grains.
fn has_fine_times(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 13))
}

/// Returns whether a device is mounted as ext4, by the lines of `mountinfo`.
fn is_ext4(mounts: &str, device: u64) -> bool {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().any(|line| {
        let kind = line.split_once(" - ").and_then(|(_, about)| about.split(' ').next());
        line.split(' ').nth(2) == Some(device.as_str()) && kind == Some("ext4")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_tick_at_hand_is_recent() {
        let now = UNIX_EPOCH + Duration::new(1_000_000, 500_000_000);
        let cases = [
            ((1_000_000, 500_000_000), true, true),
            ((999_998, 500_000_000), true, true),
            ((999_998, 300_000_000), true, false),
            ((999_998, 300_000_000), false, true),
            ((999_930, 0), false, false),
            // In the future, and before 1970.
            ((2_000_000, 0), true, true),
            ((i64::MAX, 999_999_999), true, true),
            ((-5, 0), true, false),
        ];
        for (time, local, recent) in cases {
            assert_eq!(is_recent(time, now, local), recent, "{time:?} {local}");
        }
        assert!(is_recent((0, 0), UNIX_EPOCH - Duration::from_secs(1), true));
    }

    #[test]
    fn only_ext4_of_a_new_kernel_has_fine_times() {
        for release in ["6.13.0", "6.18.44-fc", "7.0", "10.1.2"] {
            assert!(has_fine_times(release), "{release}");
        }
        for release in ["6.12.99", "5.15.0-100-generic", "4.4.0", "6", "", "v6.13", "6.x"] {
            assert!(!has_fine_times(release), "{release}");
        }
        let mounts = "22 27 0:21 / /proc rw - proc proc rw\n27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      28 27 8:2 / /old rw - ext3 /dev/sda2 rw\n";
        assert!(is_ext4(mounts, rustix::fs::makedev(8, 1)));
        assert!(!is_ext4(mounts, rustix::fs::makedev(8, 2)) && !is_ext4(mounts, rustix::fs::makedev(8, 3)));
        assert!(!is_ext4("", 0));
    }
}
