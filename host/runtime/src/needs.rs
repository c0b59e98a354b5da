//! A component's needs at the start: its number of core instances, memories and tables, and their sizes before any of
//! its code runs.
//!
//! They are read from the component's sections, in time proportional to its size, without compiling or running anything.
//! Parts of a component that is itself instantiated several times count as often; a component that consists of
//! millions of parts in this way is not unrolled. The needs of a component that instantiates one from outside, or one that
//! an instance exports, cannot be determined this way, nor can those of one with a section that is not known here: such
//! components are refused.
//!
//! [`check`] compares needs with limits, so that an adapter that could never start is rejected with the numbers and the
//! key to raise, before its first operation.

use serde::Serialize;
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, Encoding, Instance, Parser,
    Payload,
};

use tidelock_types::limits::COMPONENTS;
use tidelock_types::{Error, LimitExceeded, Limits, Result, format_bytes};

/// The needs of a component before its code runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Components with core instances of their own that it is put together from, itself included. Others only pass names on.
    pub components: u64,
    /// Core instances that it is made of.
    pub core_instances: u64,
    /// Linear memories.
    pub memories: u64,
    /// Bytes of the largest of them.
    pub memory_bytes: u64,
    /// Bytes of all of them together.
    pub all_memory_bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Elements of the largest of them.
    pub table_elements: u64,
    /// Elements of all of them together.
    pub all_table_elements: u64,
}

impl Needs {
    fn add(&mut self, other: &Self) {
        let sum = |here: &mut u64, more: u64| *here = here.saturating_add(more);
        sum(&mut self.components, other.components);
        sum(&mut self.core_instances, other.core_instances);
        sum(&mut self.memories, other.memories);
        sum(&mut self.all_memory_bytes, other.all_memory_bytes);
        sum(&mut self.tables, other.tables);
        sum(&mut self.all_table_elements, other.all_table_elements);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.table_elements = self.table_elements.max(other.table_elements);
    }

    fn memory(&mut self, bytes: u64) {
        self.add(&Self { memories: 1, memory_bytes: bytes, all_memory_bytes: bytes, ..Self::default() });
    }

    fn table(&mut self, elements: u64) {
        self.add(&Self { tables: 1, table_elements: elements, all_table_elements: elements, ..Self::default() });
    }
}

/// Compares the needs of a component at the start with the limits. What cannot be determined is refused.
///
/// # Errors
/// `limit`, with both numbers and the key; `invalid` for what cannot be determined.
pub(super) fn check(needs: Option<&Needs>, limits: &Limits) -> Result<()> {
    let Some(needs) = needs else {
        let what = "the adapter instantiates a component or a module that it does not define there, so what it needs cannot be determined";
        return Err(
            Error::invalid(what).hint("compose it so that each part is defined in it, or in a component around it")
        );
    };
    let refuse = |exceeded: LimitExceeded, what: String, key: &str, value: String| {
        let text = format!("{exceeded}: the adapter {what} from the start");
        let hint = format!("set limits.{key} of the backend to {value} or more if you trust the adapter with it");
        Err(Error::new(tidelock_types::ErrorKind::Limit, text).hint(hint))
    };
    if needs.components > COMPONENTS {
        let what = format!("{}: the adapter is composed of {}", LimitExceeded::Components, needs.components);
        return Err(Error::new(tidelock_types::ErrorKind::Limit, what)
            .hint("compose it of fewer: this limit is not configurable"));
    }
    if needs.core_instances > limits.instances as u64 {
        let (count, limit) = (needs.core_instances, limits.instances);
        return refuse(
            LimitExceeded::Instances(limit),
            format!("has {count} core instances"),
            "instances",
            count.to_string(),
        );
    }
    if needs.all_memory_bytes > limits.memory {
        let bytes = format_bytes(needs.all_memory_bytes);
        return refuse(LimitExceeded::Memory(limits.memory), format!("has {bytes} of memory"), "memory", bytes);
    }
    if needs.all_table_elements > limits.table_elements {
        let (count, limit) = (needs.all_table_elements, limits.table_elements);
        let what = format!("has {count} elements in its tables");
        return refuse(LimitExceeded::TableElements(limit), what, "table_elements", count.to_string());
    }
    Ok(())
}

/// A module or a component whose sections are being read.
enum Frame {
    Module(Needs),
    Component(Box<Scope>),
}

/// The definitions of a component so far; `None` for those from outside.
#[derive(Default)]
struct Scope {
    modules: Vec<Option<Needs>>,
    components: Vec<Option<Needs>>,
    needs: Needs,
    /// Whether it has core instances itself.
    runs: bool,
    unknown: bool,
}

