//! One wasmtime engine per host: how guests are compiled, where their memory comes from, and the clock that interrupts
//! them.
//!
//! Instances come from a pool whose size bounds what all adapters together can take. An operation that finds the pool
//! full waits for a place; it does not fail. A thread advances the engine's epoch every [`TICK`]; compiled code checks it
//! at loop heads and calls, so that no guest can hold a thread for longer, and the time that it bodies one is counted
//! against the operation's CPU limit (`watch.rs`), which also hears of each tick. Fuel would count exactly but costs several
//! times as much.
//!
//! Compiled code is charge on disk (`*.cwasm`), keyed by the SHA-256 of the component and by everything about the engine
//! that shapes code. Such a file is machine code: whoever can write there can run code in the host. The folder is made
//! with mode 0700, files appear in it by rename only, and a file that does not load is compiled again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits::LimitExceeded;
use super::state::OperationState;
use super::usage::Usage;
use super::watchdog::Watchdog;
use super::wit;
use tidelock_types::{Error, ErrorKind, Result};

/// How often the epoch advances, and so how long a guest can run before the host looks at it.
pub const TICK: Duration = Duration::from_millis(10);

/// The stack of compiled code. wasmtime's default; the same for all backends, since it is part of how code runs.
pub(super) const WASM_STACK: usize = 512 << 10;

/// Linear memories of a component. An adapter has one; one that is put together from components, one for each.
pub(super) const MEMORIES: u32 = 4;

/// Tables of a component. An adapter from Rust has one or two, one from Python 10.
pub(super) const TABLES: u32 = 64;

/// The most core instances of a component that any backend's limit can allow. Each has its slot in the pool.
pub(super) const INSTANCES: usize = 128;

/// Components with code that a component may be put together from, itself included. Each can block a stack, however few core
/// instances it is made of, and stacks cost more than address space: a guard page parts them, and a process can have
/// only so many mappings.
pub(super) const COMPONENTS: u64 = 16;

/// Stacks for each operation. A component can block one for each component that it is put together from, and one for the
/// call itself: not even the largest can take all of them, as long as half of the places are free.
const STACKS: u32 = 9;

/// What an [`Engine`] is made with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How many operations may run at once, all backends together. Further ones wait.
    pub operations: u32,
    /// The most linear memory that any backend's limit can allow. Address space is reserved for it, not memory.
    pub largest_memory: u64,
    /// The most elements of a table that any backend's limit can allow. Address space again.
    pub largest_table: u64,
    /// Where compiled components are charge; `None` compiles at every start.
    pub cache: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { operations: 256, largest_memory: 1 << 30, largest_table: 20_000, cache: None }
    }
}

/// The SHA-256 of a component's bytes: its identity in configuration, history and cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComponentDigest([u8; 32]);

impl ComponentDigest {
    /// Of a component.
    pub fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }

    /// From the 32 bytes of a pinned digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl std::fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl std::fmt::Debug for ComponentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Compiles components and lends places to run them.
pub struct Engine {
    inner: wasmtime::Engine,
    /// All that a guest may import. The same for every adapter, so it is made once: WASI alone has hundreds of functions.
    linker: Linker<OperationState>,
    places: Arc<Semaphore>,
    watchdog: Arc<Watchdog>,
    options: EngineOptions,
}

/// How a component came to be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CompiledFrom {
    /// By the compiler, now.
    Source,
    /// Loaded from the cache.
    Cache,
}

impl Engine {
    /// Makes an engine and starts its clock, a thread that ends with the engine.
    ///
    /// # Errors
    /// `unavailable` if the address space for the pool cannot be reserved, or the cache folder cannot be made.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>> {
        if let Some(cache) = &options.cache {
            make_private_dir(cache)?;
        }
        let inner = wasmtime::Engine::new(&config(&options)).map_err(|error| {
            Error::unavailable(format!("cannot set up the sandbox: {error:#}"))
                .hint("lower `operations`, or allow this process more address space (ulimit -v)")
        })?;
        let watchdog = Arc::new(Watchdog::default());
        start_clock(&inner, watchdog.clone())?;
        let linker = wit::linker(&inner)
            .map_err(|error| Error::other(format!("cannot set up the sandbox: {}", first_line(&error))))?;
        let places = Arc::new(Semaphore::new(options.operations as usize));
        Ok(Arc::new(Self { inner, linker, places, watchdog, options }))
    }

    /// The engine below, for components that are run beside adapters in the same pool, as a benchmark does. They take
    /// places of the pool that adapters are not told of.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    pub(super) fn linker(&self) -> &Linker<OperationState> {
        &self.linker
    }

    /// What it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Watchdog an operation until it ends.
    pub(super) fn watch(&self, usage: &Arc<Usage>) {
        self.watchdog.begin(usage);
    }

    /// Waits for a place in the pool.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.map_err(|_| Error::new(ErrorKind::Cancelled, "the host has stopped"))
    }

    /// Compiles a component or loads it from the cache. Takes milliseconds to seconds: call it off the async threads.
    ///
    /// # Errors
    /// `invalid` if the bytes are not a component, or use WebAssembly features that the sandbox does not have; `limit` for
    /// one that needs more than any backend can allow.
    pub fn compile(&self, bytes: &[u8]) -> Result<(Component, CompiledFrom)> {
        if !is_component(bytes) {
            return Err(Error::invalid(what_it_is_instead(bytes))
                .hint("build it for wasm32-unknown-unknown and make a component of it (docs/write-an-adapter.md)"));
        }
        let cached = self.options.cache.as_deref().map(|dir| self.cache_file(dir, bytes));
        if let Some(component) = cached.as_deref().and_then(|file| self.load_cached(file)) {
            return Ok((component, CompiledFrom::Cache));
        }
        let component = Component::new(&self.inner, bytes).map_err(|error| {
            if let Some(exceeded) = LimitExceeded::of_compiler(&error, &self.options) {
                return exceeded.error().with_source(error);
            }
            Error::invalid(format!("the component cannot be compiled: {}", first_line(&error))).with_source(error)
        })?;
        if let Some(file) = cached
            && let Err(error) =
                component.serialize().map_err(std::io::Error::other).and_then(|code| write_new(&file, &code))
        {
            // The next start compiles again, nothing else.
            tracing::warn!(file = %file.display(), %error, "cannot keep compiled code");
        }
        Ok((component, CompiledFrom::Source))
    }

    fn cache_file(&self, dir: &Path, bytes: &[u8]) -> PathBuf {
        use std::hash::{Hash as _, Hasher as _};
        let mut engine = Fnv(0xcbf2_9ce4_8422_2325);
        self.inner.precompile_compatibility_hash().hash(&mut engine);
        dir.join(format!("{}-{:016x}.cwasm", ComponentDigest::of(bytes).hex(), engine.finish()))
    }

    fn load_cached(&self, file: &Path) -> Option<Component> {
        if !file.exists() {
            return None;
        }
        // SAFETY: the file was written by `compile` of this engine's configuration into a folder that only this user
        // can write to (mode 0700), and appeared there whole, by rename. See the head of this file.
        match unsafe { Component::deserialize_file(&self.inner, file) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(file = %file.display(), error = first_line(&error), "compiled code does not load, compiling again");
                None
            }
        }
    }
}

