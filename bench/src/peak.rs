//! Peak memory of the program `tidelock` for a store and a retrieve of a large image.
//!
//! The real program in a separate process, from start to end. The figure is the high-water mark of its resident set
//! (`VmHWM`), pages of files that it maps included. It is read while the process runs, every few milliseconds: it can
//! only rise, so at most the last moment is missed. `wait4` would not do: its number includes the resident
//! set of the process that started it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xtask::image::difference;
use xtask::run;

use crate::place::{self, CREDENTIALS, Server, field};
use crate::stats::rounded;
use crate::{GIB, MIB, data};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// One process.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `fs` or `s3`.
    pub backend: &'static str,
    /// `store` or `retrieve`.
    pub command: &'static str,
    /// The image's size.
    pub gib: u64,
    /// The most memory that the process had.
    pub peak_mib: f64,
    /// Its rate, start and end of the process included, for orientation: the disk has its part in it.
    pub mib_s: f64,
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct Peaks {
    /// The images' sizes, smallest first.
    pub gib: Vec<u64>,
    /// Every process.
    pub rows: Vec<Row>,
}

impl Peaks {
    /// The most that any process of a backend took, for the largest image.
    pub fn of(&self, backend: &str) -> f64 {
        let largest = self.gib.iter().copied().max();
        let rows = self.rows.iter().filter(|row| row.backend == backend && Some(row.gib) == largest);
        rows.map(|row| row.peak_mib).fold(0.0, f64::max)
    }
}

/// Measures images of these sizes, in GiB, on both backends.
pub fn run(gib: &[u64], note: impl Fn(&str)) -> Result<Peaks> {
    let program = program()?;
    let mut rows = Vec::new();
    for &size in gib {
        let dir = place::on_disk()?;
        let image = dir.path().join("image");
        note(&format!("making an image of {size} GiB"));
        data::write_image(&image, size * GIB)?;
        note(&format!("storing and retrieving {size} GiB through fs"));
        let fs = dir.path().join("fs");
        rows.extend(Job { program: &program, dir: &fs, image: &image, gib: size, server: None }.run("fs")?);
        fs::remove_dir_all(&fs)?;
        note(&format!("storing and retrieving {size} GiB through s3"));
        let server = Server::start(dir.path())?;
        let s3 = dir.path().join("s3");
        rows.extend(Job { program: &program, dir: &s3, image: &image, gib: size, server: Some(&server) }.run("s3")?);
    }
    Ok(Peaks { gib: gib.to_vec(), rows })
}

/// The program, built beside this one. Both packages are named, so that their dependencies have the features that they
/// have here: for the program alone they would all be compiled again.
pub fn program() -> Result<PathBuf> {
    let mut cargo = run::cargo("build");
    cargo.args(["--release", "--package", "tidelock-bench", "--package", "tidelock-cli", "--bin", "tidelock"]);
    run::run(&mut cargo)?;
    let program = std::env::current_exe()?.with_file_name("tidelock");
    ensure!(program.is_file(), "cargo built no {}: run `cargo xtask bench sandbox`", program.display());
    Ok(program)
}

/// A store and a retrieve in a folder of their own.
struct Job<'a> {
    program: &'a Path,
    dir: &'a Path,
    image: &'a Path,
    gib: u64,
    server: Option<&'a Server>,
}

