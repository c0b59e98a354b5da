//! `fs`: a folder. There is no server and no network; only the disk can fail.
//!
//! A file system of 8 MiB, and a read-only one, are created in the mount namespace of a child process, and
//! reached through `/proc/PID/root`: the machine's own mounts are unchanged, and these end with that process, however
//! this one ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidelock::Host;
use tidelock::config::Config;
use tidelock::types::ObjectId;
use tidelock_tests::data::MIB;
use tidelock_tests::program::{files, guest};
use xtask::languages::Language;

use crate::bench::{BACKEND, Ground, Options, data_dir, fails};
use crate::cases::{Case, cases};
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

/// The prefix of which objects lie on the small file system.
const SMALL: &str = "disk-full";

pub fn entry() -> Entry {
    use Need::{HandsBack, HandsOn, Inventory, Labels, Lineage, Ranges, Unsized};
    of("fs", &[Ranges, Lineage, Unsized, Labels, Inventory, HandsOn, HandsBack], "", || guest("fs"))
}

/// Another component on the same place, as an adapter in another language is. It is asked what it declares.
pub fn of_component(path: PathBuf) -> Entry {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    of(&name, &declared(&path), GENEROUS, move || path.clone())
}

/// An adapter in another language, on the same place. It passes what it declares, and declares what it is held to here.
pub fn of_language(language: Language) -> Entry {
    use Need::{HandsBack, HandsOn, Inventory, Labels, Lineage, Ranges, Unsized};
    let declared: &[Need] = match language {
        Language::Python => &[Ranges, Lineage, Unsized, Labels, Inventory, HandsOn, HandsBack],
        Language::JavaScript => &[Ranges, Unsized, HandsOn, HandsBack],
    };
    let built = move || match language.why_not() {
        Some(why) => Err(why),
        None => Ok(language.build().unwrap_or_else(|error| panic!("{error:#}"))),
    };
    let has = [declared, &[Need::AtRest, Need::Credentials]].concat();
    Entry { name: language.component().into(), has, lacks, own, start: Box::new(move || start(built()?, GENEROUS)) }
}

/// An adapter of this name on a folder. `declared` is what it says of itself, which a case holds it to, and whether it
/// hands bytes on; `limits` go into its table.
pub fn of(
    name: &str,
    declared: &[Need],
    limits: &'static str,
    component: impl Fn() -> PathBuf + Send + Sync + 'static,
) -> Entry {
    let has = [declared, &[Need::AtRest, Need::Credentials]].concat();
    Entry { name: name.into(), has, lacks, own, start: Box::new(move || start(component(), limits)) }
}

/// What a component with an interpreter in it takes.
const GENEROUS: &str = ", memory = \"512 MiB\", instances = 64, cpu = \"120s\"";

/// What a component declares.
fn declared(component: &Path) -> Vec<Need> {
    let dir = data_dir();
    let text = format!(
        "data_dir = {:?}\n[backends.{BACKEND}]\nadapter = {component:?}\nlimits = {{ idle = '60s'{GENEROUS} }}\n\
         grants.directory.objects = {{ path = \"objects\" }}\n",
        dir.path()
    );
    let opened = async {
        let host = Host::start(&Config::parse(&text, dir.path())?, &Keys::default()).await?;
        host.adapter(BACKEND).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let adapter = runtime.block_on(opened).unwrap_or_else(|error| panic!("{}: {error:?}", component.display()));
    let features = adapter.description().features;
    let declared = [
        (features.ranges, Need::Ranges),
        (features.lineage, Need::Lineage),
        (features.unsized_input, Need::Unsized),
        (features.labels, Need::Labels),
        (adapter.optional_interfaces().contains(&"inventory"), Need::Inventory),
    ];
    declared.into_iter().filter_map(|(so, need)| so.then_some(need)).collect()
}

fn lacks(case: &str) -> Option<&'static str> {
    let wire = case.starts_with("fault_");
    wire.then_some(
        "a folder has no network: see disk_full, folder_gone, truncated_while_read and what is damaged at rest",
    )
}

