//! Runs a program and records what a loss of power would leave of a folder at each of its steps (`power`).
//!
//! `recorder FOLDER RECORD PROGRAM ARGUMENT…`. Its output and exit status are the program's.

use std::path::PathBuf;
use std::process::ExitCode;

use tidelock_tests::power::Recorder;
use tidelock_tests::steps::{End, follow};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().expect("FOLDER"));
    let record = PathBuf::from(arguments.next().expect("RECORD"));
    let mut recorder = Recorder::begin(&folder, &record).expect("a record of the folder");
    let ended = follow(arguments, |step| recorder.step(step).expect("the folder can be read"));
    recorder.end().expect("the record is written");
    match ended {
        End::Exited(code) => ExitCode::from(code as u8),
        End::Killed(_) => unreachable!("nothing is killed here"),
    }
}
