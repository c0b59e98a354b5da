//! Building the adapters in other languages: one in Python, one in JavaScript, from `examples/`.
//!
//! Each is converted to a component by the tool of its language, which adds an interpreter: componentize-py from PyPI
//! with CPython, componentize-qjs from npm with QuickJS. Both are installed once into the cache, by version and with the
//! digest of every file (`requirements.txt`, `package-lock.json` of the example), and run none of their code during
//! installation.
//!
//! A component is `target/adapters/NAME.wasm`. It takes seconds to build, so it is rebuilt only when a source, the WIT
//! package or a tool has changed: digests of inputs and output are recorded beside it. These are not embedded in the
//! program; tests get the paths from [`ensure`], and are skipped if a language is missing
//! ([`Language::why_not`]).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use crate::backends::node;
use crate::backends::python::Python;
use crate::guests::{adapters_dir, with_manifest};
use crate::run::{self, run, size};
use crate::{apt, cache, say, wit_sync};

/// A language that an adapter is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// CPython; the asynchronous world, streams included.
    Python,
    /// QuickJS; the world of synchronous functions.
    JavaScript,
}

/// Runs componentize-py with the arguments that follow.
const COMPONENTIZE_PY: &str = "sys.argv[0] = 'componentize-py'; from componentize_py import script; sys.exit(script())";

impl Language {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Python, Self::JavaScript];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
        }
    }

    /// The name of its adapter, of that adapter's component and of the world that it is built against.
    pub fn component(self) -> &'static str {
        match self {
            Self::Python => "python-fs",
            Self::JavaScript => "javascript-fs",
        }
    }

    /// The package and its version that turns a source into a component.
    fn tool(self) -> &'static str {
        match self {
            Self::Python => "componentize-py-0.25.1",
            Self::JavaScript => "componentize-qjs-0.4.5",
        }
    }

    fn source(self) -> PathBuf {
        run::root().join(match self {
            Self::Python => "examples/python-adapter",
            Self::JavaScript => "examples/javascript-adapter",
        })
    }

    /// The WIT package as its tool can read it.
    fn package(self) -> PathBuf {
        run::root().join(match self {
            Self::Python => "wit",
            Self::JavaScript => wit_sync::FOLDER,
        })
    }

    /// Why its adapter cannot be built on this machine, if it cannot.
    pub fn why_not(self) -> Option<String> {
        if !cfg!(target_os = "linux") || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            return Some(format!("there is no {} for this machine", self.tool()));
        }
        match self {
            Self::Python if apt::find("python3").is_none() => Some("there is no `python3` here: install Python".into()),
            Self::Python => None,
            Self::JavaScript => node::why_not(),
        }
    }

    /// Its component, built if needed.
    ///
    /// # Errors
    /// [`Self::why_not`], and whatever its tool says.
    pub fn build(self) -> Result<PathBuf> {
        if let Some(why) = self.why_not() {
            bail!("cannot build an adapter from {}: {why}", self.name());
        }
        build(self).with_context(|| format!("cannot build the adapter {} from {}", self.component(), self.name()))
    }
}

