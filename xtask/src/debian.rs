//! Debian's own Rust compiler, unpacked into the cache, with `std` built for the guests' target.
//!
//! Debian packages rustc twice; `rustc-web` is the newer one, kept current for browsers in the stable releases. Its
//! packages are read, not installed: they conflict with Debian's ordinary rustc, and need root. Names carry versions
//! (`libllvm22`, `libstd-rust-web-1.96`), so they are found by dependency. Debian ships no `std` for a wasm target
//! without WASI: it is built here from the packaged source, and needs a few crates from crates.io.
//!
//! About 100 MB are downloaded; 0.6 GB stay in the cache; a minute on two cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::apt::Archive;
use crate::run::{self, capture, run};
use crate::wasm::TARGET;
use crate::{cache, say};

/// The cache entry. Another layout or another way of building is another name.
const ENTRY: &str = "wasm-rust-1";
/// The file that tells one build of `std` from another.
const IDENTITY: &str = "std.sha256";

/// The folder with the compiler: `rustc` and, where Debian has it, `cargo-clippy`, both to be used by their paths.
pub fn ensure() -> Result<PathBuf> {
    let what = format!("a Rust compiler for {TARGET} from Debian's packages");
    cache::install(ENTRY, &what, |partial| {
        let host = host_triple()?;
        let root = partial.join("root");
        cache::step(partial, "unpacked", || unpack(partial, &root))?;
        cache::step(partial, "wrapped", || wrap(partial, &host))?;
        cache::step(partial, "libraries", || libraries(partial, &root, &host))?;
        cache::step(partial, "std", || build_std(partial))?;
        for folder in ["apt", "std-build", "root/usr/share", "root/usr/src", "root/usr/lib/rustlib/src"] {
            let _ = fs::remove_dir_all(partial.join(folder));
        }
        say!("built std for {TARGET}: {}", capture(Command::new(partial.join("rustc")).arg("-V"))?.trim());
        Ok(())
    })
}

/// Which build of `std` the compiler in `prefix` has: two builds differ though the compiler's version is the same.
pub fn std_identity(prefix: &Path) -> Result<String> {
    let file = prefix.join(IDENTITY);
    fs::read_to_string(&file).with_context(|| format!("{} is damaged: remove {}", file.display(), prefix.display()))
}

