//! The programs in `fuzz_targets/`: libFuzzer's main with `--cfg fuzzing`; otherwise one that replays files.

use std::path::Path;
use std::process::ExitCode;

/// The whole of a program.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::program::replay($run)
        }
    };
}

/// Runs a target over the files of the command line; a panic ends it.
pub fn replay(run: fn(&[u8])) -> ExitCode {
    let mut files = std::env::args_os().skip(1).peekable();
    if files.peek().is_none() {
        eprintln!("give files to replay; `cargo xtask fuzz` makes programs that search by themselves");
        return ExitCode::from(2);
    }
    for file in files {
        let file = Path::new(&file);
        match std::fs::read(file) {
            Ok(data) => run(&data),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        }
        eprintln!("{}: holds", file.display());
    }
    ExitCode::SUCCESS
}
