//! The built program, run in a folder of its own as a user runs it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::host::{Profile, binary};

/// How long anything may take before it counts as hanging. Far above what it takes: no test measures time.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The program, built on first use.
pub fn tidelock() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| binary(Profile::Dev).expect("tidelock can be built"))
}

/// A component that was built with the other guests.
pub fn guest(name: &str) -> PathBuf {
    let guests = xtask::guests::ensure().expect("the guests can be built");
    guests.get(name).unwrap_or_else(|| panic!("there is no guest {name}")).clone()
}

/// A folder in which the program is run.
pub struct Home {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Home {
    /// An empty one: no configuration, so the embedded default holds.
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// The same below a folder.
    pub fn within(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("tidelock-test-").tempdir_in(parent).expect("a temporary folder");
        Self { dir, environment: Vec::new() }
    }

    /// With a configuration.
    pub fn with(config: &str) -> Self {
        let home = Self::new();
        home.file("tidelock.toml", config);
        home
    }

    /// With two backends, `first` and `second`, in the folders `one` and `two`, that each get a copy.
    pub fn with_two_copies() -> Self {
        Self::with(
            "[backends.first]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"one\" }\n\
             [backends.second]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"two\" }\n\
             [routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\n",
        )
    }

    /// Sets a variable for every run.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; gives its path as the text that an argument is.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file in the folder can be written");
        path.to_str().expect("paths of tests are text").into()
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The program with arguments, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tidelock());
        self.settle(&mut command);
        command.args(arguments);
        command
    }

    /// Gives a command this folder and these variables.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(self.dir.path()).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    }

    /// Runs the program to its end without input.
    pub fn run(&self, arguments: &[&str]) -> ProgramOutput {
        Running::start(self.command(arguments)).finish()
    }

    /// Runs the program to its end with these bytes on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> ProgramOutput {
        let mut running = Running::start(self.command(arguments));
        // A program that ends early stops reading: its outcome says more than the broken pipe.
        let _ = running.feed(input);
        running.finish()
    }

    /// What a run that has to succeed wrote to stdout.
    #[track_caller]
    pub fn bytes(&self, arguments: &[&str]) -> Vec<u8> {
        self.run(arguments).success(arguments).stdout
    }

    /// The same as one line of text.
    #[track_caller]
    pub fn line(&self, arguments: &[&str]) -> String {
        one_line(self.run(arguments).success(arguments))
    }

    /// The one line of a run that is given bytes on standard input.
    #[track_caller]
    pub fn line_with(&self, arguments: &[&str], input: &[u8]) -> String {
        one_line(self.run_with(arguments, input).success(arguments))
    }

    /// The one JSON object of a run that has to succeed; `--json` is added.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        self.run(&arguments).success(&arguments).json()
    }

    /// What a run that has to fail with this status said on stderr; it may have said nothing on stdout.
    #[track_caller]
    pub fn refused(&self, status: i32, arguments: &[&str]) -> String {
        self.run(arguments).refused(status, arguments)
    }

    /// The objects that are visible to readers of the default backend's folder, but for the one that identifies it.
    pub fn objects(&self) -> Vec<PathBuf> {
        self.objects_below("tidelock-data/objects")
    }

    /// The same of a folder of this one.
    pub fn objects_below(&self, folder: &str) -> Vec<PathBuf> {
        let root = self.path(folder);
        let all = files(&root).into_iter();
        let snapshots = |path: &PathBuf| path.file_name().is_none_or(|name| !is_identity(&name.to_string_lossy()));
        let visible = |path: &PathBuf| !path.starts_with(root.join(".tmp")) && path.extension().is_none();
        all.filter(|path| visible(path) && snapshots(path)).collect()
    }

    /// Everything that is unfinished: files in a folder for temporary ones anywhere below the data directory.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let temporary = |path: &PathBuf| {
            path.components().any(|part| [".tmp", "tmp"].contains(&part.as_os_str().to_str().unwrap_or_default()))
        };
        let root = self.path("tidelock-data");
        let all = files(&root).into_iter();
        all.filter(|path| path.strip_prefix(&root).is_ok_and(|path| temporary(&path.to_path_buf()))).collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// All files below a folder; none if it is not there.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

#[track_caller]
fn one_line(outcome: ProgramOutput) -> String {
    let text = String::from_utf8(outcome.stdout).expect("text on stdout");
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("not a line: {text:?}"));
    assert!(!line.contains('\n'), "more than a line: {text:?}");
    line.into()
}

/// How a run ended.
#[derive(Debug)]
pub struct ProgramOutput {
    /// The exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: String,
}

impl ProgramOutput {
    /// Insists on status 0.
    #[track_caller]
    pub fn success(self, arguments: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(0), "tidelock {}\n{}", arguments.join(" "), self.stderr);
        self
    }

    /// Insists on a status other than 0 and on an explanation; gives what was said on stderr.
    #[track_caller]
    pub fn refused(self, status: i32, arguments: &[&str]) -> String {
        let said = format!("tidelock {}\n{}", arguments.join(" "), self.stderr);
        assert_eq!(self.status.code(), Some(status), "{said}");
        assert!(self.stdout.is_empty(), "on stdout: {:?}; {said}", String::from_utf8_lossy(&self.stdout));
        assert!(!self.stderr.trim().is_empty(), "it does not say why: {said}");
        assert!(!self.stderr.contains("panicked"), "{said}");
        self.stderr
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.stdout);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        assert!(value.is_object(), "not an object: {value}");
        value
    }
}

/// The keys of an object, sorted.
#[track_caller]
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A program that runs. Killed when it is dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    stdout: Option<Drain>,
    stderr: Option<Drain>,
}

impl Running {
    /// Starts a command with all three streams piped; its output is read at once, so that it never waits for us.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        let stdout = child.stdout.take().map(Drain::of);
        let stderr = child.stderr.take().map(Drain::of);
        Self { child, input, stdout, stderr }
    }

    /// Writes to its standard input, which stays open. Returns once all but a pipe's worth of it has been read.
    pub fn feed(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.as_mut().expect("its input is open").write_all(bytes)
    }

    /// Returns whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.stdout.as_ref().map(Drain::so_far).unwrap_or_default()).into_owned()
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.as_ref().map(Drain::so_far).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, from one moment to the next.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Closes its input and waits for its end.
    pub fn finish(mut self) -> ProgramOutput {
        drop(self.input.take());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                break status;
            }
            if began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let said = self.stderr.take().map(Drain::all).unwrap_or_default();
                panic!("it hangs; it said: {}", String::from_utf8_lossy(&said));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let stdout = self.stdout.take().map(Drain::all).unwrap_or_default();
        let stderr = self.stderr.take().map(Drain::all).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        ProgramOutput { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that is read at once.
struct Drain {
    read: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Drain {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let read = Arc::new(Mutex::new(Vec::new()));
        let into = read.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().expect("nobody panics here").extend_from_slice(&buffer[..count]);
            }
        });
        Self { read, thread }
    }

    /// What has come so far.
    fn so_far(&self) -> Vec<u8> {
        self.read.lock().expect("nobody panics here").clone()
    }

    /// All of it, once the other end is closed.
    fn all(self) -> Vec<u8> {
        let _ = self.thread.join();
        std::mem::take(&mut self.read.lock().expect("nobody panics here"))
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "this never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether an object of this name identifies its container and holds no snapshot.
pub fn is_identity(name: &str) -> bool {
    name.contains("tidelock-container-")
}