fn config(options: &EngineOptions) -> Config {
    let operations = options.operations.max(1);
    let mut pool = PoolingAllocationConfig::default();
    // Every operation can have all that any backend's limits can allow, so that no guest's appetite makes another's
    // instantiation fail. The pool is sized in address space, which costs nothing until it is touched.
    pool.total_component_instances(operations)
        .total_core_instances(operations.saturating_mul(INSTANCES as u32))
        .total_memories(operations.saturating_mul(MEMORIES))
        .total_tables(operations.saturating_mul(TABLES))
        .total_stacks(operations.saturating_mul(STACKS))
        .max_core_instances_per_component(INSTANCES as u32)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(usize::try_from(options.largest_table).unwrap_or(usize::MAX))
        .max_memory_size(usize::try_from(options.largest_memory).unwrap_or(usize::MAX))
        // Pages that a previous operation touched are charge and zeroed by hand up to here, instead of going back to
        // the kernel: most operations touch less.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(options.largest_memory)
        .max_wasm_stack(WASM_STACK)
        .epoch_interruption(true)
        .wasm_component_model_async(true);
    config
}

fn start_clock(engine: &wasmtime::Engine, watchdog: Arc<Watchdog>) -> Result<()> {
    let weak = engine.weak();
    std::thread::Builder::new()
        .name("tidelock-epoch".into())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
                watchdog.look(Instant::now());
            }
        })
        .map(drop)
        .map_err(|error| Error::io("starting the sandbox's clock", error))
}

/// Makes a folder that only this user can enter; one that exists is taken if it is ours alone to write.
fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let what = || format!("the folder for compiled components, {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::io(what(), error))?;
    let meta = std::fs::metadata(dir).map_err(|error| Error::io(what(), error))?;
    if meta.mode() & 0o022 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::denied(format!("{} can be written by others", what())).hint(format!(
            "chmod 700 {} and make sure that it is yours: what lies there is run as machine code",
            dir.display()
        )));
    }
    Ok(())
}

fn write_new(file: &Path, code: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(code)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map(drop).map_err(|error| error.error)
}

/// A component begins with `\0asm`, version 13 (0x0d), layer 1; a core module has version 1, layer 0.
fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x0d\x00\x01\x00")
}

fn what_it_is_instead(bytes: &[u8]) -> String {
    if bytes.starts_with(b"\0asm\x01\x00\x00\x00") {
        "this is a core WebAssembly module, not a component".into()
    } else if bytes.is_empty() {
        "this file is empty, not a WebAssembly component".into()
    } else {
        "this is not a WebAssembly component".into()
    }
}

/// wasmtime's errors are chains with backtraces; the innermost line says what is wrong.
pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// FNV-1a: a hash that is the same in every process, for a file name.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(cache: Option<&Path>) -> Arc<Engine> {
        let options = EngineOptions { operations: 4, cache: cache.map(Path::to_owned), ..Default::default() };
        Engine::new(options).unwrap()
    }

    #[test]
    fn says_what_it_was_given_instead() {
        let engine = engine(None);
        let message = |bytes: &[u8]| engine.compile(bytes).err().unwrap().to_string();
        assert!(message(b"").contains("empty"));
        assert!(message(b"hello").contains("not a WebAssembly component"));
        assert!(message(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(message(b"\0asm\x0d\0\x01\0garbage").contains("cannot be compiled"));
    }

    #[test]
    fn keeps_compiled_code_and_survives_its_damage() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("compiled");
        let engine = engine(Some(&cache));
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(engine.compile(component).unwrap().1, CompiledFrom::Source);
        assert_eq!(engine.compile(component).unwrap().1, CompiledFrom::Cache);
        let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, b"garbage").unwrap();
        assert_eq!(engine.compile(component).unwrap().1, CompiledFrom::Source);
        assert_eq!(engine.compile(component).unwrap().1, CompiledFrom::Cache);
    }

    #[test]
    fn refuses_a_cache_that_others_can_write() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let options = EngineOptions { operations: 1, cache: Some(dir.path().to_owned()), ..Default::default() };
        assert!(Engine::new(options).err().unwrap().to_string().contains("written by others"));
    }
}