fn start(component: PathBuf, limits: &'static str) -> Started {
    let dir = tempfile::Builder::new().prefix("tidelock-conformance-fs-").tempdir().unwrap();
    let mounts = Mounts::make(dir.path())?;
    Ok(Arc::new(Folder { component, limits, root: dir.path().join("root"), mounts, _dir: dir }))
}

struct Folder {
    component: PathBuf,
    limits: &'static str,
    root: PathBuf,
    mounts: Mounts,
    _dir: tempfile::TempDir,
}

/// A process with mounts of its own.
struct Mounts {
    process: Child,
    _input: ChildStdin,
    below: PathBuf,
}

/// `$1/small` is small, `$1/fixed` is `$1/root` for reading alone. The process ends with its input.
const MOUNT: &str = r#"set -eu
mkdir -p "$1/root" "$1/small" "$1/fixed"
mount --make-rprivate /
mount -t tmpfs -o size=8m tidelock "$1/small"
mount --bind "$1/root" "$1/fixed"
mount -o remount,bind,ro "$1/fixed"
echo ready
read -r _ || true
"#;

impl Mounts {
    /// Why there are none, if this machine does not allow them.
    fn make(dir: &Path) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", MOUNT, "sh"]).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(|error| format!("`unshare` cannot be started: {error}"))?;
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut said = String::new();
        let _ = BufReader::new(output).read_line(&mut said);
        if said != "ready\n" {
            let _ = process.kill();
            let _ = process.wait();
            return Err("a small and a fixed file system need mounts, which are not allowed here".into());
        }
        let below = PathBuf::from(format!("/proc/{}/root{}", process.id(), dir.display()));
        Ok(Self { process, _input: input, below })
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Folder {
    fn folder(&self, prefix: &str) -> PathBuf {
        if prefix == SMALL { self.mounts.below.join("small") } else { self.root.join(prefix) }
    }
}

impl Place for Folder {
    fn servers(&self) -> Vec<Server> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        vec![Server { name: "Linux", version: kernel.trim().to_owned(), real: true }]
    }

    fn component(&self) -> PathBuf {
        self.component.clone()
    }

    fn table(&self, want: &Want<'_>) -> String {
        let path = match want.stranger {
            true => self.mounts.below.join("fixed").join(want.prefix),
            false => self.folder(want.prefix),
        };
        format!("grants.directory.objects = {{ path = {path:?} }}")
    }

    fn limits(&self) -> &'static str {
        self.limits
    }

    fn keys(&self, _: bool) -> Keys {
        Keys::default()
    }

    fn strangers_read(&self) -> bool {
        true
    }

    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>> {
        async move { objects(&self.folder(prefix), "") }.boxed()
    }

    fn bytes<'a>(&'a self, prefix: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>> {
        async move { fs::read(self.folder(prefix).join(id.as_str())).unwrap() }.boxed()
    }

    fn damage<'a>(&'a self, prefix: &'a str, id: &'a ObjectId, how: Damage) -> BoxFuture<'a, ()> {
        async move { damage(&self.folder(prefix).join(id.as_str()), how) }.boxed()
    }
}

/// The objects below a folder, below a part of it; side files and what is unfinished are none.
pub fn objects(root: &Path, below: &str) -> BTreeMap<String, u64> {
    let is_object = |path: &PathBuf| !path.starts_with(root.join(".tmp")) && path.extension().is_none();
    let found = files(&root.join(below)).into_iter().filter(is_object);
    let named = |path: PathBuf| {
        let size = fs::metadata(&path).ok()?.len();
        Some((path.strip_prefix(root).ok()?.to_str()?.to_owned(), size))
    };
    found.filter_map(named).collect()
}

