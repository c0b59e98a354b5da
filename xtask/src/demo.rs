//! `cargo xtask demo`: the main use case on real data.
//!
//! A disk image with this machine's own files is stored, changed, updated, and both versions are retrieved, every byte
//! through a sandboxed adapter. The results are compared with the originals in three ways: byte for byte, by their
//! `SnapshotId`, and by e2fsck's verdict on the file system. It only uses the command line, as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use crate::backends::{Seaweed, seaweed};
use crate::image::{self, Tools};
use crate::progress::{Progress, Step};
use crate::run::{self, seconds, shown, size};
use crate::{cache, host, say};

/// The most room that is needed: three files of an image's size and as much again in the store.
const ROOM: u64 = 6 << 30;

/// The backend of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoBackend {
    /// A folder of this machine.
    Fs,
    /// An S3 service: a SeaweedFS that is installed and started for it.
    S3,
}

/// The demonstration. Leaves everything in `target/demo`, which it makes anew.
pub fn run(backend: DemoBackend) -> Result<()> {
    let tools = Tools::ensure()?;
    let mut steps = host::steps(host::Profile::Release).to_vec();
    steps.extend([Step::new("making a disk image", 15), Step::new("storing and updating it", 10)]);
    steps.push(Step::new("retrieving both versions and comparing", 10));
    let mut progress = Progress::new(steps);
    let program = host::binary_in_steps(host::Profile::Release, &mut progress)?;
    let dir = run::root().join("target/demo");
    cache::empty_dir(&dir)?;
    room(&dir)?;
    let server = (backend == DemoBackend::S3).then(Seaweed::start).transpose()?;
    let demo = Demo { program, config: configure(&dir, server.as_ref())?, server, dir, lines: Vec::new(), progress };
    demo.perform(&tools)
}

struct Demo {
    program: PathBuf,
    config: PathBuf,
    server: Option<Seaweed>,
    dir: PathBuf,
    lines: Vec<(String, String, Duration)>,
    progress: Progress,
}

/// The answer of `store` and `update`.
#[derive(Debug, Deserialize)]
struct Stored {
    id: String,
    size: u64,
    stored_bytes: u64,
    placements: Vec<Placement>,
}

#[derive(Debug, Deserialize)]
struct Placement {
    backend: String,
    object: String,
}

impl Demo {
    fn perform(mut self, tools: &Tools) -> Result<()> {
        let (first, second) = (self.dir.join("first.img"), self.dir.join("second.img"));
        self.progress.next();
        self.make_images(tools, &first, &second)?;

        self.progress.next();
        let began = Instant::now();
        let base = self.stored(Command::new(&self.program).args(["store", "--name", "demo"]).arg(&first))?;
        self.line("store", described(&base), began.elapsed());
        let began = Instant::now();
        let update = self.stored(Command::new(&self.program).args(["update", &base.id]).arg(&second))?;
        self.line("update", described(&update), began.elapsed());
        ensure!(base.id != update.id, "the changed image has the id of the first one, {}", base.id);

        self.progress.next();
        for (version, stored, image) in [("first", &base, &first), ("second", &update, &second)] {
            self.compare(tools, version, stored, image)?;
        }
        self.report(&base, &update);
        Ok(())
    }