impl Scope {
    fn define(&mut self, kind: ComponentExternalKind, what: Option<Needs>) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(what),
            ComponentExternalKind::Component => self.components.push(what),
            _ => {}
        }
    }

    fn of(&self, kind: ComponentExternalKind, index: u32) -> Option<Needs> {
        let space = match kind {
            ComponentExternalKind::Module => &self.modules,
            ComponentExternalKind::Component => &self.components,
            _ => return None,
        };
        space.get(index as usize).copied().flatten()
    }

    fn instantiate(&mut self, what: Option<Needs>) {
        match what {
            Some(what) => self.needs.add(&what),
            None => self.unknown = true,
        }
    }

    /// The needs of an instance of it, if they can be determined.
    fn all(self) -> Option<Needs> {
        let components = self.needs.components.saturating_add(self.runs.into());
        (!self.unknown).then_some(Needs { components, ..self.needs })
    }
}

/// Returns the needs of a component, if they can be determined.
///
/// # Errors
/// `invalid` if it is not a component.
pub(super) fn of_component(component: &[u8]) -> Result<Option<Needs>> {
    let wrong = |error: wasmparser::BinaryReaderError| Error::invalid(format!("this is not a component: {error}"));
    let mut frames: Vec<Frame> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(wrong)?;
        match (&payload, frames.last()) {
            (Payload::Version { encoding: Encoding::Component, .. }, None) => {
                frames.push(Frame::Component(Box::default()))
            }
            (Payload::ModuleSection { .. }, _) => frames.push(Frame::Module(Needs::default())),
            (Payload::ComponentSection { .. }, _) => frames.push(Frame::Component(Box::default())),
            (Payload::End(_), _) => {
                let Some(done) = frames.pop() else { break };
                let (kind, needs) = match done {
                    Frame::Module(needs) => (ComponentExternalKind::Module, Some(needs)),
                    Frame::Component(scope) => (ComponentExternalKind::Component, scope.all()),
                };
                match frames.last_mut() {
                    Some(Frame::Component(scope)) => scope.define(kind, needs),
                    _ => return Ok(needs),
                }
            }
            _ => section(&mut frames, payload).map_err(wrong)?,
        }
    }
    Err(Error::invalid("this is not a component: it is truncated"))
}

/// Reads a section of the innermost module or component.
fn section(frames: &mut [Frame], payload: Payload<'_>) -> wasmparser::Result<()> {
    if let Payload::ComponentAliasSection(aliases) = payload {
        return aliases.into_iter().try_for_each(|alias| aliased(frames, &alias?));
    }
    match frames.last_mut() {
        Some(Frame::Module(needs)) => module_section(needs, payload),
        Some(Frame::Component(scope)) => component_section(scope, payload),
        None => Ok(()),
    }
}

fn module_section(needs: &mut Needs, payload: Payload<'_>) -> wasmparser::Result<()> {
    match payload {
        Payload::MemorySection(memories) => {
            for memory in memories {
                let memory = memory?;
                let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                needs.memory(memory.initial.saturating_mul(page));
            }
        }
        Payload::TableSection(tables) => {
            for table in tables {
                needs.table(table?.ty.initial);
            }
        }
        _ => {}
    }
    Ok(())
}

fn component_section(scope: &mut Scope, payload: Payload<'_>) -> wasmparser::Result<()> {
    match payload {
        Payload::InstanceSection(instances) => {
            for instance in instances {
                if let Instance::Instantiate { module_index, .. } = instance? {
                    scope.runs = true;
                    scope.needs.add(&Needs { core_instances: 1, ..Needs::default() });
                    scope.instantiate(scope.of(ComponentExternalKind::Module, module_index));
                }
            }
        }
        Payload::ComponentInstanceSection(instances) => {
            for instance in instances {
                if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                    scope.instantiate(scope.of(ComponentExternalKind::Component, component_index));
                }
            }
        }
        Payload::ComponentImportSection(imports) => {
            for import in imports {
                scope.define(import?.ty.kind(), None);
            }
        }
        // An export has a further index from then on.
        Payload::ComponentExportSection(exports) => {
            for export in exports {
                let export = export?;
                scope.define(export.kind, scope.of(export.kind, export.index));
            }
        }
        // These define neither modules nor components, and instantiate none. Aliases are looked at elsewhere.
        Payload::Version { .. }
        | Payload::CoreTypeSection(_)
        | Payload::ComponentTypeSection(_)
        | Payload::ComponentCanonicalSection(_)
        | Payload::CustomSection(_) => {}
        _ => scope.unknown = true,
    }
    Ok(())
}