impl Job<'_> {
    fn run(&self, backend: &'static str) -> Result<[Row; 2]> {
        fs::create_dir_all(self.dir)?;
        let data_dir = self.dir.join("data");
        let config = match self.server {
            Some(server) => server.config(&data_dir),
            None => format!(
                "data_dir = {data_dir:?}\n[backends.local]\nadapter = \"fs\"\n\
                 grants.directory.objects = {{ path = {:?} }}\n[routes.default]\nbackends = [\"local\"]\n",
                self.dir.join("objects")
            ),
        };
        fs::write(self.dir.join("tidelock.toml"), config)?;
        let (stored, store) = self.command(backend, "store", &[self.image.as_os_str()])?;
        let back: PathBuf = self.dir.join("back");
        let arguments = [stored.id.as_ref(), "--output".as_ref(), back.as_os_str()];
        let (_, retrieve) = self.command(backend, "retrieve", &arguments)?;
        if let Some(at) = difference(self.image, &back)? {
            bail!("what came back through {backend} differs from byte {at} on");
        }
        Ok([store, retrieve])
    }

    fn command(
        &self,
        backend: &'static str,
        command: &'static str,
        arguments: &[&std::ffi::OsStr],
    ) -> Result<(Answer, Row)> {
        let mut tidelock = Command::new(self.program);
        tidelock.arg("--config").arg(self.dir.join("tidelock.toml")).args(["--json", command]).args(arguments);
        if let Some(server) = self.server {
            let seaweed = server.seaweed();
            tidelock.env(format!("{CREDENTIALS}_ACCESS_KEY_ID"), &seaweed.access_key);
            tidelock.env(format!("{CREDENTIALS}_SECRET_ACCESS_KEY"), &seaweed.secret_key);
        }
        let answer = self.dir.join("answer.json");
        let file = fs::File::create(&answer)?;
        let began = Instant::now();
        let child = tidelock.stdin(Stdio::null()).stdout(file).spawn().context("cannot start tidelock")?;
        let peak = peak_of(child).with_context(|| format!("tidelock {command} through {backend}"))?;
        let seconds = began.elapsed().as_secs_f64();
        let text = fs::read_to_string(&answer)?;
        let answer: Answer = serde_json::from_str(&text).with_context(|| format!("tidelock {command} said {text}"))?;
        ensure!(answer.size == self.gib * GIB, "tidelock {command} speaks of {} bytes", answer.size);
        let peak_mib = rounded(peak.resident as f64 / MIB as f64, 1);
        let mib_s = rounded((self.gib * GIB / MIB) as f64 / seconds, 0);
        Ok((answer, Row { backend, command, gib: self.gib, peak_mib, mib_s }))
    }
}

/// What both commands say.
#[derive(Deserialize)]
struct Answer {
    id: String,
    size: u64,
}

/// The most memory that a process had, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Most {
    /// Of its resident set, pages of files that it maps included: `VmHWM`.
    pub(crate) resident: u64,
    /// Of that, what is not of files, at the moments at which one looked: the kernel does not keep the most.
    pub(crate) anonymous: u64,
}

/// Waits for the end of a process and gives the most memory that it had.
pub(crate) fn peak_of(mut child: Child) -> Result<Most> {
    let status = format!("/proc/{}/status", child.id());
    let mut most = Most::default();
    loop {
        // One that has ended has no memory any more, and its status no such lines.
        let text = fs::read_to_string(&status).unwrap_or_default();
        most.resident = field(&text, "VmHWM:").unwrap_or(0).max(most.resident);
        most.anonymous = field(&text, "RssAnon:").unwrap_or(0).max(most.anonymous);
        if let Some(end) = child.try_wait()? {
            ensure!(end.success(), "it failed ({end})");
            ensure!(most.resident > 0, "it ended before it could be looked at");
            return Ok(most);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_process() -> Result<()> {
        let small = peak_of(Command::new("sleep").arg("0.1").spawn()?)?.resident;
        assert!((1..16 * MIB).contains(&small), "{small}");
        // dd takes a block of this size into memory.
        let dd = ["if=/dev/zero", "of=/dev/null", "bs=64M", "count=20"];
        let large = peak_of(Command::new("dd").args(dd).stderr(Stdio::null()).spawn()?)?;
        let Most { resident, anonymous } = large;
        assert!((64 * MIB..128 * MIB).contains(&resident), "{resident}");
        assert!((64 * MIB..=resident).contains(&anonymous), "{anonymous} of {resident}");
        assert!(peak_of(Command::new("false").spawn()?).is_err());
        Ok(())
    }
}