    fn make_images(&mut self, tools: &Tools, first: &Path, second: &Path) -> Result<()> {
        let (tree, scratch) = (self.dir.join("tree"), self.dir.join("scratch"));
        fs::create_dir_all(&scratch)?;
        say!("gathering files of this machine into {}", tree.display());
        let began = Instant::now();
        let (files, bytes) = image::gather(&tree)?;
        tools.make(&tree, first)?;
        fs::remove_dir_all(&tree)?;
        let what = format!("ext4 of {} with {} files of this machine, {}", size(image::SIZE), files.len(), size(bytes));
        self.line("make an image", what, began.elapsed());

        let began = Instant::now();
        run::run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(first).arg(second))?;
        tools.change(second, &scratch, &files, &self.program)?;
        fs::remove_dir_all(&scratch)?;
        tools.check(first).context("the image that was made is not sound")?;
        tools.check(second).context("the image that was changed is not sound")?;
        ensure!(image::difference(first, second)?.is_some(), "changing the image changed nothing");
        let changed = size(image::changed_pages(first, second)?);
        let what = format!("files removed, replaced and added: {changed} of pages changed");
        self.line("change a copy of it", what, began.elapsed());
        Ok(())
    }

    /// Retrieves a snapshot and compares it with the image that went in.
    fn compare(&mut self, tools: &Tools, version: &str, stored: &Stored, image: &Path) -> Result<()> {
        ensure!(stored.size == image::SIZE, "{version}: {} bytes were stored of {}", stored.size, image::SIZE);
        let back = self.dir.join(format!("{version}-retrieved.img"));
        let began = Instant::now();
        self.json::<serde_json::Value>(Command::new(&self.program).args(["retrieve", &stored.id, "-o"]).arg(&back))?;
        self.line(&format!("retrieve the {version}"), size(fs::metadata(&back)?.len()), began.elapsed());

        let began = Instant::now();
        if let Some(at) = image::difference(image, &back)? {
            bail!("{} differs from {} at byte {at}", back.display(), image.display());
        }
        tools.check(&back).with_context(|| format!("{} is not a sound file system", back.display()))?;
        self.line("  compare", "equal byte for byte; e2fsck finds it sound".into(), began.elapsed());

        let began = Instant::now();
        #[derive(Deserialize)]
        struct Identified {
            id: String,
        }
        let identified: Identified = self.json(Command::new(&self.program).arg("id").arg(&back))?;
        ensure!(identified.id == stored.id, "{} has the id {}, not {}", back.display(), identified.id, stored.id);
        self.line("  identify", "the same id again".into(), began.elapsed());
        fs::remove_file(&back).with_context(|| format!("cannot remove {}", back.display()))
    }

    fn stored(&self, command: &mut Command) -> Result<Stored> {
        let stored: Stored = self.json(command)?;
        ensure!(!stored.placements.is_empty(), "`{}` names no backend that has it", shown(command));
        Ok(stored)
    }

    /// Runs the command line with `--json` and reads its answer. What it says on stderr is the user's to see.
    fn json<T: serde::de::DeserializeOwned>(&self, command: &mut Command) -> Result<T> {
        command.arg("--config").arg(&self.config).arg("--json").current_dir(&self.dir);
        if let Some(server) = &self.server {
            command.env("DEMO_ACCESS_KEY_ID", &server.access_key).env("DEMO_SECRET_ACCESS_KEY", &server.secret_key);
        }
        say!("{}", shown(command));
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            bail!("`{}` failed ({})", shown(command), output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("`{}` answered {:?}", shown(command), text.trim()))
    }

    fn line(&mut self, what: &str, result: String, took: Duration) {
        say!("{what}: {result} ({})", seconds(took));
        self.lines.push((what.to_string(), result, took));
    }

    fn report(&self, base: &Stored, update: &Stored) {
        println!();
        for (what, result, took) in &self.lines {
            println!("{what:<22}{:>12}   {result}", seconds(*took));
        }
        println!("\nfirst   {}\nsecond  {}", base.id, update.id);
        println!("Both versions came back through the sandboxed adapter, identical to what went in.");
        println!("Images, configuration and store are in {}.", self.dir.display());
        if self.server.is_none() {
            println!("Look around: {} --config {} ls", self.program.display(), self.config.display());
        }
    }
}

fn described(stored: &Stored) -> String {
    let places: Vec<String> = stored.placements.iter().map(|p| format!("{}:{}", p.backend, p.object)).collect();
    format!("{} kept as {} in {}", size(stored.size), size(stored.stored_bytes), places.join(", "))
}

fn configure(dir: &Path, server: Option<&Seaweed>) -> Result<PathBuf> {
    let backend = match server {
        None => "adapter = \"fs\"\ntier = \"warm\"\ngrants.directory.objects = { path = \"objects\" }".to_string(),
        Some(server) => {
            server.create_bucket(seaweed::BUCKET)?;
            format!(
                "adapter = \"s3\"\ntier = \"warm\"\ngrants.bucket.objects = {{ endpoint = {:?}, region = {:?}, bucket = {:?}, \
                 prefix = \"demo/\", path_style = true, credentials = {{ env = \"DEMO\" }} }}",
                server.endpoint,
                server.region,
                seaweed::BUCKET
            )
        }
    };
    let text =
        format!("data_dir = \"data\"\n\n[backends.store]\n{backend}\n\n[routes.default]\nbackends = [\"store\"]\n");
    let path = dir.join("tidelock.toml");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn room(dir: &Path) -> Result<()> {
    let space = rustix::fs::statvfs(dir).map_err(io::Error::from).context("cannot tell how much room there is")?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    ensure!(free >= ROOM, "{} has {} free; the demonstration takes up to {}", dir.display(), size(free), size(ROOM));
    Ok(())
}
