//! What a loss of power leaves of a folder: the files of a program are recorded while it runs ([`Recorder`]), and each moment
//! can be made anew as a disk would have it on which only some of the writes had arrived ([`Moment::after`]).
//!
//! The model is that of POSIX, the least that any file system promises: the bytes of a file are durable by a sync of the
//! file, its name by a sync of its directory, and what was not synced is there or is not, each on its own.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::faults::mix;
use crate::steps::{Next, Step};

/// A file or directory whatever its name: its number, and when it was made, since numbers are given again.
type Id = String;

/// The name of the file in the record that has the bytes.
type Blob = String;

/// The bytes of a file that was never synced.
const EMPTY: &str = "empty";

/// A folder with all that is in it. What is neither a file nor a directory is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    files: BTreeMap<Id, Blob>,
    directories: BTreeMap<Id, BTreeMap<String, Id>>,
}

/// The moment before a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Moment {
    /// The call that comes next.
    pub before: String,
    /// What the program has written to its standard output, with what this call writes.
    pub said: String,
    root: Id,
    durable: Disk,
    current: Disk,
}

/// How much of what was not synced has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrived {
    /// Nothing.
    Nothing,
    /// The names, and none of the bytes.
    Names,
    /// Of each file and each directory all or nothing, as this number has it.
    Some(u64),
}

/// Records a folder while a program works in it.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    record: PathBuf,
    root: Id,
    durable: Disk,
    said: String,
    moments: Vec<Moment>,
}

impl Recorder {
    /// A record, in a folder of its own, of another one. What is there now is durable.
    pub fn begin(folder: &Path, record: &Path) -> io::Result<Self> {
        fs::create_dir_all(record)?;
        fs::write(record.join(EMPTY), b"")?;
        let root = id(&folder.metadata()?);
        let (folder, record) = (folder.to_owned(), record.to_owned());
        let mut recorder =
            Self { folder, record, root, durable: Disk::default(), said: String::new(), moments: Vec::new() };
        recorder.durable = recorder.scan()?;
        Ok(recorder)
    }

    /// Takes down the moment before this step, and then what the step makes durable or says.
    pub fn step(&mut self, step: Step) -> io::Result<Next> {
        let current = self.scan()?;
        for file in current.files.keys() {
            self.durable.files.entry(file.clone()).or_insert_with(|| EMPTY.to_owned());
        }
        for directory in current.directories.keys() {
            self.durable.directories.entry(directory.clone()).or_default();
        }
        let [descriptor, address, length] = step.arguments;
        let open = PathBuf::from(format!("/proc/{}/fd/{descriptor}", step.thread));
        if step.call == "write" && descriptor == 1 {
            self.said.push_str(&memory(step, address, length)?);
        }
        self.moments.push(Moment {
            before: step.call.to_owned(),
            said: self.said.clone(),
            root: self.root.clone(),
            durable: self.durable.clone(),
            current,
        });
        if matches!(step.call, "fsync" | "fdatasync") {
            let about = open.metadata()?;
            if about.is_dir() {
                let names = self.names(&open)?;
                self.durable.directories.insert(id(&about), names);
            } else {
                let blob = self.blob(&open)?;
                self.durable.files.insert(id(&about), blob);
            }
        }
        Ok(Next::Go)
    }

    /// Writes the moments down.
    pub fn end(self) -> io::Result<()> {
        fs::write(self.record.join("moments"), serde_json::to_vec(&self.moments)?)
    }

    fn scan(&self) -> io::Result<Disk> {
        let mut disk = Disk::default();
        let mut left = vec![self.folder.clone()];
        while let Some(directory) = left.pop() {
            let names = self.names(&directory)?;
            for name in names.keys() {
                let path = directory.join(name);
                let about = path.symlink_metadata()?;
                if about.is_dir() {
                    left.push(path);
                } else {
                    let blob = self.blob(&path)?;
                    disk.files.insert(id(&about), blob);
                }
            }
            disk.directories.insert(id(&directory.metadata()?), names);
        }
        Ok(disk)
    }

    fn names(&self, directory: &Path) -> io::Result<BTreeMap<String, Id>> {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() || about.is_file() {
                names.insert(entry.file_name().to_string_lossy().into_owned(), id(&about));
            }
        }
        Ok(names)
    }

    /// Keeps the bytes of a file.
    fn blob(&self, path: &Path) -> io::Result<Blob> {
        let bytes = fs::read(path)?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let name = format!("{:016x}", hasher.finish());
        if !self.record.join(&name).exists() {
            fs::write(self.record.join(&name), bytes)?;
        }
        Ok(name)
    }
}

/// The moments that [`Recorder::end`] has written down.
pub fn moments(record: &Path) -> Vec<Moment> {
    serde_json::from_slice(&fs::read(record.join("moments")).expect("a record")).expect("moments")
}

impl Moment {
    /// What is there when the power comes back: the bytes of each file, by its path, in the record of this moment.
    pub fn after(&self, arrived: Arrived) -> BTreeMap<PathBuf, Blob> {
        let mut files = BTreeMap::new();
        let mut left = vec![(PathBuf::new(), &self.root)];
        while let Some((path, id)) = left.pop() {
            if let Some(names) = self.directory(id, arrived) {
                left.extend(names.iter().map(|(name, id)| (path.join(name), id)));
            } else if let Some(blob) = self.file(id, arrived) {
                files.insert(path, blob.clone());
            }
        }
        files
    }

    fn directory(&self, id: &Id, arrived: Arrived) -> Option<&BTreeMap<String, Id>> {
        let (durable, current) = (self.durable.directories.get(id), self.current.directories.get(id));
        if has_arrived(id, arrived, true) { current.or(durable) } else { durable }
    }

    fn file(&self, id: &Id, arrived: Arrived) -> Option<&Blob> {
        let (durable, current) = (self.durable.files.get(id), self.current.files.get(id));
        if has_arrived(id, arrived, false) { current.or(durable) } else { durable }
    }
}

fn has_arrived(id: &Id, arrived: Arrived, names: bool) -> bool {
    match arrived {
        Arrived::Nothing => false,
        Arrived::Names => names,
        Arrived::Some(number) => {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            mix(number, hasher.finish()).is_multiple_of(2)
        }
    }
}

/// Makes these files in an empty folder.
pub fn make(files: &BTreeMap<PathBuf, Blob>, record: &Path, folder: &Path) {
    for (path, blob) in files {
        let path = folder.join(path);
        let parent = path.parent().expect("a folder");
        fs::create_dir_all(parent).expect("a folder");
        fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).expect("its mode");
        fs::copy(record.join(blob), &path).expect("its bytes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
}

fn id(about: &fs::Metadata) -> Id {
    let made = about.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", about.ino(), made.as_nanos())
}

/// Bytes of the program's memory.
fn memory(step: Step, address: u64, length: u64) -> io::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0).min(1 << 16)];
    fs::File::open(format!("/proc/{}/mem", step.thread))?.read_exact_at(&mut bytes, address)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
