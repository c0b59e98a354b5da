//! The nesting depth of components, and of the types of components, within a component.
//!
//! The compiler keeps the state of each component that encloses the current one: ten thousand of them, in 100 KB, took 2 GB.
//! The type of a component, or of an instance, can hold others; the compiler's parser (wasmparser 0.254) recurses at each
//! level, so a few hundred thousand bytes of nothing but levels would overflow the host's stack. Here they are read
//! without recursion, before anything else reads them, and refused beyond [`DEEPEST`].

use wasmparser::{
    BinaryReader, ComponentImport, ComponentType, InstanceTypeDeclaration, Parser, Payload, Result as ReadResult,
};

use tidelock_types::{Error, Result};

/// The most levels of either. A world that imports an instance has two; a component that is composed of others has two.
const DEEPEST: usize = 100;

/// The first byte of the type of a component, and of an instance.
const COMPONENT: u8 = 0x41;
const INSTANCE: u8 = 0x42;

/// Refuses a component whose parts or types are nested too deeply.
///
/// # Errors
/// `invalid`; also for bytes that are not a component.
pub(super) fn check(component: &[u8]) -> Result<()> {
    let wrong =
        |error: wasmparser::BinaryReaderError| Error::invalid(format!("the component cannot be compiled: {error}"));
    let mut enclosing: usize = 0;
    for payload in Parser::new(0).parse_all(component) {
        let (what, levels) = match payload.map_err(wrong)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                enclosing += 1;
                ("components", enclosing)
            }
            Payload::End(_) => {
                enclosing = enclosing.saturating_sub(1);
                continue;
            }
            Payload::ComponentTypeSection(types) => {
                let range = types.range();
                let bytes = component.get(range.clone()).unwrap_or_default();
                ("types", deepest(BinaryReader::new(bytes, range.start)).map_err(wrong)?)
            }
            _ => continue,
        };
        if levels > DEEPEST {
            return Err(Error::invalid(format!("its {what} are nested more than {DEEPEST} levels deep")));
        }
    }
    Ok(())
}

/// The type of a component or of an instance that is being read.
struct Level {
    of_component: bool,
    /// Its declarations still to come.
    left: u32,
}

/// Returns the number of levels in a section of types; stops at the first one beyond [`DEEPEST`].
fn deepest(mut reader: BinaryReader<'_>) -> ReadResult<usize> {
    let (mut levels, mut deepest): (Vec<Level>, usize) = (Vec::new(), 0);
    for _ in 0..reader.read_var_u32()? {
        levels.extend(read_type(&mut reader)?);
        loop {
            deepest = deepest.max(levels.len());
            if deepest > DEEPEST {
                return Ok(deepest);
            }
            let Some(level) = levels.last_mut() else { break };
            if level.left == 0 {
                levels.pop();
                continue;
            }
            level.left -= 1;
            let of_component = level.of_component;
            levels.extend(read_declaration(&mut reader, of_component)?);
        }
    }
    Ok(deepest)
}

fn next(reader: &BinaryReader<'_>) -> ReadResult<u8> {
    reader.clone().read_u8()
}

/// Reads a type; one that holds others only up to them.
fn read_type(reader: &mut BinaryReader<'_>) -> ReadResult<Option<Level>> {
    let kind = next(reader)?;
    if kind != COMPONENT && kind != INSTANCE {
        reader.read::<ComponentType<'_>>()?;
        return Ok(None);
    }
    reader.read_u8()?;
    Ok(Some(Level { of_component: kind == COMPONENT, left: reader.read_var_u32()? }))
}

fn read_declaration(reader: &mut BinaryReader<'_>, of_component: bool) -> ReadResult<Option<Level>> {
    match next(reader)? {
        0x01 => {
            reader.read_u8()?;
            return read_type(reader);
        }
        0x03 if of_component => {
            reader.read_u8()?;
            reader.read::<ComponentImport<'_>>()?;
        }
        _ => drop(reader.read::<InstanceTypeDeclaration<'_>>()?),
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Result<()> {
        let text = format!("(component {}{})", "(type (component ".repeat(depth), "))".repeat(depth));
        check(&wat::parse_str(text).unwrap())
    }

    /// A component with this one section.
    fn component_of(section: u8, content: &[u8]) -> Vec<u8> {
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        component.push(section);
        let mut length = content.len();
        while length >= 0x80 {
            component.push(length as u8 | 0x80);
            length >>= 7;
        }
        component.push(length as u8);
        [component.as_slice(), content].concat()
    }

    #[test]
    fn levels_are_counted_and_their_neighbours_are_not() {
        nested(40).unwrap();
        let wide =
            "(type (component (import \"a\" (func)) (type (instance (export \"b\" (func)))) (export \"c\" (func))
            (core type (module (import \"m\" \"n\" (func)))) (type (record (field \"x\" u8)))))"
                .repeat(200);
        check(&wat::parse_str(format!("(component {wide})")).unwrap()).unwrap();
    }

    #[test]
    fn components_in_components_are_counted_and_those_side_by_side_are_not() {
        let empty = b"\0asm\x0d\0\x01\0".to_vec();
        let deep = |depth: usize| (0..depth).fold(empty.clone(), |inner, _| component_of(4, &inner));
        check(&deep(DEEPEST)).unwrap();
        assert!(check(&deep(DEEPEST + 1)).unwrap_err().to_string().contains("components are nested"));
        let beside = "(component) (core module)".repeat(500);
        check(&wat::parse_str(format!("(component {beside})")).unwrap()).unwrap();
    }

    #[test]
    fn too_many_levels_are_refused_and_do_not_overflow_the_stack() {
        for depth in [DEEPEST + 1, 1_000_000] {
            let mut section = vec![1];
            (0..depth).for_each(|level| section.extend([if level % 2 == 0 { COMPONENT } else { INSTANCE }, 1, 1]));
            section.extend([COMPONENT, 0]);
            let component = component_of(7, &section);
            assert!(check(&component).unwrap_err().to_string().contains("nested more than 100"), "{depth}");
        }
    }
}
