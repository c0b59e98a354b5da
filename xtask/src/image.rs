//! A real disk image for the demonstration: an ext4 file system with files of this machine.
//!
//! Created without root and without mounting: `mke2fs -d` fills it on creation, `debugfs -w` changes files in
//! it, `e2fsck -fn` checks it. The same machine gives the same files in the same order.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::run::{capture, run};

/// The image's logical size.
pub const SIZE: u64 = 1 << 30;

/// The bytes of a page.
const PAGE: usize = 4096;
/// How much of it files may take; the rest stays free, as in a disk that is in use.
const FILL: u64 = 700 << 20;
/// Fewer than mke2fs gives a file system of this size (one inode for 16 KiB).
const MAX_FILES: usize = 40_000;
/// No single file takes more.
const LARGEST: u64 = 200 << 20;
/// The file system's identity: a constant, so that two runs differ only where the files do.
const UUID: &str = "7469d301-6f63-4b00-8000-74696d657301";

/// The programs of e2fsprogs.
#[derive(Debug)]
pub struct Tools {
    mke2fs: PathBuf,
    debugfs: PathBuf,
    e2fsck: PathBuf,
}

impl Tools {
    /// Finds them; installs the package where that needs no password.
    pub fn ensure() -> Result<Self> {
        let tool = |name| apt::program(name, "e2fsprogs", "to make an ext4 image");
        Ok(Self { mke2fs: tool("mke2fs")?, debugfs: tool("debugfs")?, e2fsck: tool("e2fsck")? })
    }

    /// Makes an image at `image` with the files of `tree` in it.
    pub fn make(&self, tree: &Path, image: &Path) -> Result<()> {
        File::create(image)?.set_len(SIZE).with_context(|| format!("cannot make {}", image.display()))?;
        let mut command = Command::new(&self.mke2fs);
        command.args(["-q", "-F", "-t", "ext4", "-L", "demo", "-U", UUID, "-E"]).arg(format!("hash_seed={UUID}"));
        run(command.arg("-d").arg(tree).arg(image))
    }

    /// Changes files in the image as a running machine would: removes some, replaces some, writes new ones.
    pub fn change(&self, image: &Path, scratch: &Path, files: &[PathBuf], new: &Path) -> Result<()> {
        // debugfs splits its commands at spaces.
        let needs_no_quotes = |path: &&PathBuf| {
            path.to_str().is_some_and(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)))
        };
        let chosen: Vec<&PathBuf> = files.iter().filter(needs_no_quotes).step_by((files.len() / 60).max(1)).collect();
        let (removed, replaced) = chosen.split_at(chosen.len() / 2);
        let mut script = String::from("mkdir /changed\n");
        for path in removed {
            script += &format!("rm /{}\n", path.display());
        }
        for (number, path) in replaced.iter().enumerate() {
            let text = scratch.join(format!("text-{number}"));
            fs::write(&text, format!("{} was replaced.\n", path.display()).repeat(200 * (number + 1)))?;
            script += &format!("rm /{0}\nwrite text-{number} /{0}\n", path.display());
        }
        let name = "new-program";
        fs::copy(new, scratch.join(name)).with_context(|| format!("cannot copy {}", new.display()))?;
        script += &format!("write {name} /changed/{name}\n");
        let commands = scratch.join("commands");
        fs::write(&commands, script)?;
        // Files to write are named relative to here, so the folder's own name may hold a space.
        let mut command = Command::new(&self.debugfs);
        command.arg("-w").arg("-f").arg(&commands).arg(image).current_dir(scratch);
        // It reports failures as text only, so the changes are checked.
        capture(&mut command)?;
        let listing = capture(Command::new(&self.debugfs).args(["-R", "ls -p /changed"]).arg(image))?;
        if !listing.contains(name) {
            bail!("debugfs did not change {}", image.display());
        }
        Ok(())
    }

    /// Returns whether the file system in the image is sound; an error that holds what e2fsck found if not.
    pub fn check(&self, image: &Path) -> Result<()> {
        capture(Command::new(&self.e2fsck).arg("-fn").arg(image)).map(drop)
    }
}

