//! Command-line arguments. The doc comments on fields are the help texts.

mod jobs;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

pub(super) use jobs::{Forget, Jobs, JobsCommand, Rebase, RunJobs, Scrub};
use tidelock::MOST_LISTED;
use tidelock::types::{ByteRange, Encoding, Error, ObjectId, PublicKey, parse_duration};

/// Stores the snapshots of virtual machines and agents through sandboxed adapters.
///
/// ID is a snapshot id, an unambiguous prefix of one, or the name of a snapshot. Exit status: 0 done, 1 failed, 2 bad
/// usage or input, 3 pending (a restore from cold storage is needed first).
#[derive(Debug, Parser)]
#[command(name = "tidelock", version, disable_help_subcommand = false, infer_long_args = false, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The configuration file [default: tidelock.toml if it exists, else a built-in one that uses ./tidelock-data].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON object on stdout, also on failure.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print no progress and no warnings.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Log more on stderr; twice for details, three times for everything. RUST_LOG takes precedence.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl Global {
    /// Returns the log level: -1 for errors, 0 for warnings, up to 3 for everything.
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
    /// Store what has changed in an image since a base snapshot, and print its id.
    Update(Update),
    /// Apply an existing delta to a snapshot, store the result and print its id.
    Apply(Apply),
    /// Retrieve an image, verifying every byte.
    Retrieve(Retrieve),
    /// Print the id of an image without storing it.
    Id(Image),
    /// Show a snapshot and its placements.
    Stat(One),
    /// List the snapshots, oldest first.
    Ls,
    /// Remove a name, and the snapshot with its last one; or a snapshot by its id.
    Rm(Rm),
    /// Forget what is recorded on a backend that was taken out of the configuration for good.
    Forget(Forget),
    /// Verify that backends still hold the stored snapshots.
    Verify(Verify),
    /// Verify every byte of a snapshot, and make good copies in place of damaged ones. Exit status 1 if some stay.
    Repair(One),
    /// Replace the packs of a snapshot by full ones, which take pages from no other. Exit status 1 if some could not be replaced.
    Rebase(Rebase),
    /// Read and compare every stored object, the one that was not for the longest time first.
    Scrub(Scrub),
    /// List, run or cancel jobs: repairs, and copies that are still to be made.
    Jobs(Jobs),
    /// Record objects of a backend that the catalogue lacks, for example to rebuild a lost catalogue.
    Import(Import),
    /// Remove leftovers of interrupted stores.
    Gc(Gc),
    /// Show and swap adapters, or inspect a component.
    #[command(subcommand)]
    Adapter(Adapter),
    /// Serve the HTTP API until SIGTERM or SIGINT.
    Serve(Serve),
}

#[derive(Debug, Subcommand)]
pub(super) enum Adapter {
    /// List the backends and their adapters.
    Ls(Remote),
    /// Swap the adapter of a backend: in a running daemon with --server, else for later commands.
    Swap(Swap),
    /// Return to the previous adapter.
    Rollback(Changed),
    /// Show the swap log of a backend, newest first.
    History(Changed),
    /// Show a component's digest, signatures and requests, and the grants that this configuration would give it.
    Inspect(Inspect),
    /// Embed a manifest in a component.
    Embed(Embed),
    /// Create a key for signing components, and print its public key.
    Keygen(Keygen),
    /// Sign a component and write FILE.wasm.sig beside it.
    Sign(Sign),
    /// Verify that a component is signed by a trusted key. Exit status 1 if it is not.
    Verify(VerifyComponent),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Overwrite an existing file.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Image {
    /// The image: a file, a block device, or `-` for standard input.
    #[arg(value_name = "FILE|-")]
    pub(super) file: PathBuf,
}

/// Options of commands that store.
#[derive(Debug, Args)]
pub(super) struct How {
    /// The route, which selects the backends [default: default].
    #[arg(long)]
    pub(super) route: Option<String>,
    /// A name, usable in place of the id. A snapshot can have several; one that another snapshot has is taken from it.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Store the bytes unchanged, so that other programs can use the object.
    #[arg(long)]
    pub(super) raw: bool,
}

#[derive(Debug, Args)]
pub(super) struct Store {
    #[command(flatten)]
    pub(super) image: Image,
    /// Store an image of no bytes that comes from a pipe, instead of refusing it.
    #[arg(long)]
    pub(super) allow_empty: bool,
    /// Store it as a change of another snapshot: `auto` looks for one, on routes with encoding = "pages", and takes it if that
    /// pays; `none` does not; or an ID, as `update` [default: auto for a file, none for standard input].
    #[arg(long, value_name = "auto|none|ID")]
    pub(super) base: Option<String>,
    #[command(flatten)]
    pub(super) how: How,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The base snapshot of the image.
    #[arg(value_name = "BASE")]
    pub(super) base: String,
    #[command(flatten)]
    pub(super) image: Image,
    /// Store an image of no bytes that comes from a pipe, instead of refusing it.
    #[arg(long)]
    pub(super) allow_empty: bool,
    /// Read only what this file says may have changed: a bitmap of pages of 4 KiB, lines `OFFSET LENGTH`, or a JSON array of
    /// objects with `start` and `length` (docs/formats.md). Other changes are not stored, and the rest of the base is not read:
    /// damage in it that nobody has noticed is carried on.
    #[arg(long, value_name = "FILE")]
    pub(super) dirty: Option<PathBuf>,
    /// The form of what `--dirty` gives. Without it, what has the length of a bitmap is one, unless it can be text as well.
    #[arg(long, value_enum, requires = "dirty")]
    pub(super) dirty_format: Option<super::dirty_form::DirtyForm>,
    #[command(flatten)]
    pub(super) how: How,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The base snapshot of the delta.
    #[arg(value_name = "BASE")]
    pub(super) base: String,
    /// The delta: a file, or `-` for standard input.
    #[arg(value_name = "DELTA|-")]
    pub(super) delta: PathBuf,
    /// The format of the delta.
    #[arg(long, value_enum, default_value = "zstd")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) how: How,
}

/// The format of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Output of `zstd --patch-from=BASE`.
    Zstd,
    /// A file with data where the image changed and holes elsewhere, as Firecracker writes it.
    Sparse,
}

