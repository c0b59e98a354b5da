//! Building guests: every `cdylib` of the workspace `guest-adapters/`, for wasm, turned into components.
//!
//! `target/adapters/NAME.wasm` is the result. The host's build script embeds some of these files, so one whose contents
//! did not change is not rewritten: the host is not rebuilt for nothing. Both `target/guests` and `target/adapters`
//! are under the repository's own `target/` regardless of `CARGO_TARGET_DIR`, because the build script
//! looks.
//!
//! The list of guests comes from Cargo: the adapters, the example and the tests' hostile guests are
//! all members of that workspace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use wasm_encoder::{ComponentSection as _, CustomSection};

use crate::metadata::{self, Package};
use crate::run::{self, run, size};
use crate::wasm::{TARGET, Toolchain};
use crate::{cache, say};

/// A crate that becomes a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The component's name: the package's without `tidelock-adapter-`.
    pub name: String,
    /// The Cargo package.
    pub package: String,
    /// The file name of the core module that rustc writes.
    module: String,
    /// The adapter's manifest: `adapter.toml` beside `Cargo.toml`, if it is there.
    declared: PathBuf,
}

impl Guest {
    /// Returns whether the program carries it: one of the adapters beside the workspace's manifest. The example and the
    /// tests' guests lie elsewhere.
    fn is_embedded(&self) -> bool {
        manifest().parent().is_some_and(|folder| self.declared.starts_with(folder))
    }
}

/// The guest workspace's manifest.
pub fn manifest() -> PathBuf {
    run::root().join("guest-adapters/Cargo.toml")
}

/// Where the guests' own target directory is.
pub fn target_dir() -> PathBuf {
    run::root().join("target/guests")
}

/// Where components are written, as `NAME.wasm`.
pub fn adapters_dir() -> PathBuf {
    run::root().join("target/adapters")
}