/// Returns the host of the active rustc, as in `x86_64-unknown-linux-gnu`.
fn host_triple() -> Result<String> {
    let text = capture(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    if !host.ends_with("-unknown-linux-gnu") {
        bail!("Debian's compiler runs on GNU/Linux, and this is {host}");
    }
    Ok(host.to_string())
}

fn unpack(partial: &Path, root: &Path) -> Result<()> {
    cache::empty_dir(root)?;
    let mut archive = Archive::new(&partial.join("apt"))?;
    let mut result = packages(&archive).and_then(|names| archive.unpack(&names, root));
    if let Err(error) = &result {
        say!("the system's package lists do not do: {error:#}");
        archive.refresh()?;
        result = packages(&archive).and_then(|names| archive.unpack(&names, root));
    }
    result
}

/// The compiler, its libraries, its linker, the source of `std`, and clippy where there is one.
fn packages(archive: &Archive) -> Result<Vec<String>> {
    if !archive.knows("rustc-web") {
        bail!("there is no package rustc-web (Debian has it since 11, Ubuntu does not)");
    }
    let runtime = dependency(archive, "libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = dependency(archive, &runtime, "libllvm")?;
    let version: String = llvm.trim_start_matches("libllvm").chars().take_while(char::is_ascii_digit).collect();
    let mut names: Vec<String> = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"].map(String::from).into();
    names.extend([runtime, llvm, format!("lld-{version}")]);
    names.extend(Some("rust-web-clippy".to_string()).filter(|name| archive.knows(name)));
    Ok(names)
}

fn dependency(archive: &Archive, package: &str, prefix: &str) -> Result<String> {
    let all = archive.depends(package)?;
    let found = all.into_iter().find(|name| name.starts_with(prefix));
    found.with_context(|| format!("the package {package} depends on no {prefix}*: Debian's packaging changed"))
}

/// Scripts that start the unpacked programs with the unpacked libraries, wherever the folder is moved to.
fn wrap(partial: &Path, host: &str) -> Result<()> {
    let multiarch = host.replace("-unknown", "");
    for program in ["rustc", "cargo-clippy"] {
        if !partial.join("root/usr/bin").join(program).exists() {
            continue;
        }
        let script = format!(
            "#!/bin/sh\nusr=$(dirname \"$(readlink -f \"$0\")\")/root/usr\n\
             export LD_LIBRARY_PATH=\"$usr/lib/{multiarch}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
             exec \"$usr/bin/{program}\" \"$@\"\n"
        );
        let path = partial.join(program);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    // rustc looks for the linker of its wasm targets here, under this name.
    let bin = partial.join("root/usr/lib/rustlib").join(host).join("bin");
    fs::create_dir_all(&bin)?;
    let link = bin.join("rust-lld");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(linker(partial)?, &link).with_context(|| format!("cannot link {}", link.display()))
}

/// The linker as seen from the folder that the link lies in.
fn linker(partial: &Path) -> Result<PathBuf> {
    let lib = partial.join("root/usr/lib");
    let entries = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let llvm = entries.flatten().map(|entry| entry.file_name()).find(|name| lib.join(name).join("bin/lld").exists());
    let llvm = llvm.context("the unpacked packages hold no lld: Debian's packaging changed")?;
    Ok(Path::new("../../..").join(llvm).join("bin/lld"))
}

/// Adds shared libraries that the system lacks, to the unpacked ones.
fn libraries(partial: &Path, root: &Path, host: &str) -> Result<()> {
    if unresolved(partial, host)?.is_empty() {
        return Ok(());
    }
    let mut archive = Archive::new(&partial.join("apt"))?;
    let mut names = packages(&archive);
    if names.is_err() {
        archive.refresh()?;
        names = packages(&archive);
    }
    let missing = archive.missing_libraries(&names?)?;
    say!("unpacking libraries that this system lacks: {}", missing.join(" "));
    archive.unpack(&missing, root)?;
    let left = unresolved(partial, host)?;
    if !left.is_empty() {
        bail!("shared libraries are missing: {}; install the packages that hold them", left.join(", "));
    }
    Ok(())
}

/// The shared libraries that the compiler and the linker need and that cannot be found.
fn unresolved(partial: &Path, host: &str) -> Result<Vec<String>> {
    let usr = partial.join("root/usr");
    let linker = usr.join("lib/rustlib").join(host).join("bin/rust-lld");
    let mut command = Command::new("ldd");
    command.arg(usr.join("bin/rustc")).arg(linker);
    command.env("LD_LIBRARY_PATH", usr.join("lib").join(host.replace("-unknown", "")));
    Ok(not_found(&capture(&mut command)?))
}

fn not_found(ldd: &str) -> Vec<String> {
    let mut names: Vec<String> = ldd
        .lines()
        .filter_map(|line| line.trim().strip_suffix("=> not found"))
        .map(|name| name.trim().to_string())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Builds `std` from the packaged source, as rustc's own build does it, and puts it where rustc looks.
fn build_std(partial: &Path) -> Result<()> {
    let rustlib = partial.join("root/usr/lib/rustlib");
    let build = partial.join("std-build");
    cache::empty_dir(&build)?;
    say!("building std for {TARGET} (about a minute)");
    let mut cargo = run::cargo("build");
    run::quiet_in_a_pipe(&mut cargo).args(["--release", "--locked", "--target", TARGET]);
    // Without what only tests and procedural macros of the target would need.
    cargo.args(["--manifest-path", "std/Cargo.toml"]);
    cargo.arg("--target-dir").arg(&build).current_dir(rustlib.join("src/rust/library"));
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTC", partial.join("rustc")).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("__CARGO_DEFAULT_LIB_METADATA", "stablestd");
    cargo.env("RUSTFLAGS", "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes");
    run(&mut cargo)?;
    let lib = rustlib.join(TARGET).join("lib");
    cache::empty_dir(&lib)?;
    let mut identity = Sha256::new();
    let entries = fs::read_dir(build.join(TARGET).join("release/deps"))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|e| e == "rlib")) {
            identity.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            fs::copy(&path, lib.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    let identity: String = identity.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(fs::write(partial.join(IDENTITY), identity)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_shared_libraries_are_named_once() {
        let ldd = "/a/rustc:\n\tlinux-vdso.so.1 (0x7ff)\n\tlibz3.so.4 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n/a/lld:\n\tlibz3.so.4 => not found\n\tlibxml2.so.2 => not found\n";
        assert_eq!(not_found(ldd), ["libxml2.so.2", "libz3.so.4"]);
    }
}