/// The components of all languages that can be had here, built if needed: their paths by name (`python-fs`,
/// `javascript-fs`). Done once a process, so that every test may call it.
pub fn ensure() -> Result<BTreeMap<String, PathBuf>> {
    static BUILT: OnceLock<Result<BTreeMap<String, PathBuf>, String>> = OnceLock::new();
    let build = || -> Result<BTreeMap<String, PathBuf>> {
        let languages = Language::ALL.into_iter().filter(|language| language.why_not().is_none());
        languages.map(|language| Ok((language.component().to_owned(), language.build()?))).collect()
    };
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build(language: Language) -> Result<PathBuf> {
    let work = run::root().join("target/languages");
    let name = language.component();
    let _lock = cache::lock(&work.join("xtask.lock"), "building adapters in other languages")?;
    let output = adapters_dir().join(format!("{name}.wasm"));
    let note = work.join(format!("{name}.built"));
    let inputs = inputs(language)?;
    if is_built(&note, &inputs, &output) {
        return Ok(output);
    }
    let staged = work.join(name);
    stage(language, &staged)?;
    let made = staged.join("made.wasm");
    match language {
        Language::Python => python(&staged, &made)?,
        Language::JavaScript => javascript(&staged, &made)?,
    }
    let component = fs::read(&made).with_context(|| format!("{} made no component", language.tool()))?;
    let component = with_manifest(component, &language.source().join("adapter.toml"))?;
    cache::write_if_changed(&output, &component)?;
    cache::write_if_changed(&note, format!("{inputs} {}\n", sha256(&component)).as_bytes())?;
    say!("built the adapter {name} from {} ({}): {}", language.name(), size(component.len() as u64), output.display());
    Ok(output)
}

/// Returns whether what is there was made of these inputs, and is still what was made.
fn is_built(note: &Path, inputs: &str, output: &Path) -> bool {
    let noted = fs::read_to_string(note).unwrap_or_default();
    let Some((of, made)) = noted.trim_end().split_once(' ') else { return false };
    of == inputs && fs::read(output).is_ok_and(|bytes| sha256(&bytes) == made)
}

/// The digest of everything that a component is made of.
fn inputs(language: Language) -> Result<String> {
    let mut all = Sha256::new();
    // Another way to call the tool is another input: count this up.
    all.update(format!("{} 1\n", language.tool()));
    for folder in [language.source(), language.package()] {
        for path in files(&folder)? {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            all.update(format!("{name} {}\n", sha256(&bytes)));
        }
    }
    Ok(hex(&all.finalize()))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a folder, not of those in it, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Lays out what a tool reads: `source/`, the files of the example, and `wit/`, its world with the package that it uses.
fn stage(language: Language, staged: &Path) -> Result<()> {
    cache::empty_dir(staged)?;
    let (source, wit) = (staged.join("source"), staged.join("wit"));
    let package = wit.join("deps/storage");
    for folder in [&source, &package] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let copy = |path: &Path, to: &Path| -> Result<()> {
        let target = to.join(path.file_name().unwrap_or_default());
        fs::copy(path, &target).map(drop).with_context(|| format!("cannot copy {}", path.display()))
    };
    for path in files(&language.source())? {
        copy(&path, if path.extension().is_some_and(|extension| extension == "wit") { &wit } else { &source })?;
    }
    files(&language.package())?.iter().try_for_each(|path| copy(path, &package))
}

fn python(staged: &Path, made: &Path) -> Result<()> {
    let language = Language::Python;
    let source = staged.join("source");
    let list = source.join("requirements.txt");
    let requirements = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let python = Python::with(language.tool(), language.tool(), "to build adapters from Python", &requirements)?;
    // The tool looks into the environment that this names, or else into the user's: into an empty one.
    let environment = staged.join("environment");
    fs::create_dir_all(environment.join("lib/site-packages")).context("cannot make an empty environment")?;
    let mut command = Command::new(&python.program);
    command.args(python.arguments(COMPONENTIZE_PY)).arg("--quiet");
    command.arg("--wit-path").arg(staged.join("wit")).args(["--world", language.component()]);
    command.args(["componentize", "--stub-wasi", "--python-path"]).arg(&source).arg("--output").arg(made);
    run(command.arg("adapter").current_dir(staged).env("VIRTUAL_ENV", environment))
}

fn javascript(staged: &Path, made: &Path) -> Result<()> {
    let language = Language::JavaScript;
    let source = staged.join("source");
    let read = |file: &str| {
        fs::read_to_string(source.join(file)).with_context(|| format!("cannot read {file} of the example"))
    };
    let (package, lock) = (read("package.json")?, read("package-lock.json")?);
    let files = [("package.json", &*package), ("package-lock.json", &*lock)];
    let installed = node::install(language.tool(), language.tool(), &files)?;
    let mut command = Command::new(installed.node);
    command.arg(installed.dir.join("node_modules/componentize-qjs/cli.mjs"));
    command.arg("--wit").arg(staged.join("wit")).args(["--world", language.component()]);
    command.arg("--js").arg(source.join("adapter.js")).args(["--sync", "--stub-wasi", "--output"]).arg(made);
    run(command.current_dir(staged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_made_again_if_it_or_its_inputs_changed() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (note, output) = (dir.path().join("note"), dir.path().join("a.wasm"));
        assert!(!is_built(&note, "in", &output));
        fs::write(&output, b"component")?;
        fs::write(&note, format!("in {}\n", sha256(b"component")))?;
        assert!(is_built(&note, "in", &output));
        assert!(!is_built(&note, "other", &output));
        fs::write(&output, b"damaged")?;
        assert!(!is_built(&note, "in", &output));
        Ok(())
    }

    #[test]
    fn every_language_has_its_source_and_its_pins() -> Result<()> {
        for language in Language::ALL {
            let names: Vec<_> = files(&language.source())?.into_iter().collect();
            let text = |name: &str| fs::read_to_string(language.source().join(name));
            assert!(names.len() >= 4, "{names:?}");
            assert!(text("world.wit")?.contains(&format!("world {} ", language.component())));
            assert!(text("adapter.toml")?.contains(&format!("name = \"{}\"", language.component())));
            assert_eq!(inputs(language)?, inputs(language)?);
        }
        let lock = fs::read_to_string(Language::JavaScript.source().join("package-lock.json"))?;
        assert!(
            lock.contains("\"integrity\"") && !lock.contains("\"resolved\""),
            "a lock file names digests, no hosts"
        );
        Ok(())
    }
}