/// Damages a file.
pub fn damage(path: &Path, how: Damage) {
    let open = || File::options().read(true).write(true).open(path).unwrap();
    match how {
        Damage::Lose => fs::remove_file(path).unwrap(),
        Damage::Truncate => {
            let file = open();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        Damage::Flip => {
            let file = open();
            let (mut byte, at) = ([0], file.metadata().unwrap().len() / 2);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
    }
}

fn own() -> Vec<Case> {
    cases![
        [] disk_full, folder_gone, truncated_while_read, stat_of_a_huge_file_reads_nothing;
        [Inventory] foreign_files_are_not_objects;
    ]
}

/// The nearest that a disk has to 507: nothing is half there, and what was there stays.
async fn disk_full(ground: Arc<Ground>) {
    let bench = ground.open().await;
    assert_eq!(ground.prefix, SMALL);
    let bytes = ground.noise(3 * MIB);
    let id = bench.put(&ground, &bytes).await;
    for size in [Some(20 * MIB as u64), None] {
        let body = tidelock::Body::new(
            futures::stream::iter(
                ground.noise(20 * MIB).chunks(MIB).map(|c| Ok(c.to_vec().into())).collect::<Vec<_>>(),
            ),
            size,
        );
        let error = fails(bench.adapter.store(body, ground.hint(size)).await, &["unavailable"], "a full disk");
        assert!(error.to_string().contains("no space left"), "{error:?}");
        ground.sees_only("of a full disk", &[&id]).await;
    }
    bench.expect(&id, &bytes, "what was there").await;
    let left = fs::read_dir(folder_of(&ground).join(".tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files");
    bench.adapter.remove(&id).await.expect("a full disk lets go of what it has");
}

/// Where the objects of a case lie, by what its host was told.
fn folder_of(ground: &Ground) -> PathBuf {
    let table = ground.place.table(&Want { prefix: &ground.prefix, through: None, stranger: false });
    PathBuf::from(table.split('"').nth(1).unwrap())
}

/// The nearest that it has to 503. That the folder is gone says nothing about the objects: they are not "not found".
async fn folder_gone(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.put(&ground, &ground.noise(100)).await;
    fs::remove_dir_all(folder_of(&ground)).unwrap();
    fails(bench.store(&ground, b"x").await, &["unavailable"], "a store");
    fails(bench.read(&id, None).await, &["unavailable"], "a retrieve");
    fails(bench.adapter.stat(&id).await, &["unavailable"], "stat");
    if ground.entry.has.contains(&Need::Inventory) {
        fails(bench.adapter.list_objects(None, 10).await, &["unavailable"], "an inventory");
    }
}

/// The nearest that it has to a body that ends early.
async fn truncated_while_read(ground: Arc<Ground>) {
    use futures::StreamExt as _;
    let bench = ground.open().await;
    let bytes = ground.noise(40 * MIB);
    let id = bench.put(&ground, &bytes).await;
    let mut body = bench.adapter.retrieve(&id, None).await.unwrap();
    body.next().await.unwrap().unwrap();
    damage(&folder_of(&ground).join(id.as_str()), Damage::Truncate);
    let rest = body.collect(1 << 30).await;
    fails(rest, &["unavailable"], "a file that became shorter");
}

/// 4 TiB of nothing, of which a stat reads none: it would take hours.
async fn stat_of_a_huge_file_reads_nothing(ground: Arc<Ground>) {
    let bench = ground.open_with(Options { hasty: true, ..Options::default() }).await;
    let id = bench.put(&ground, &ground.noise(100)).await;
    let file = File::options().write(true).open(folder_of(&ground).join(id.as_str())).unwrap();
    file.set_len(4 << 40).unwrap();
    assert_eq!(bench.adapter.stat(&id).await.unwrap().size, 4 << 40);
}

/// Files that others put there, links and folders: none of them becomes an object of ours, and none is touched.
async fn foreign_files_are_not_objects(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.put(&ground, &ground.noise(100)).await;
    let folder = folder_of(&ground);
    File::create(folder.join("README.txt")).unwrap().write_all(b"hello").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let page = bench.adapter.list_objects(None, 100).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| &entry.id).collect::<Vec<_>>(), [&id]);
    let link = ObjectId::new("link").unwrap();
    fails(bench.read(&link, None).await, &["invalid", "denied", "not-found"], "a way out");
    assert!(folder.join("README.txt").exists());
}
