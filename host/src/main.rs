//! The program `tidelock`. Everything is in the library: `tidelock::cli`.

fn main() -> std::process::ExitCode {
    tidelock::cli::main()
}
