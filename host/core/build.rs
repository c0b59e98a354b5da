//! Puts the default adapters into the library, so that the program works with nothing beside it.
//!
//! They are components that `cargo xtask build` leaves in `target/adapters` of the workspace. One that is not there is
//! left out, and the program says so when it is asked for it: checking and testing the host alone needs no guest.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The adapters that travel in the program.
const NAMES: [&str; 6] = ["fs", "glacier", "ipfs", "nfs", "s3", "ton"];

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(name));
    let adapters = variable("CARGO_MANIFEST_DIR")?.join("../../target/adapters");
    let out = variable("OUT_DIR")?;
    println!("cargo:rerun-if-changed=build.rs");

    let mut rows = String::new();
    let mut missing = false;
    for name in NAMES {
        let embedded = embed(&adapters.join(format!("{name}.wasm")), &out.join(format!("{name}.wasm")))?;
        let value = match embedded {
            true => format!("Some(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\")))"),
            false => "None".to_owned(),
        };
        missing |= !embedded;
        rows.push_str(&format!("    ({name:?}, {value}),\n"));
    }
    if missing {
        // Cargo takes a path that is not there for one that has changed, and would build the host again every time. An
        // empty directory stays the same until a component appears in it.
        fs::create_dir_all(&adapters)?;
        println!("cargo:rerun-if-changed={}", adapters.display());
    }
    let table = format!("static COMPONENTS: [(&str, Option<&[u8]>); {}] = [\n{rows}];\n", NAMES.len());
    // As below: what is there may be linked from a copy of this build directory.
    let _ = fs::remove_file(out.join("components.rs"));
    fs::write(out.join("components.rs"), table)
}

/// Copies a component to where it is included from, if there is one.
fn embed(from: &Path, to: &Path) -> io::Result<bool> {
    // What is there may be linked from a copy of this build directory, which is to stay as it is.
    if let Err(error) = fs::remove_file(to)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    match fs::copy(from, to) {
        Ok(_) => {
            println!("cargo:rerun-if-changed={}", from.display());
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", from.display()))),
    }
}