/// Copies files of this machine into `tree`, up to what the image holds. Returns their paths in it and their bytes.
pub fn gather(tree: &Path) -> Result<(Vec<PathBuf>, u64)> {
    let sysroot = capture(Command::new("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    // Programs, libraries, text: what a machine's disk is made of.
    let rust = Path::new(sysroot.trim()).join("bin");
    let sources =
        [("rust", rust), ("share", "/usr/share".into()), ("bin", "/usr/bin".into()), ("lib", "/usr/lib".into())];
    let mut gathered = Gathered { files: Vec::new(), used: 0, bytes: 0, limit: 0 };
    for (number, (name, source)) in sources.iter().enumerate() {
        // Each may take an equal part of what is left, so that all are there.
        gathered.limit = gathered.used + (FILL - gathered.used) / (sources.len() - number) as u64;
        gathered.walk(source, tree, Path::new(name))?;
    }
    if gathered.bytes == 0 {
        bail!("found no file to fill an image with in {sources:?}");
    }
    Ok((gathered.files, gathered.bytes))
}

struct Gathered {
    files: Vec<PathBuf>,
    used: u64,
    bytes: u64,
    limit: u64,
}

impl Gathered {
    fn walk(&mut self, source: &Path, tree: &Path, into: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(source) else { return Ok(()) };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let (path, into) = (entry.path(), into.join(entry.file_name()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.walk(&path, tree, &into)?;
            } else if kind.is_file() {
                self.take(&path, tree, into)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, tree: &Path, into: PathBuf) -> Result<()> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        let blocks = metadata.len().next_multiple_of(4096);
        if blocks > LARGEST || self.used + blocks > self.limit || self.files.len() == MAX_FILES {
            return Ok(());
        }
        // One that only root may read is no loss.
        if File::open(path).is_err() {
            return Ok(());
        }
        let target = tree.join(&into);
        fs::create_dir_all(target.parent().unwrap_or(tree))?;
        fs::copy(path, &target).with_context(|| format!("cannot copy {} to {}", path.display(), target.display()))?;
        self.used += blocks;
        self.bytes += metadata.len();
        self.files.push(into);
        Ok(())
    }
}

/// Where two files first differ, or nothing if they are equal byte for byte.
pub fn difference(a: &Path, b: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut left, mut right) = (open(a)?, open(b)?);
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let (n, m) = (fill(&mut left, &mut one)?, fill(&mut right, &mut other)?);
        let same = n.min(m);
        if one[..same] != other[..same] || n != m {
            let within = one[..same].iter().zip(&other[..same]).position(|(x, y)| x != y).unwrap_or(same);
            return Ok(Some(at + within as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// The bytes of the pages of 4 KiB in which two files of one length differ.
pub fn changed_pages(a: &Path, b: &Path) -> Result<u64> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut left, mut right) = (open(a)?, open(b)?);
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut changed = 0;
    loop {
        let (n, m) = (fill(&mut left, &mut one)?, fill(&mut right, &mut other)?);
        let pages = one[..n].chunks(PAGE).zip(other[..m].chunks(PAGE)).filter(|(x, y)| x != y);
        changed += pages.map(|(page, _)| page.len() as u64).sum::<u64>();
        if n == 0 || m == 0 {
            return Ok(changed);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            fs::write(dir.path().join(name), bytes)?;
            Ok(dir.path().join(name))
        };
        let mut bytes = vec![7; (1 << 20) + 10];
        let a = file("a", &bytes)?;
        assert_eq!(difference(&a, &file("b", &bytes)?)?, None);
        assert_eq!(difference(&a, &file("c", &bytes[..1 << 20])?)?, Some(1 << 20));
        bytes[(1 << 20) + 3] = 8;
        assert_eq!(difference(&a, &file("d", &bytes)?)?, Some((1 << 20) + 3));
        assert_eq!(difference(&file("e", b"")?, &file("f", b"")?)?, None);
        Ok(())
    }
}
