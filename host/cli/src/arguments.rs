//! What can be typed. The comments on fields are the help that users read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use tidelock::types::{ByteRange, Error, ObjectId, PublicKey, parse_duration};

/// Stores the snapshots of virtual machines and agents through sandboxed adapters.
///
/// ID stands for a whole snapshot id, for the beginning of one if only one begins so, or for the name that a snapshot
/// was given. Exit status: 0 done, 1 failed, 2 bad usage or input, 3 not yet (something has to be restored from cold
/// storage first).
#[derive(Debug, Parser)]
#[command(name = "tidelock", version, disable_help_subcommand = false, infer_long_args = false, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The configuration [default: tidelock.toml, or without one a folder ./tidelock-data].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON object on stdout, also for a failure.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// No progress and no warnings.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more on stderr; twice for details, three times for everything. RUST_LOG goes before.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl Global {
    /// How much to log: -1 for errors, 0 for warnings, more from there on.
    pub(super) fn verbosity(&self) -> i8 {
        if self.quiet { -1 } else { self.verbose.min(3) as i8 }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a configuration file that documents every key.
    Init(Init),
    /// Store an image and print its id.
    Store(Store),
    /// Store a changed image with the snapshot that it came from, and print its id.
    Update(Update),
    /// Store what a snapshot becomes through a delta that you have, and print its id.
    Apply(Apply),
    /// Bring an image back, checked to the last byte.
    Retrieve(Retrieve),
    /// Print the id of an image without storing it.
    Id(Image),
    /// Show a snapshot and where it is.
    Stat(One),
    /// List the snapshots, oldest first.
    Ls,
    /// Remove a snapshot from every backend.
    Rm(One),
    /// Check that backends still hold what was stored.
    Verify(Verify),
    /// Record what a backend holds and the catalogue does not know: a lost catalogue is rebuilt so.
    Import(Import),
    /// Remove what broken-off stores left behind.
    Gc(Gc),
    /// Show and replace adapters, or look into a component.
    #[command(subcommand)]
    Adapter(Adapter),
    /// Offer all of this over HTTP, until SIGTERM or SIGINT.
    Serve(Serve),
}

#[derive(Debug, Subcommand)]
pub(super) enum Adapter {
    /// List the backends and the adapters that serve them.
    Ls(Remote),
    /// Replace the adapter of a backend: of a running daemon with --server, else for commands from now on.
    Swap(Swap),
    /// Put the adapter back that served before.
    Rollback(Changed),
    /// Show what has happened to the adapter of a backend, newest first.
    History(Changed),
    /// Show what a component is, who signed it, what it asks for and what this configuration would grant.
    Inspect(Inspect),
    /// Put a manifest into a component.
    Embed(Embed),
    /// Make a key for signing components, and print its public half.
    Keygen(Keygen),
    /// Sign a component: writes FILE.wasm.sig beside it.
    Sign(Sign),
    /// Check that a trusted key has signed a component. Exit status 1 if none has.
    Verify(VerifyComponent),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Overwrite a file that is there.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Image {
    /// The image: a file, a block device, or `-` for standard input.
    #[arg(value_name = "FILE|-")]
    pub(super) file: PathBuf,
}

/// How something is stored.
#[derive(Debug, Args)]
pub(super) struct How {
    /// The route of the configuration that says which backends it goes to [default: default].
    #[arg(long)]
    pub(super) route: Option<String>,
    /// A name by which the snapshot can be found, as long as no other snapshot has it too.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Store the bytes as they are, so that other programs can use the object.
    #[arg(long)]
    pub(super) raw: bool,
}

#[derive(Debug, Args)]
pub(super) struct Store {
    #[command(flatten)]
    pub(super) image: Image,
    #[command(flatten)]
    pub(super) how: How,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The snapshot that the image was made from.
    #[arg(value_name = "BASE")]
    pub(super) base: String,
    #[command(flatten)]
    pub(super) image: Image,
    #[command(flatten)]
    pub(super) how: How,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The snapshot that the delta changes.
    #[arg(value_name = "BASE")]
    pub(super) base: String,
    /// The delta: a file, or `-` for standard input.
    #[arg(value_name = "DELTA|-")]
    pub(super) delta: PathBuf,
    /// What the delta is.
    #[arg(long, value_enum, default_value = "zstd")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) how: How,
}

/// What a delta is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// What `zstd --patch-from=BASE` writes.
    Zstd,
    /// A file with data where something changed and holes elsewhere, as Firecracker writes.
    Sparse,
}

