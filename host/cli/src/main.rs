//! The command line: one file per command, and shared modules.
//!
//! | module | contents |
//! | --- | --- |
//! | `arguments` | command-line arguments |
//! | `session` | configuration and global options |
//! | `failure` | failures of commands: texts, the JSON object, the exit status |
//! | `output` | standard output: one object, or text for people |
//! | `console` | standard error: progress and logs |
//! | `credentials` | secrets from the environment and from files |
//! | `input` | images and components that the user names |
//! | `signals` | what signals do to a command |
//! | `sink` | where retrieved images go |
//! | `unnamed` | files that have no name until they are complete |
//! | `remote` | client of a running daemon |
//! | `resources` | threads, file descriptors and memory |
//!
//! Standard output has the answer and nothing else, so that a shell can take it; with `--json` it is one object, of a
//! failure too. This is the only part of the crate that reads the environment, installs a logger, makes a runtime and
//! listens to signals. A signal drops the command's future: everything below is written so that this leaves nothing
//! half-visible.

mod adapter;
mod apply;
mod arguments;
mod console;
mod credentials;
mod dirty_form;
mod failure;
mod forget;
mod gc;
mod id;
mod import;
mod init;
mod input;
mod inspect;
mod jobs;
mod ls;
mod output;
mod rebase;
mod remote;
mod repair;
mod resources;
mod retrieve;
mod rm;
mod scrub;
mod serve;
mod serve_check;
mod session;
mod sign;
mod signals;
mod sink;
mod stat;
mod store;
mod unnamed;
mod update;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Adapter, Arguments, Command};
use clap::Parser;
use console::Console;
use failure::Failure;
use session::Session;
use tidelock::runtime::PARSER_THREAD;

/// How long a command that was interrupted has to clean up: threads that wait for a slow disk, or for a terminal.
const CLEANUP: Duration = Duration::from_millis(500);

/// Runs the command that the arguments of this process name, and returns its exit status.
fn main() -> ExitCode {
    // What is caught is reported as the error that it becomes.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(PARSER_THREAD) {
            report(panic);
        }
    }));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
            return failure::report_usage(&error, json).into();
        }
    };
    let json = arguments.global.json;
    match perform(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json).into(),
    }
}

fn perform(arguments: Arguments) -> Result<(), Failure> {
    let console = Console::new(arguments.global.quiet);
    console.log(arguments.global.verbosity());
    resources::raise_descriptors();
    if matches!(arguments.command, Command::Serve(_)) {
        resources::give_memory_back();
    } else {
        resources::share_memory();
    }
    let runtime = resources::runtime()?;
    let session = Session::new(arguments.global, console);
    let result = runtime.block_on(async {
        signals::survive_file_size_limit();
        if let Command::Serve(arguments) = arguments.command {
            // It handles signals itself.
            return serve::run(arguments, &session).await;
        }
        let interrupted = signals::interruption()?;
        tokio::select! {
            biased;
            signal = interrupted => Err(Failure::Interrupted(signal)),
            result = dispatch(arguments.command, &session) => result,
        }
    });
    match result {
        Ok(()) => runtime.shutdown_background(),
        // A thread may still hold a temporary file that is to be removed.
        Err(_) => runtime.shutdown_timeout(CLEANUP),
    }
    result
}

async fn dispatch(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Init(arguments) => init::run(&arguments, session),
        Command::Store(arguments) => store::run(arguments, session).await,
        Command::Update(arguments) => update::run(arguments, session).await,
        Command::Apply(arguments) => apply::run(arguments, session).await,
        Command::Retrieve(arguments) => retrieve::run(arguments, session).await,
        Command::Id(arguments) => id::run(&arguments, session).await,
        Command::Stat(arguments) => stat::run(&arguments, session).await,
        Command::Ls => ls::run(session).await,
        Command::Rm(arguments) => rm::run(&arguments, session).await,
        Command::Forget(arguments) => forget::run(&arguments, session).await,
        Command::Verify(arguments) => verify::run(&arguments, session).await,
        Command::Repair(arguments) => repair::run(&arguments, session).await,
        Command::Rebase(arguments) => rebase::run(&arguments, session).await,
        Command::Scrub(arguments) => scrub::run(&arguments, session).await,
        Command::Jobs(arguments) => jobs::run(arguments, session).await,
        Command::Import(arguments) => import::run(arguments, session).await,
        Command::Gc(arguments) => gc::run(&arguments, session).await,
        Command::Adapter(Adapter::Ls(remote)) => adapter::ls(&remote, session).await,
        Command::Adapter(Adapter::Swap(arguments)) => adapter::swap(&arguments, session).await,
        Command::Adapter(Adapter::Rollback(arguments)) => adapter::rollback(&arguments, session).await,
        Command::Adapter(Adapter::History(arguments)) => adapter::history(&arguments, session).await,
        Command::Serve(arguments) => serve::run(arguments, session).await,
        Command::Adapter(Adapter::Inspect(arguments)) => inspect::run(&arguments, session).await,
        Command::Adapter(Adapter::Embed(arguments)) => sign::embed(&arguments, session).await,
        Command::Adapter(Adapter::Keygen(arguments)) => sign::keygen(&arguments, session),
        Command::Adapter(Adapter::Sign(arguments)) => sign::sign(&arguments, session).await,
        Command::Adapter(Adapter::Verify(arguments)) => sign::verify(&arguments, session).await,
    }
}
