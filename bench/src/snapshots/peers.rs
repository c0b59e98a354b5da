//! The peers: programs that store versions of files, each with an empty store of its own.
//!
//! Where a peer compresses, it does so with zstd at level 3. One that is not there and cannot be installed is
//! missing from the run, with the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::apt;

use super::tool::{self, Added, Tool, Version, timed};

/// The programs, or why one is not there.
#[derive(Debug)]
pub struct Programs {
    /// restic.
    pub restic: Found,
    /// Borg.
    pub borg: Found,
    /// casync.
    pub casync: Found,
    /// zstd.
    pub zstd: Found,
    /// xdelta3.
    pub xdelta3: Found,
    /// The image converter of QEMU.
    pub qemu_img: Found,
}

/// A program's path, or the reason why it is missing.
pub type Found = std::result::Result<PathBuf, String>;

impl Programs {
    /// Finds them; installs those that are missing where that needs no password.
    pub fn ensure() -> Self {
        let find = |program: &str, package: &str| {
            apt::program(program, package, "to be measured beside").map_err(|error| format!("{error:#}"))
        };
        Self {
            restic: find("restic", "restic"),
            borg: find("borg", "borgbackup"),
            casync: find("casync", "casync"),
            zstd: find("zstd", "zstd"),
            xdelta3: find("xdelta3", "xdelta3"),
            qemu_img: find("qemu-img", "qemu-utils"),
        }
    }

    /// What they say of their versions, one line each.
    pub fn versions(&self) -> Vec<String> {
        let all = [&self.restic, &self.borg, &self.casync, &self.zstd, &self.xdelta3, &self.qemu_img];
        all.into_iter().map(version).collect()
    }

    /// All contestants that store versions, with empty stores below `dir`.
    pub fn contestants(&self, dir: &Path) -> Vec<(&'static str, Result<Box<dyn Tool>>)> {
        fn boxed(tool: impl Tool + 'static) -> Box<dyn Tool> {
            Box::new(tool)
        }
        let path = |found: &Found| found.clone().map_err(anyhow::Error::msg);
        vec![
            ("restic", path(&self.restic).and_then(|program| Restic::new(program, dir)).map(boxed)),
            ("borg", path(&self.borg).and_then(|program| Borg::new(program, dir)).map(boxed)),
            ("casync", path(&self.casync).and_then(|program| Casync::new(program, dir)).map(boxed)),
            (ZSTD, path(&self.zstd).and_then(|program| Zstd::new(program, dir)).map(boxed)),
            (XDELTA3, path(&self.xdelta3).and_then(|program| Xdelta3::new(program, dir)).map(boxed)),
        ]
    }
}

/// What rows call zstd. Without a base, there is no patch.
pub const ZSTD: &str = "zstd --patch-from -3";
/// What rows call xdelta3.
pub const XDELTA3: &str = "xdelta3 -1";

fn version(found: &Found) -> String {
    let Ok(program) = found else { return format!("missing: {}", found.as_ref().err().map_or("", String::as_str)) };
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let word = match name.as_str() {
        "restic" => "version",
        "xdelta3" => "-V",
        _ => "--version",
    };
    // xdelta3 prints its version on stderr.
    let output = Command::new(program).arg(word).output().map(|output| [output.stdout, output.stderr].concat());
    let text = output.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    format!("{name}: {}", line.trim_matches(['*', ' ']))
}

/// A repository with a folder in which each version has the same name, so that it is a version of one file.
#[derive(Debug)]
struct Repository {
    program: PathBuf,
    repository: PathBuf,
    stage: PathBuf,
    home: PathBuf,
}

impl Repository {
    fn new(program: PathBuf, dir: &Path, name: &str) -> Result<Self> {
        let dir = tool::folder(dir, name)?;
        let [repository, stage, home] = ["repository", "stage", "home"].map(|name| tool::folder(&dir, name));
        Ok(Self { program, repository: repository?, stage: stage?, home: home? })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.stage).env("HOME", &self.home);
        command
    }

    /// Runs what stores the file `image` of the stage.
    fn store(&self, image: &Path, command: &mut Command) -> Result<Added> {
        let staged = self.stage.join("image");
        let _ = fs::remove_file(&staged);
        fs::hard_link(image, &staged).with_context(|| format!("cannot link {}", image.display()))?;
        let before = tool::bytes_in(&self.repository)?;
        let (_, seconds) = timed(command)?;
        Ok(Added { bytes: tool::bytes_in(&self.repository)?.saturating_sub(before), seconds })
    }
}

#[derive(Debug)]
struct Restic(Repository);

impl Restic {
    fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        let new = Self(Repository::new(program, dir, "restic")?);
        timed(new.command().args(["init", "--repository-version", "2"]))?;
        Ok(new)
    }

    fn command(&self) -> Command {
        let mut command = self.0.command();
        command.env("RESTIC_REPOSITORY", &self.0.repository).env("RESTIC_PASSWORD", "bench");
        command.arg("--quiet");
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        self.0.store(version.image, self.command().args(["backup", "--tag", version.name, "image"]))
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let mut command = self.command();
        command.args(["restore", "latest", "--tag", version.name, "--target"]).arg(into);
        let (_, seconds) = timed(&mut command)?;
        Ok((into.join("image"), seconds))
    }
}

