//! The compiler: wasmtime's configuration, the pool's sizes, and the cache of compiled code.
//!
//! Instances come from a pool whose size bounds what all adapters together can take; what runs in it is the sandbox's
//! (`sandbox.rs`). The pool reserves address space, not memory. Where there is less of it than was asked for (`ulimit -v`,
//! processors with 39-bit addresses), the pool is made smaller, and in the end each instance reserves its own: then fewer
//! operations run at once, and the others wait.
//! Compiled code checks the engine's epoch at loop heads and calls, so that no guest can hold a thread for
//! longer than a tick. Fuel would count exactly but costs several times as much.
//!
//! Compiled code is kept on disk (`*.cwasm`), keyed by the SHA-256 of the component and by everything about the engine
//! that shapes code. Such a file is machine code: whoever can write there can run code in the host. The folder is made
//! with mode 0700, files appear in it by rename only, and a file that does not load is compiled again.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use wasmtime::component::Component;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::digest::ComponentDigest;
use super::nesting;
use tidelock_types::limits::{MEMORIES, TABLES, WASM_STACK};
use tidelock_types::{Error, LimitExceeded, Limits, Platform, Result};

/// The most core instances of a component that any backend's limit can allow. Each has its slot in the pool.
pub(crate) const INSTANCES: usize = 128;

/// Stacks for each operation. A component can block one for each component that it is put together from, and one for the
/// call itself: not even the largest can take all of them, as long as half of the places are free.
const STACKS: u32 = 9;

/// A pool with fewer places than this is not worth its address space.
const SMALLEST_POOL: u32 = 16;

/// The operations that run at once without a pool.
const WITHOUT_POOL: u32 = 8;

/// Options of an [`Engine`].
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How many operations may run at once, all backends together. Further ones wait. They are fewer where there is no
    /// address space for so many ([`Engine::operations`]).
    pub operations: u32,
    /// The most linear memory that any backend's limit can allow. Address space is reserved for it, not memory.
    pub largest_memory: u64,
    /// The most elements of a table that any backend's limit can allow. Address space again.
    pub largest_table: u64,
    /// Where compiled components are kept; `None` compiles at every start.
    pub cache: Option<PathBuf>,
    /// The clock and the random numbers of what runs here.
    pub platform: Platform,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            operations: 128,
            largest_memory: Limits::DEFAULT.memory,
            largest_table: Limits::DEFAULT.table_elements,
            cache: None,
            platform: Platform::system(),
        }
    }
}

/// Compiles components.
pub struct Engine {
    inner: wasmtime::Engine,
    options: EngineOptions,
    operations: u32,
}

/// Source of a component's compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CompiledFrom {
    /// By the compiler, now.
    Source,
    /// Loaded from the cache.
    Cache,
}

impl Engine {
    /// Makes an engine, with as many places as there is address space for.
    ///
    /// # Errors
    /// `unavailable` if there is none even for an engine without a pool; `denied` and others if the cache folder cannot be
    /// made.
    pub fn new(options: EngineOptions) -> Result<Self> {
        if let Some(cache) = &options.cache {
            make_private_dir(cache)?;
        }
        let wanted = options.operations.max(1);
        let mut pool = Some(wanted);
        loop {
            let (error, next) = match (wasmtime::Engine::new(&config(&options, pool)), pool) {
                (Ok(inner), _) => {
                    let operations = pool.unwrap_or(WITHOUT_POOL.min(wanted));
                    if operations < wanted {
                        tracing::info!(wanted, operations, "little address space: fewer operations run at once");
                    }
                    return Ok(Self { inner, options, operations });
                }
                (Err(error), Some(places)) if places > SMALLEST_POOL => (error, Some(places / 2)),
                (Err(error), Some(_)) => (error, None),
                (Err(error), None) => {
                    if let Some(refused) = of_system(&error) {
                        return Err(refused);
                    }
                    return Err(Error::unavailable(format!("cannot set up the sandbox: {error:#}")).hint(NO_ROOM));
                }
            };
            tracing::debug!(?pool, error = first_line(&error), "a sandbox of this size cannot be set up");
            pool = next;
        }
    }

