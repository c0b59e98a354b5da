//! From a component to an adapter, in the stages that a swap reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::Semaphore;

use super::{Adapter, BackendSpec};
use crate::component::Component;
use crate::engine::{first_line, of_system};
use crate::manifest::Manifest;
use crate::operation::held::BackendUsages;
use crate::operation::state::Environment;
use crate::sandbox::Sandbox;
use crate::stage::{Stage, Stages};
use crate::{check, needs, wit};
use tidelock_types::{Description, Error, Result, blocking};

impl Adapter {
    /// Checks digest and signatures of a component, compiles it, checks it against the backend's grants, and calls its
    /// `describe`. Nothing of it is parsed before its digest and signatures are verified.
    ///
    /// # Errors
    /// `denied` for a component that is not the pinned one or lacks a demanded signature, and for an import that is not
    /// granted or not asked for by its manifest; `invalid` for what is not a component, lacks the export, or does not
    /// declare the settings that it is given; whatever ends `describe`.
    pub async fn load(sandbox: &Arc<Sandbox>, spec: &BackendSpec, component: impl Into<Component>) -> Result<Self> {
        let (usages, component) = (BackendUsages::new(&spec.limits), Arc::new(component.into()));
        let adapter = Self::load_in_stages(sandbox, spec, &usages, component, &mut Stages::default()).await?;
        adapter.serves();
        Ok(adapter)
    }

    /// Loads a component as a candidate of a backend, with each stage noted as it begins. Errors have the stage as their
    /// operation. `usages` are those of the backend, whatever generations it has.
    pub(crate) async fn load_in_stages(
        sandbox: &Arc<Sandbox>,
        spec: &BackendSpec,
        usages: &BackendUsages,
        component: Arc<Component>,
        stages: &mut Stages,
    ) -> Result<Self> {
        stages.enter(Stage::Verify);
        check::limits(sandbox.engine().options(), &spec.limits).map_err(|error| stages.place(error, &spec.name))?;
        let (trust, checked) = (spec.trust.clone(), component.clone());
        let digest = blocking(move || trust.check(&checked)).await.map_err(|error| stages.place(error, &spec.name))?;
        stages.enter(Stage::Compile);
        let (compiler, bytes) = (sandbox.clone(), component.clone());
        let code = blocking(move || compiler.engine().compile(&bytes.bytes))
            .await
            .map_err(|error| stages.place(error, &spec.name))?;
        stages.enter(Stage::Check);
        let place = |error: Error| error.on_backend(&spec.name).during(Stage::Check.name());
        let manifest = Manifest::of_component(&component.bytes).map_err(place)?;
        spec.trust.check_manifest(manifest.as_ref()).map_err(place)?;
        let bytes = component;
        let (component, compiled) = code;
        let (imports, exports) = wit::surface(&component, sandbox.engine().wasmtime());
        let granted = spec.capabilities.names();
        check::surface(&imports, &exports, &granted, manifest.as_ref()).map_err(place)?;
        // It can use only what it requests and the operator grants.
        let (capabilities, limits) = match &manifest {
            Some(manifest) => {
                check::asked(manifest, &granted).map_err(place)?;
                (spec.capabilities.only(&manifest.asked()), manifest.limits(&spec.limits))
            }
            None => (spec.capabilities.clone(), spec.limits.clone()),
        };
        let needs = needs::of_component(&bytes.bytes).map_err(place)?;
        needs::check(needs.as_ref(), &limits).map_err(place)?;
        let link = || -> wasmtime::Result<_> {
            let pre = sandbox.linker().instantiate_pre(&component)?;
            let exports = wit::Exports::new(&pre)?;
            Ok((pre, exports))
        };
        let (pre, exports) = link().map_err(|error| {
            let mismatch =
                || Error::invalid(format!("the component does not match the interface: {}", first_line(&error)));
            place(of_system(&error).unwrap_or_else(mismatch))
        })?;
        let environment = Arc::new(Environment {
            backend: spec.name.as_str().into(),
            settings: spec.settings.clone(),
            capabilities,
            usages: usages.clone(),
            serves: AtomicBool::new(false),
            limits,
            platform: sandbox.engine().options().platform.clone(),
            through_guest: AtomicU64::new(0),
        });
        let in_flight = Arc::new(Semaphore::new(spec.limits.in_flight.clamp(1, Semaphore::MAX_PERMITS)));
        let description = Description::default();
        let sandbox = sandbox.clone();
        let mut adapter =
            Self { sandbox, environment, pre, exports, description, manifest, digest, compiled, in_flight };
        adapter.description = adapter.describe().await?;
        if let Some(manifest) = &adapter.manifest {
            manifest.agrees_with(&adapter.description).map_err(place)?;
        }
        check::settings(&adapter.description, &spec.settings).map_err(place)?;
        Ok(adapter)
    }
}