#[derive(Debug, Args)]
pub(super) struct Retrieve {
    /// The snapshot.
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Where to: a file, which appears whole or not at all, or `-` for standard output.
    #[arg(long, short, value_name = "FILE|-")]
    pub(super) output: Option<PathBuf>,
    /// Only the bytes from A to just before B; `A..` and `..B` are possible too.
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub(super) range: Option<ByteRange>,
    /// If the snapshot is in cold storage, wait until it is restored, which may take days, instead of ending with status 3.
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The snapshot.
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The snapshot; without it, all of them.
    #[arg(value_name = "ID")]
    pub(super) id: Option<String>,
    /// Read every byte instead of asking the backends what they have.
    #[arg(long)]
    pub(super) deep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The backend.
    #[arg(value_name = "BACKEND")]
    pub(super) backend: String,
    /// Only these objects, by the backend's own names, whoever stored them; their ids are printed.
    #[arg(value_name = "OBJECT", value_parser = object)]
    pub(super) objects: Vec<ObjectId>,
    /// Also what the adapter lists although no host seems to have stored it.
    #[arg(long, conflicts_with = "objects")]
    pub(super) foreign: bool,
    /// Ask for a restore of what is in cold storage, which costs money; import again once it is done.
    #[arg(long)]
    pub(super) restore: bool,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Leave unfinished uploads alone that are younger, for example 30m, 5h or 7d: they may be under way.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = age)]
    pub(super) older_than: Duration,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen: `unix:PATH`, or an address and a port (0 takes a free one) [default: as configured].
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// The file with the token that clients must send [default: as configured].
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Open every backend, say what cannot be opened, and end.
    #[arg(long, conflicts_with = "openapi")]
    pub(super) check: bool,
    /// Print the OpenAPI document and end.
    #[arg(long)]
    pub(super) openapi: bool,
}

/// A daemon to talk to.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The daemon: `unix:PATH`, `http://ADDRESS:PORT` or `https://…`.
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// The file with the daemon's token.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Swap {
    /// The backend.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// The component; its signatures are taken from FILE.wasm.sig beside it.
    #[arg(value_name = "FILE.wasm")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// A backend whose adapter is meant.
#[derive(Debug, Args)]
pub(super) struct Changed {
    /// The backend.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct Component {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    pub(super) component: Component,
    /// Say what this backend would grant; without it, what every backend of the configuration would.
    #[arg(long, value_name = "NAME")]
    pub(super) backend: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Embed {
    #[command(flatten)]
    pub(super) component: Component,
    /// The manifest (docs/formats.md).
    #[arg(value_name = "ADAPTER.toml", default_value = "adapter.toml")]
    pub(super) manifest: PathBuf,
    /// Where to [default: in place].
    #[arg(long, short, value_name = "FILE.wasm")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The file that keeps the secret half. Must not be there yet; only you will be able to read it.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The file that `keygen` wrote.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    #[command(flatten)]
    pub(super) component: Component,
}

#[derive(Debug, Args)]
pub(super) struct VerifyComponent {
    #[command(flatten)]
    pub(super) component: Component,
    /// A public key to trust, ed25519:…; more than once for any of them [default: those of [trust.keys]].
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub(super) key: Vec<PublicKey>,
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(with_hint)
}

fn object(text: &str) -> Result<ObjectId, String> {
    ObjectId::new(text).map_err(with_hint)
}

fn range(text: &str) -> Result<ByteRange, String> {
    text.parse().map_err(with_hint)
}

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(with_hint)
}

/// Clap prints an error as one text.
fn with_hint(error: Error) -> String {
    match error.advice() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values_are_checked_and_say_what_to_write() {
        let error = |words: &[&str]| Arguments::try_parse_from(words).unwrap_err().to_string();
        assert!(error(&["tidelock", "retrieve", "x", "--range", "7"]).contains("write A..B"));
        assert!(error(&["tidelock", "gc", "--older-than", "7"]).contains("ms, s, m, h or d"));
        assert!(error(&["tidelock", "apply", "x", "y", "--format", "z"]).contains("sparse"));
    }

    #[test]
    fn global_options_go_anywhere() {
        let read = |words: &[&str]| Arguments::try_parse_from(words).unwrap().global;
        assert!(read(&["tidelock", "--json", "ls"]).json);
        assert!(read(&["tidelock", "ls", "--json"]).json);
        assert_eq!(read(&["tidelock", "ls", "-vv"]).verbosity(), 2);
        assert_eq!(read(&["tidelock", "-q", "ls"]).verbosity(), -1);
        assert!(Arguments::try_parse_from(["tidelock", "-q", "-v", "ls"]).is_err());
    }
}
