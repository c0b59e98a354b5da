//! Benchmarks: programs of the crate `tidelock-bench`, each run in release mode after its set-up.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::backends::Kind;
use crate::metadata::{self, Package};
use crate::run::{self, shown};
use crate::{guests, say};

/// Runs the benchmark `name` with `arguments`. Its stdout is ours: a table, or an object with `--json`. The guests are
/// built and the servers installed before; the benchmark starts its own servers, so that it can place and kill them.
pub fn run(name: &str, arguments: &[String]) -> Result<()> {
    let known = names()?;
    if !known.iter().any(|known| known == name) {
        let known = if known.is_empty() { "none yet".into() } else { known.join(", ") };
        bail!("there is no benchmark {name}; there are: {known}");
    }
    guests::ensure()?;
    for kind in Kind::ALL {
        kind.install()?;
    }
    let mut cargo = run::cargo("run");
    run::quiet_in_a_pipe(&mut cargo).args(["--release", "--package", "tidelock-bench", "--bin", name, "--"]);
    cargo.args(arguments);
    say!("building and running the benchmark ({})", shown(&cargo));
    let status = cargo.stdin(Stdio::null()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the benchmark {name} failed ({status})");
    }
    Ok(())
}

/// The names of the benchmarks.
pub fn names() -> Result<Vec<String>> {
    Ok(of(&metadata::packages(&run::root().join("Cargo.toml"))?))
}

fn of(packages: &[Package]) -> Vec<String> {
    let bench = packages.iter().filter(|package| package.name == "tidelock-bench");
    bench.flat_map(|package| package.targets("bin")).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_the_programs_of_their_crate() -> Result<()> {
        let metadata = r#"{"packages":[{"name":"xtask","targets":[{"name":"xtask","kind":["bin"]}]},
            {"name":"tidelock-bench","targets":[{"name":"tidelock_bench","kind":["lib"]},{"name":"sandbox","kind":["bin"]}]}]}"#;
        assert_eq!(of(&metadata::parse(metadata)?), ["sandbox"]);
        Ok(())
    }
}
