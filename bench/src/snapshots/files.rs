//! Files that are no memory: what is stored of them, beside `zstd -3`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use xtask::run::capture;

use super::connector::Tidelock;
use super::peers::{Found, Programs};
use super::ram::{self, Numbers, PAGE};
use super::tool::Tool as _;
use super::{Plan, Version, first};
use crate::stats::rounded;

const SEED: u64 = 13;

/// One kind of file.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub kind: String,
    /// Its bytes.
    pub size: Option<u64>,
    /// The bytes of the object that is stored of it.
    pub stored_bytes: Option<u64>,
    /// The bytes that `zstd -3` makes of it, or its own if they are fewer.
    pub zstd_bytes: Option<u64>,
    /// One divided by the other.
    pub ratio: Option<f64>,
    /// Why figures are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Stores a file of each kind; most have a 32nd of the plan's size.
pub fn run(plan: &Plan, programs: &Programs, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let size = (plan.bytes() / 32 / PAGE as u64).max(16) as usize * PAGE;
    let dir = plan.folder(size as u64 * 64)?;
    let mut tidelock = Tidelock::new(&plan.program, dir.path(), 1)?;
    note("storing files of all kinds");
    let mut rows = Vec::new();
    let memory = dir.path().join("memory");
    for (kind, made) in kinds(&super::tool::folder(dir.path(), "kinds")?, &memory, size, programs)? {
        // Of the memory's base, one more is known: the page where it was.
        let base = (kind == SHIFTED).then_some(("memory", memory.as_path()));
        let row = made.and_then(|path| measure(&kind, &path, base, &mut tidelock, &programs.zstd));
        rows.push(row.unwrap_or_else(|why| Row {
            kind,
            size: None,
            stored_bytes: None,
            zstd_bytes: None,
            ratio: None,
            missing: Some(format!("{why:#}")),
        }));
    }
    Ok(rows)
}

/// The one that is stored as an update.
const SHIFTED: &str = "memory moved by a byte, as an update";

fn measure(kind: &str, path: &Path, base: Option<(&str, &Path)>, tidelock: &mut Tidelock, zstd: &Found) -> Result<Row> {
    let size = path.metadata()?.len();
    let zstd = zstd.clone().map_err(anyhow::Error::msg)?;
    let packed = path.with_extension("packed");
    capture(Command::new(zstd).args(["-q", "-f", "-3"]).arg(path).arg("-o").arg(&packed))?;
    let zstd_bytes = packed.metadata()?.len().min(size);
    if let Some((base, image)) = base {
        tidelock.store(first(base, image))?;
    }
    let stored_bytes = tidelock.store(Version { name: kind, image: path, base })?.bytes;
    let ratio = rounded(stored_bytes as f64 / zstd_bytes.max(1) as f64, 4);
    Ok(Row {
        kind: kind.to_owned(),
        size: Some(size),
        stored_bytes: Some(stored_bytes),
        zstd_bytes: Some(zstd_bytes),
        ratio: Some(ratio),
        missing: None,
    })
}

/// The files, or why one cannot be made here.
fn kinds(dir: &Path, memory: &Path, size: usize, programs: &Programs) -> Result<Vec<(String, Result<PathBuf>)>> {
    let mut kinds = Vec::new();
    for (kind, bytes) in generated(size) {
        let path = dir.join(kinds.len().to_string());
        fs::write(&path, bytes)?;
        kinds.push((kind.to_owned(), Ok(path)));
    }
    ram::write(memory, size as u64, SEED)?;
    let mut moved = vec![7];
    moved.extend(fs::read(memory)?);
    moved.truncate(size);
    let path = dir.join("moved");
    fs::write(&path, moved)?;
    kinds.push((SHIFTED.to_owned(), Ok(path)));

    // A folder of files, and what programs make of it.
    let root = xtask::run::root();
    let tar = dir.join("tar");
    let made =
        make(Command::new("tar").args(["--format=gnu", "-cf"]).arg(&tar).args(["docs", "host"]).current_dir(&root));
    let made = made.map(|()| tar.clone());
    let ready = made.is_ok();
    kinds.push(("tar of sources".to_owned(), made));
    for (kind, program, arguments, suffix) in [
        ("gzip of it", "gzip", &["-k", "-f"][..], "gz"),
        ("xz of it", "xz", &["-k", "-f", "-1"], "xz"),
        ("zip of it", "zip", &["-q", "tar.zip"], "zip"),
        ("zst of it", "zstd", &["-q", "-k", "-f"], "zst"),
    ] {
        let made = if ready { make(Command::new(program).args(arguments).arg("tar").current_dir(dir)) } else { Ok(()) };
        kinds.push((kind.to_owned(), made.map(|()| dir.join(format!("tar.{suffix}")))));
    }
    for (kind, format, arguments) in [
        ("qcow2 of memory", "qcow2", &[][..]),
        ("qcow2 of memory, compressed", "qcow2", &["-c"]),
        ("vmdk of memory", "vmdk", &[]),
    ] {
        let path = dir.join(format!("disk-{}", kinds.len()));
        let made = programs.qemu_img.clone().map_err(anyhow::Error::msg).and_then(|program| {
            let mut command = Command::new(program);
            make(command.args(["convert", "-f", "raw", "-O", format]).args(arguments).arg(memory).arg(&path))
        });
        kinds.push((kind.to_owned(), made.map(|()| path)));
    }
    let component = xtask::guests::adapters_dir().join("fs.wasm");
    for (kind, source) in [("a program", std::env::current_exe()?), ("a component", component)] {
        let path = dir.join(format!("copy-{}", kinds.len()));
        let copied = fs::read(&source).with_context(|| format!("cannot read {}", source.display()));
        let made = copied.and_then(|mut bytes| {
            bytes.truncate(size);
            fs::write(&path, bytes).map_err(Into::into)
        });
        kinds.push((kind.to_owned(), made.map(|()| path)));
    }
    Ok(kinds)
}