fn aliased(frames: &mut [Frame], alias: &ComponentAlias<'_>) -> wasmparser::Result<()> {
    let (kind, what) = match *alias {
        ComponentAlias::InstanceExport { kind, .. } => (kind, None),
        ComponentAlias::Outer { kind, count, index } => {
            let kind = match kind {
                ComponentOuterAliasKind::CoreModule => ComponentExternalKind::Module,
                ComponentOuterAliasKind::Component => ComponentExternalKind::Component,
                _ => return Ok(()),
            };
            let outer = frames.iter().rev().nth(count as usize);
            let what = if let Some(Frame::Component(outer)) = outer { outer.of(kind, index) } else { None };
            (kind, what)
        }
        ComponentAlias::CoreInstanceExport { .. } => return Ok(()),
    };
    if let Some(Frame::Component(scope)) = frames.last_mut() {
        scope.define(kind, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> Option<Needs> {
        of_component(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn only_instantiated_modules_count() {
        let found = needs(
            "(component
                (core module $a (memory 2) (memory 1) (table 5 funcref) (table 7 funcref))
                (core module $never (memory 100) (table 100 funcref))
                (core instance (instantiate $a))
                (core instance (instantiate $a)))",
        );
        let memory = 65536;
        let expected = Needs {
            components: 1,
            core_instances: 2,
            memories: 4,
            memory_bytes: 2 * memory,
            all_memory_bytes: 6 * memory,
            tables: 4,
            table_elements: 7,
            all_table_elements: 24,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn components_in_components_count_as_often_as_they_are_there() {
        let found = needs(
            "(component
                (core module $m (memory 1))
                (component $inner (alias outer 1 $m (core module $o)) (core instance (instantiate $o)))
                (component $twice
                    (alias outer 1 $inner (component $i))
                    (instance (instantiate $i)) (instance (instantiate $i)))
                (instance (instantiate $twice)) (instance (instantiate $twice)) (instance (instantiate $twice)))",
        )
        .unwrap();
        assert_eq!((found.components, found.core_instances, found.memories), (6, 6, 6), "two only pass names on");
    }

    /// Forty levels, each there twice in the next: a walk through all of them would not end.
    #[test]
    fn nothing_is_unrolled() {
        let mut text = "(core module $m (memory 1)) (core instance (instantiate $m))".to_owned();
        for level in 0..40 {
            text = format!(
                "(component $c{level} {text}) (instance (instantiate $c{level})) (instance (instantiate $c{level}))"
            );
        }
        let found = needs(&format!("(component {text})")).unwrap();
        assert_eq!(found.core_instances, 1 << 40);
        assert!(check(Some(&found), &Limits::default()).is_err());
    }

    #[test]
    fn the_needs_of_imports_are_unknown() {
        assert_eq!(needs("(component (import \"m\" (core module $m)) (core instance (instantiate $m)))"), None);
        assert!(of_component(b"\0asm\x01\0\0\0").is_err() && of_component(b"").is_err());
    }

    /// An instance can export components and modules: their number would not be counted.
    #[test]
    fn the_needs_of_exported_components_are_unknown() {
        let exported = |kind: &str, used: &str| {
            needs(&format!(
                "(component
                    (component $holder
                        (core module $m (memory 1))
                        (component $c (core module $n) (core instance (instantiate $n)))
                        (export \"m\" (core module $m)) (export \"c\" (component $c)))
                    (instance $held (instantiate $holder))
                    {kind} {used})"
            ))
        };
        let component = "(alias export $held \"c\" (component $taken))";
        let module = "(alias export $held \"m\" (core module $taken))";
        assert!(exported(component, "").is_some() && exported(module, "").is_some(), "it is only named");
        assert_eq!(exported(component, "(instance (instantiate $taken))"), None);
        assert_eq!(exported(module, "(core instance (instantiate $taken))"), None);
        // Also where the alias is passed on from further in.
        assert_eq!(
            exported(
                component,
                "(component $inner (alias outer 1 $taken (component $i)) (instance (instantiate $i))) (instance (instantiate $inner))"
            ),
            None
        );
    }

    #[test]
    fn a_refusal_has_both_numbers_and_the_key() {
        let limits = Limits { memory: 1 << 20, ..Limits::default() };
        let told = |needs: Needs| check(Some(&needs), &limits).unwrap_err();
        let many = told(Needs { core_instances: 100, ..Needs::default() });
        assert_eq!(many.message(), "limit: instances 64: the adapter has 100 core instances from the start");
        assert!(many.advice().unwrap().contains("limits.instances of the backend to 100"));
        assert!(told(Needs { all_memory_bytes: 2 << 20, ..Needs::default() }).message().contains("memory 1 MiB"));
        assert!(told(Needs { all_table_elements: 30_000, ..Needs::default() }).advice().unwrap().contains("30000"));
        assert!(told(Needs { components: 17, ..Needs::default() }).message().starts_with("limit: components 16"));
        check(Some(&Needs { components: 16, core_instances: 64, ..Needs::default() }), &limits).unwrap();
        assert!(check(None, &limits).is_err());
    }
}