#[derive(Debug)]
struct Borg(Repository);

impl Borg {
    fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        let new = Self(Repository::new(program, dir, "borg")?);
        timed(new.command().args(["init", "--encryption", "none"]).arg(&new.0.repository))?;
        Ok(new)
    }

    fn command(&self) -> Command {
        let mut command = self.0.command();
        command.env("BORG_BASE_DIR", &self.0.home).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        command
    }

    fn archive(&self, name: &str) -> std::ffi::OsString {
        let mut archive = self.0.repository.clone().into_os_string();
        archive.push(format!("::{name}"));
        archive
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        let mut command = self.command();
        command.args(["create", "--compression", "zstd,3"]).arg(self.archive(version.name)).arg("image");
        self.0.store(version.image, &mut command)
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let mut command = self.command();
        command.args(["extract", "--sparse"]).arg(self.archive(version.name)).current_dir(into);
        let (_, seconds) = timed(&mut command)?;
        Ok((into.join("image"), seconds))
    }
}

#[derive(Debug)]
struct Casync(Repository);

impl Casync {
    fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        Ok(Self(Repository::new(program, dir, "casync")?))
    }

    fn command(&self, what: &str) -> Command {
        let mut store = std::ffi::OsString::from("--store=");
        store.push(self.0.repository.join("default.castr"));
        let mut command = self.0.command();
        command.args([what, "--compression=zstd"]).arg(store);
        command
    }

    fn index(&self, name: &str) -> PathBuf {
        self.0.repository.join(format!("{name}.caibx"))
    }
}

impl Tool for Casync {
    fn name(&self) -> &'static str {
        "casync"
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        self.0.store(version.image, self.command("make").arg(self.index(version.name)).arg("image"))
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let output = into.join("image");
        let mut command = self.command("extract");
        // With the user's other files as seeds it would measure something else.
        command.arg("--seed-output=no").arg(self.index(version.name)).arg(&output);
        let (_, seconds) = timed(&mut command)?;
        Ok((output, seconds))
    }
}

/// Files beside each other.
#[derive(Debug)]
struct Zstd {
    program: PathBuf,
    dir: PathBuf,
}

impl Zstd {
    fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        Ok(Self { program, dir: tool::folder(dir, "zstd")? })
    }

    fn command(&self, version: Version<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--quiet", "--force"]);
        if let Some((_, base)) = version.base {
            let mut from = std::ffi::OsString::from("--patch-from=");
            from.push(base);
            command.arg(from);
        }
        command
    }
}

impl Tool for Zstd {
    fn name(&self) -> &'static str {
        ZSTD
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        let output = self.dir.join(version.name);
        let (_, seconds) = timed(self.command(version).arg("-3").arg(version.image).arg("-o").arg(&output))?;
        Ok(Added { bytes: output.metadata()?.len(), seconds })
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let output = into.join("image");
        let mut command = self.command(version);
        command.args(["--decompress", "--memory=2048MB"]).arg(self.dir.join(version.name)).arg("-o").arg(&output);
        let (_, seconds) = timed(&mut command)?;
        Ok((output, seconds))
    }
}

#[derive(Debug)]
struct Xdelta3 {
    program: PathBuf,
    dir: PathBuf,
}

impl Xdelta3 {
    fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        Ok(Self { program, dir: tool::folder(dir, "xdelta3")? })
    }

    fn command(&self, what: &[&str], version: Version<'_>) -> Result<Command> {
        let Some((_, base)) = version.base else { bail!("xdelta3 needs a base") };
        let mut command = Command::new(&self.program);
        // The window over the base, else 64 MiB: all of it.
        let window = base.metadata()?.len().next_power_of_two().max(1 << 26);
        command.args(what).args(["-f", "-B"]).arg(window.to_string()).arg("-s").arg(base);
        Ok(command)
    }
}

impl Tool for Xdelta3 {
    fn name(&self) -> &'static str {
        XDELTA3
    }

    fn stores_whole(&self) -> bool {
        false
    }

    fn store(&mut self, version: Version<'_>) -> Result<Added> {
        let output = self.dir.join(version.name);
        let (_, seconds) = timed(self.command(&["-e", "-1"], version)?.arg(version.image).arg(&output))?;
        Ok(Added { bytes: output.metadata()?.len(), seconds })
    }

    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)> {
        let output = into.join("image");
        let (_, seconds) = timed(self.command(&["-d"], version)?.arg(self.dir.join(version.name)).arg(&output))?;
        Ok((output, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_a_contestant_with_a_reason() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let no = || Err("no such package".to_owned());
        let programs = Programs { restic: no(), borg: no(), casync: no(), zstd: no(), xdelta3: no(), qemu_img: no() };
        let contestants = programs.contestants(dir.path());
        assert_eq!(contestants.len(), 5);
        for (name, tool) in contestants {
            let why = tool.err().map(|error| error.to_string());
            assert_eq!(why.as_deref(), Some("no such package"), "{name}");
        }
        assert!(programs.versions().iter().all(|version| version == "missing: no such package"));
        Ok(())
    }
}