/// All guests, built if needed: the paths of the components by name. Done once a process, so that every test may call it.
pub fn ensure() -> Result<BTreeMap<String, PathBuf>> {
    static BUILT: OnceLock<Result<BTreeMap<String, PathBuf>, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_guests(&[]).map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

/// Builds the guests of these names, or all of them if none is given, and returns the paths of their components by name.
/// Sets the toolchain up first if there is none. What is up to date costs a fraction of a second.
pub fn build_guests(names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let toolchain = Toolchain::ensure()?;
    let guests = select(list(&manifest())?, names)?;
    build(&toolchain, &manifest(), &target_dir(), &adapters_dir(), &guests)
}

/// Builds the guests that the program carries, and those alone: the tests' guests take as long again.
pub fn build_embedded() -> Result<()> {
    let guests = list(&manifest())?;
    let names: Vec<&str> = guests.iter().filter(|guest| guest.is_embedded()).map(|guest| guest.name.as_str()).collect();
    build_guests(&names).map(drop)
}

/// The guests that a workspace holds.
pub fn list(manifest: &Path) -> Result<Vec<Guest>> {
    let mut guests = of(metadata::packages(manifest)?);
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = guests.windows(2).find(|pair| pair[0].name == pair[1].name) {
        bail!("the packages {} and {} both become {}.wasm: rename one", pair[0].package, pair[1].package, pair[0].name);
    }
    Ok(guests)
}

fn of(packages: Vec<Package>) -> Vec<Guest> {
    let guest = |package: Package| {
        let module = format!("{}.wasm", package.targets("cdylib").next()?.replace('-', "_"));
        let name = package.name.strip_prefix("tidelock-adapter-").unwrap_or(&package.name).to_string();
        let declared = package.manifest_path.with_file_name("adapter.toml");
        Some(Guest { name, module, package: package.name, declared })
    };
    packages.into_iter().filter_map(guest).collect()
}

fn select(guests: Vec<Guest>, names: &[&str]) -> Result<Vec<Guest>> {
    if let Some(unknown) = names.iter().find(|name| !guests.iter().any(|guest| guest.name == **name)) {
        let known: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
        bail!("there is no guest {unknown}; there are: {}", known.join(", "));
    }
    Ok(guests.into_iter().filter(|guest| names.is_empty() || names.contains(&guest.name.as_str())).collect())
}

fn build(
    toolchain: &Toolchain,
    manifest: &Path,
    target: &Path,
    adapters: &Path,
    guests: &[Guest],
) -> Result<BTreeMap<String, PathBuf>> {
    let _lock = cache::lock(&target.join("xtask.lock"), "building guests")?;
    toolchain.settle(target)?;
    let mut cargo = toolchain.cargo("build");
    run::quiet_in_a_pipe(&mut cargo).args(["--release", "--target", TARGET, "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(target);
    for guest in guests {
        cargo.args(["--package", &guest.package]);
    }
    if !guests.is_empty() {
        run(&mut cargo).context("cannot build the guests")?;
    }
    let mut paths = BTreeMap::new();
    for guest in guests {
        let module = target.join(TARGET).join("release").join(&guest.module);
        let path = adapters.join(format!("{}.wasm", guest.name));
        let component = componentize(&module, &guest.declared)
            .with_context(|| format!("cannot make a component of {}", guest.package))?;
        if cache::write_if_changed(&path, &component)? {
            say!("built the guest {} ({}): {}", guest.name, size(component.len() as u64), path.display());
        }
        paths.insert(guest.name.clone(), path);
    }
    Ok(paths)
}

/// The component of a core module that carries its world in a custom section, as wit-bindgen writes it. What the adapter
/// declares goes into a custom section of the component, where the host reads it without running anything.
fn componentize(module: &Path, declared: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    with_manifest(wit_component::ComponentEncoder::default().validate(true).module(&bytes)?.encode()?, declared)
}

/// A component with the manifest that lies at `declared`, if there is one.
pub(crate) fn with_manifest(mut component: Vec<u8>, declared: &Path) -> Result<Vec<u8>> {
    if declared.exists() {
        let text = fs::read(declared).with_context(|| format!("cannot read {}", declared.display()))?;
        CustomSection { name: "tidelock:manifest".into(), data: text.into() }.append_to_component(&mut component);
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages":[
        {"name":"tidelock-adapter-sdk","targets":[{"name":"tidelock_adapter_sdk","kind":["lib"]}]},
        {"name":"tidelock-adapter-fs","targets":[{"name":"tidelock_adapter_fs","kind":["cdylib","rlib"]}]},
        {"name":"eats-memory","targets":[{"name":"eats_memory","kind":["cdylib"]},{"name":"t","kind":["test"]}]}]}"#;

    #[test]
    fn a_guest_is_a_cdylib_and_is_named_after_its_package() -> Result<()> {
        let guests = of(metadata::parse(METADATA)?);
        let names: Vec<_> = guests.iter().map(|guest| (guest.name.as_str(), guest.module.as_str())).collect();
        assert_eq!(names, [("fs", "tidelock_adapter_fs.wasm"), ("eats-memory", "eats_memory.wasm")]);
        Ok(())
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_known_ones() -> Result<()> {
        assert_eq!(select(of(metadata::parse(METADATA)?), &["fs"])?.len(), 1);
        assert_eq!(select(of(metadata::parse(METADATA)?), &[])?.len(), 2);
        let error = select(of(metadata::parse(METADATA)?), &["fs", "s4"]).unwrap_err().to_string();
        assert_eq!(error, "there is no guest s4; there are: fs, eats-memory");
        Ok(())
    }

    #[test]
    fn a_guest_becomes_a_component_and_is_not_written_twice() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let package = dir.path().join("tiny");
        fs::create_dir_all(package.join("src"))?;
        fs::write(
            package.join("Cargo.toml"),
            "[package]\nname = \"tidelock-adapter-tiny\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
        )?;
        // A world without imports, as the custom section that wit-bindgen would have written.
        fs::write(package.join("src/lib.rs"), "#[unsafe(no_mangle)]\npub extern \"C\" fn answer() -> u32 { 42 }\n")?;
        let manifest = package.join("Cargo.toml");
        let guests = list(&manifest)?;
        let (target, adapters) = (dir.path().join("target"), dir.path().join("adapters"));
        let toolchain = Toolchain::ensure()?;
        fs::write(package.join("adapter.toml"), "name = \"tiny\"\n")?;
        let paths = build(&toolchain, &manifest, &target, &adapters, &guests)?;
        let component = fs::read(&paths["tiny"])?;
        // The preamble of a component: magic, version 13, layer 1.
        assert_eq!(component[..8], [0, b'a', b's', b'm', 13, 0, 1, 0]);
        // What it declares ends the component, behind the name of its section.
        assert!(component.ends_with(b"\x11tidelock:manifestname = \"tiny\"\n"));
        let before = fs::metadata(&paths["tiny"])?.modified()?;
        build(&toolchain, &manifest, &target, &adapters, &guests)?;
        assert_eq!(fs::metadata(&paths["tiny"])?.modified()?, before);
        Ok(())
    }
}
