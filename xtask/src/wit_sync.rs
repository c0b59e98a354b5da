//! `wit/sync/storage.wit`: the synchronous functions and values of the WIT package.
//!
//! Tools of languages without asynchronous functions often cannot read a package that has any, or streams, even if
//! a world uses none of them. Without those, the rest is a package of the same name and version: a component
//! built against it imports less of each interface, and so fits every host of the whole package. This module generates
//! it from `wit/`, and a test checks that the file in git is up to date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wit_component::WitPrinter;
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, WorldItem};

/// Where it lies in the repository.
pub const FOLDER: &str = "wit/sync";

const FILE: &str = "storage.wit";

/// The world that is made of synchronous functions.
const WORLD: &str = "storage-adapter-sync";

const HEAD: &str = "// Made from the files in `wit/` by `cargo xtask sync-wit`: what of them is made of synchronous functions and values, for tools\n\
    // that cannot read asynchronous functions and streams. See `wit/sync.wit`.\n";

/// Writes the file anew and returns its path.
pub fn write(root: &Path) -> Result<PathBuf> {
    let path = root.join(FOLDER).join(FILE);
    fs::create_dir_all(root.join(FOLDER)).context("cannot make wit/sync")?;
    fs::write(&path, made_from(&root.join("wit"))?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The text for a package in a folder.
pub fn made_from(package: &Path) -> Result<String> {
    let mut resolve = Resolve::new();
    let (package, _) = resolve.push_dir(package)?;
    let world = *resolve.packages[package].worlds.get(WORLD).with_context(|| format!("there is no world {WORLD}"))?;
    resolve.packages[package].worlds.retain(|_, id| *id == world);
    // What the world uses is what it imports, by way of others too, and what it exports.
    let items = resolve.worlds[world].imports.values().chain(resolve.worlds[world].exports.values());
    let interface = |item: &WorldItem| if let WorldItem::Interface { id, .. } = item { Some(*id) } else { None };
    let used: Vec<InterfaceId> = items.filter_map(interface).collect();
    resolve.packages[package].interfaces.retain(|_, id| used.contains(id));
    for id in used {
        let (types, functions) = (resolve.interfaces[id].types.clone(), resolve.interfaces[id].functions.clone());
        let types = types.into_iter().filter(|(_, ty)| !flows(&resolve, Type::Id(*ty))).collect();
        let functions = functions.into_iter().filter(|(_, function)| is_plain(&resolve, function)).collect();
        let interface = &mut resolve.interfaces[id];
        (interface.types, interface.functions) = (types, functions);
    }
    let mut printer = WitPrinter::default();
    printer.print(&resolve, package, &[])?;
    Ok(format!("{HEAD}{}", printer.output))
}

fn is_plain(resolve: &Resolve, function: &Function) -> bool {
    !function.kind.is_async() && !function.parameter_and_result_types().any(|ty| flows(resolve, ty))
}

/// Returns whether a type has a stream or a future in it.
fn flows(resolve: &Resolve, ty: Type) -> bool {
    let Type::Id(id) = ty else { return false };
    let any = |mut types: &mut dyn Iterator<Item = Type>| (&mut types).any(|ty| flows(resolve, ty));
    match &resolve.types[id].kind {
        TypeDefKind::Stream(_) | TypeDefKind::Future(_) => true,
        TypeDefKind::Record(record) => any(&mut record.fields.iter().map(|field| field.ty)),
        TypeDefKind::Tuple(tuple) => any(&mut tuple.types.iter().copied()),
        TypeDefKind::Variant(variant) => any(&mut variant.cases.iter().filter_map(|case| case.ty)),
        TypeDefKind::Result(result) => any(&mut result.ok.into_iter().chain(result.err)),
        TypeDefKind::Option(ty)
        | TypeDefKind::List(ty)
        | TypeDefKind::FixedLengthList(ty, _)
        | TypeDefKind::Type(ty) => flows(resolve, *ty),
        TypeDefKind::Map(key, value) => any(&mut [*key, *value].into_iter()),
        TypeDefKind::Resource
        | TypeDefKind::Handle(_)
        | TypeDefKind::Flags(_)
        | TypeDefKind::Enum(_)
        | TypeDefKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn the_file_is_what_would_be_made() -> Result<()> {
        let root = run::root();
        let made = made_from(&root.join("wit"))?;
        assert!(fs::read_to_string(root.join(FOLDER).join(FILE))? == made, "run `cargo xtask sync-wit` and commit it");
        // Comments may speak of what is gone.
        let lines = made.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.flat_map(|line| [line, "\n"]).collect();
        for gone in
            ["async", "stream<", "future<", "interface digest-stream", "interface archive ", "interface adapter "]
        {
            assert!(!code.contains(gone), "{gone}");
        }
        for there in
            ["interface directory-sync ", "record write-options ", "interface adapter-sync ", "interface digest "]
        {
            assert!(made.contains(there), "{there}");
        }
        Ok(())
    }
}