#[derive(Debug, Args)]
pub(super) struct Retrieve {
    /// The snapshot.
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// The output: a file, which is written atomically, or `-` for standard output.
    #[arg(long, short, value_name = "FILE|-")]
    pub(super) output: Option<PathBuf>,
    /// Only the bytes from A up to but excluding B; A or B can be omitted.
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub(super) range: Option<ByteRange>,
    /// Wait for a restore from cold storage, which may take days, instead of exiting with status 3.
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
pub(super) struct Rm {
    /// A name, which alone is removed unless it is the last one; or an id.
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Remove the snapshot from every backend, with all of its names.
    #[arg(long)]
    pub(super) all_names: bool,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The snapshot [default: all].
    #[arg(value_name = "ID")]
    pub(super) id: Option<String>,
    /// Read every byte instead of only querying the backends.
    #[arg(long)]
    pub(super) deep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The backend.
    #[arg(value_name = "BACKEND")]
    pub(super) backend: String,
    /// Import only these objects, by the backend's own names, even from other programs, and print their ids.
    #[arg(value_name = "OBJECT", value_parser = object)]
    pub(super) objects: Vec<ObjectId>,
    /// Also import listed objects that no host seems to have stored. What an adapter does not list has to be named.
    #[arg(long, conflicts_with = "objects")]
    pub(super) foreign: bool,
    /// Request a restore of objects in cold storage, which costs money; import again once it is done.
    #[arg(long)]
    pub(super) restore: bool,
    /// What the bytes of these objects are, whatever their labels say: `raw` for an image, `pages` for a pack.
    #[arg(long, value_name = "ENCODING", requires = "objects", value_parser = Encoding::from_name)]
    pub(super) encoding: Option<Encoding>,
    /// The route that says how many copies are wanted of what is imported, and where [default: default].
    #[arg(long)]
    pub(super) route: Option<String>,
    /// The container that snapshots were stored into is lost for good: go on with the one that the backend has now.
    #[arg(long)]
    pub(super) new_container: bool,
    /// How many objects the backend may list: a listing with more does not end, or is not what you expect.
    #[arg(long, value_name = "N", default_value_t = MOST_LISTED, value_parser = value_parser!(u64).range(1..))]
    pub(super) max_objects: u64,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Keep unfinished uploads younger than this, for example 30m, 5h or 7d: they may be in progress.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = age)]
    pub(super) older_than: Duration,
    /// How many objects a backend may list: a listing with more does not end, or is not what you expect.
    #[arg(long, value_name = "N", default_value_t = MOST_LISTED, value_parser = value_parser!(u64).range(1..))]
    pub(super) max_objects: u64,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The address: `unix:PATH`, or an address and a port (0 selects a free one) [default: as configured].
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// The file with the token that clients must send [default: as configured].
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Open every backend, report failures, and exit.
    #[arg(long, conflicts_with = "openapi")]
    pub(super) check: bool,
    /// Print the OpenAPI document and exit.
    #[arg(long)]
    pub(super) openapi: bool,
}

/// Options for a running daemon.
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
    /// The component; its signatures are read from FILE.wasm.sig beside it.
    #[arg(value_name = "FILE.wasm")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// A backend, for commands on its adapter.
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
    /// Show the grants of this backend [default: of every backend of the configuration].
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
    /// The output [default: in place].
    #[arg(long, short, value_name = "FILE.wasm")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The file for the secret key. Must not exist yet; it is created readable only by you.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The secret key file from `keygen`.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    #[command(flatten)]
    pub(super) component: Component,
}

#[derive(Debug, Args)]
pub(super) struct VerifyComponent {
    #[command(flatten)]
    pub(super) component: Component,
    /// A public key to trust, ed25519:…; can be repeated [default: those of [trust.keys]].
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
mod tests;