    /// How many operations can run at once.
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// The engine below, for components that are run beside adapters in the same pool, as a benchmark does. They take
    /// places of the pool that adapters do not count.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// Returns the options that it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Compiles a component or loads it from the cache. Takes milliseconds to seconds: call it off the async threads.
    ///
    /// # Errors
    /// `invalid` if the bytes are not a component, or use WebAssembly features that the sandbox does not have; `limit` for
    /// one that needs more than any backend can allow.
    pub fn compile(&self, bytes: &[u8]) -> Result<(Component, CompiledFrom)> {
        if !is_component(bytes) {
            return Err(Error::invalid(not_a_component(bytes))
                .hint("build it for wasm32-unknown-unknown and convert it to a component (docs/write-an-adapter.md)"));
        }
        let cached = self.options.cache.as_deref().map(|dir| self.cache_file(dir, bytes));
        if let Some(component) = cached.as_deref().and_then(|file| self.load_cached(file)) {
            return Ok((component, CompiledFrom::Cache));
        }
        nesting::check(bytes)?;
        // A parser that a component brings to its knees must not bring down more than the component.
        let read = caught(|| Component::new(&self.inner, bytes))
            .map_err(|why| Error::invalid(format!("the component cannot be parsed: {why}")))?;
        let component = read.map_err(|error| {
            if let Some(exceeded) = exceeded(&error, &self.options) {
                return exceeded.error().with_source(error);
            }
            if let Some(refused) = of_system(&error) {
                return refused;
            }
            Error::invalid(format!("the component cannot be compiled: {}", first_line(&error))).with_source(error)
        })?;
        if let Some(file) = cached
            && let Err(error) =
                component.serialize().map_err(std::io::Error::other).and_then(|code| write_new(&file, &code))
        {
            // The next start compiles again, nothing else.
            tracing::warn!(file = %file.display(), %error, "cannot cache compiled code");
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
                tracing::warn!(file = %file.display(), error = first_line(&error), "cached code does not load, compiling again");
                None
            }
        }
    }
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is caught and becomes an error: that of a parser, over a component that is malformed. A
/// program asks this in its panic hook, so as not to report what is reported as an error.
pub fn catches_panics() -> bool {
    CATCHES.get()
}

/// Calls, and returns the message of a panic as an error.
fn caught<T>(call: impl FnOnce() -> T) -> std::result::Result<T, String> {
    CATCHES.set(true);
    let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    CATCHES.set(false);
    called.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("the parser failed");
        text.lines().next().unwrap_or_default().chars().take(200).collect()
    })
}

/// The limit that a component was refused for when it was compiled. wasmtime has no type for it, so its words tell; the
/// tests of hostile guests hold that they still do.
fn exceeded(error: &wasmtime::Error, options: &EngineOptions) -> Option<LimitExceeded> {
    let text = format!("{error:#}");
    let says = |words: &str| text.contains(words);
    if says("core module instances, which exceeds the configured maximum") {
        Some(LimitExceeded::Instances(INSTANCES))
    } else if says("memories, which exceeds the configured maximum") {
        Some(LimitExceeded::Memories)
    } else if says("tables, which exceeds the configured maximum") || says("defined tables count of") {
        Some(LimitExceeded::Tables)
    } else if says("has a minimum element size of") {
        Some(LimitExceeded::TableElements(options.largest_table))
    } else if says("memory has a minimum byte size of") {
        Some(LimitExceeded::Memory(options.largest_memory))
    } else {
        None
    }
}

/// The hint where address space is short.
pub(crate) const NO_ROOM: &str = "allow this process more address space (ulimit -v), or lower `in_flight` and `memory` in the `limits` of the backends";

/// The configuration with a pool of so many places, or with none.
fn config(options: &EngineOptions, pool: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(options.largest_memory)
        .max_wasm_stack(WASM_STACK)
        .epoch_interruption(true)
        .wasm_component_model_async(true);
    if let Some(operations) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(self::pool(options, operations)));
    } else {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand).memory_may_move(true);
    }
    config
}

fn pool(options: &EngineOptions, operations: u32) -> PoolingAllocationConfig {
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
        // Pages that a previous operation touched are kept and zeroed by hand up to here, instead of going back to
        // the kernel: most operations touch less.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10);
    pool
}

/// Makes a folder that only this user can enter; one that exists is taken if it is ours alone to write.
fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let what = || format!("the directory of compiled components, {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::io(what(), error))?;
    let meta = std::fs::metadata(dir).map_err(|error| Error::io(what(), error))?;
    if meta.mode() & 0o022 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::denied(format!("{} is writable by other users", what()))
            .hint(format!("chmod 700 {} and own it: its files are run as machine code", dir.display())));
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

fn not_a_component(bytes: &[u8]) -> String {
    if bytes.starts_with(b"\0asm\x01\x00\x00\x00") {
        "this is a core WebAssembly module, not a component".into()
    } else if bytes.is_empty() {
        "this file is empty, not a WebAssembly component".into()
    } else {
        "this is not a WebAssembly component".into()
    }
}

/// The error of wasmtime's, if it is that the operating system has no more files, memory or threads: the fault of neither a
/// component nor its adapter.
pub(crate) fn of_system(error: &wasmtime::Error) -> Option<Error> {
    let refused = Error::of_system(format!("the sandbox: {error}"), error.as_ref())?;
    match format!("{error:#}").contains("mmap") {
        true => Some(refused.hint(NO_ROOM)),
        false => Some(refused),
    }
}

/// wasmtime's errors are chains with backtraces; the innermost line says what is wrong.
pub(crate) fn first_line(error: &wasmtime::Error) -> String {
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

    fn engine(cache: Option<&Path>) -> Engine {
        let options = EngineOptions { operations: 4, cache: cache.map(Path::to_owned), ..Default::default() };
        Engine::new(options).unwrap()
    }

    #[test]
    fn an_error_names_the_kind_of_file() {
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
        assert!(Engine::new(options).err().unwrap().to_string().contains("writable by other users"));
    }
}