fn make(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Files that need no program.
fn generated(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut numbers = Numbers::new(SEED);
    let noise = |numbers: &mut Numbers, len: usize| {
        let mut bytes = vec![0; len];
        numbers.fill(&mut bytes);
        bytes
    };
    let random = noise(&mut numbers, size);
    let mut text = vec![0; size];
    numbers.text(&mut text);
    let lines = |of: &dyn Fn(u64, u64) -> String, numbers: &mut Numbers| {
        let mut lines = String::new();
        for number in 0.. {
            if lines.len() >= size {
                break;
            }
            lines += &of(number, numbers.draw());
        }
        lines.truncate(size);
        lines.into_bytes()
    };
    let log = lines(
        &|n, x| format!("{{\"at\":{},\"level\":\"info\",\"id\":\"{x:016x}\",\"status\":200}}\n", n * 37),
        &mut numbers,
    );
    let table = lines(&|n, x| format!("{n},{},{:.3}\n", x % 1000, (x >> 40) as f64 / 7.0), &mut numbers);
    let hex = lines(&|_, x| format!("{x:016x}"), &mut numbers);
    let page = noise(&mut numbers, PAGE);
    let mut few = vec![0; size];
    few.chunks_mut(64 * PAGE).for_each(|chunk| chunk[..PAGE].copy_from_slice(&noise(&mut numbers, PAGE)));
    let mixed: Vec<u8> =
        random.chunks(512).zip(text.chunks(512)).flat_map(|(a, b)| [a, b].concat()).take(size).collect();
    let sound = |at: usize| ((at as f64 * 0.031).sin() * 9000.0 + (at as f64 * 0.0007).sin() * 9000.0) as i16;
    vec![
        ("zeros", vec![0; size]),
        ("ones", vec![0xff; size]),
        ("1 byte", vec![42]),
        ("a page and a byte of noise", noise(&mut numbers, PAGE + 1)),
        ("noise", random),
        ("text", text.clone()),
        ("UTF-16", text.iter().take(size / 2).flat_map(|byte| [*byte, 0]).collect()),
        ("a log of JSON lines", log),
        ("a table", table),
        ("hexadecimal digits", hex),
        ("counters", (0..size as u64 / 8).flat_map(u64::to_le_bytes).collect()),
        ("one page again and again", page.iter().copied().cycle().take(size).collect()),
        ("4,095 bytes again and again", page.iter().copied().take(PAGE - 1).cycle().take(size).collect()),
        ("few pages of noise in zeros", few),
        ("noise and text by turns", mixed),
        ("sound", (0..size / 2).flat_map(|at| sound(at).to_le_bytes()).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_have_the_size_and_names_of_their_own() {
        let size = 64 * PAGE;
        let all = generated(size);
        let long = all.iter().filter(|(_, bytes)| bytes.len() == size).count();
        assert_eq!(long + 2, all.len(), "all but two");
        let names: std::collections::BTreeSet<_> = all.iter().map(|(kind, _)| kind).collect();
        assert_eq!(names.len(), all.len());
    }
}
