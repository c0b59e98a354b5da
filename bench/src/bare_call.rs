//! A component called with the engine alone: the least that an operation in an instance of its own can cost.
//!
//! The engine, and so its configuration and its pool, is the one that the adapter runs in; the component has the same
//! bytes. Each call makes a store, an instance, calls one export and drops both. Nothing of the host's is in it: no
//! capabilities (an import that is called traps), no limits, no watchdog. The exports that are called do the least that
//! there is in the component:
//!
//! - `describe`, a synchronous function that makes a few strings;
//! - `stat` of an empty id, an asynchronous function, as all operations are, which refuses it before it asks anyone.

use std::time::Instant;

use anyhow::{Result, ensure};
use tidelock::runtime::Engine;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, InstancePre, Linker, Val};

/// The interface that has both exports.
const INTERFACE: &str = "tidelock:storage/adapter@0.1.1";

/// A component ready to be called.
pub struct BareCall {
    engine: wasmtime::Engine,
    pre: InstancePre<()>,
    describe: ComponentExportIndex,
    stat: ComponentExportIndex,
}

impl BareCall {
    /// Compiles a component in the engine.
    pub fn new(engine: &Engine, component: &[u8]) -> Result<Self> {
        let (component, _) = engine.compile(component)?;
        let mut linker = Linker::new(engine.wasmtime());
        linker.define_unknown_imports_as_traps(&component).map_err(of_engine)?;
        let find = |name| {
            let interface = component.get_export_index(None, INTERFACE)?;
            component.get_export_index(Some(&interface), name)
        };
        let (Some(describe), Some(stat)) = (find("describe"), find("stat")) else {
            anyhow::bail!("the component does not export {INTERFACE}")
        };
        let pre = linker.instantiate_pre(&component).map_err(of_engine)?;
        Ok(Self { engine: engine.wasmtime().clone(), pre, describe, stat })
    }

    /// Microseconds that a call of `describe` takes, instance and all.
    pub async fn describe(&self) -> Result<f64> {
        self.call(&self.describe, &[]).await
    }

    /// Microseconds that a refused `stat` takes, instance and all.
    pub async fn refused(&self) -> Result<f64> {
        self.call(&self.stat, &[Val::String(String::new())]).await
    }

    async fn call(&self, export: &ComponentExportIndex, arguments: &[Val]) -> Result<f64> {
        let began = Instant::now();
        let mut store = Store::new(&self.engine, ());
        // Compiled code looks at the epoch, as in an adapter; nothing here waits for one.
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.pre.instantiate_async(&mut store).await.map_err(of_engine)?;
        let Some(function) = instance.get_func(&mut store, export) else { anyhow::bail!("the export is no function") };
        let mut answer = [Val::Bool(false)];
        function.call_async(&mut store, arguments, &mut answer).await.map_err(of_engine)?;
        drop(store);
        let taken = began.elapsed().as_secs_f64() * 1e6;
        let said = match &answer[0] {
            Val::Record(_) => arguments.is_empty(),
            Val::Result(refused) => refused.is_err(),
            _ => false,
        };
        ensure!(said, "the export did not do what it was called for");
        Ok(taken)
    }
}

/// wasmtime's errors are not of the standard trait.
fn of_engine(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
