//! Runs a program and kills it at a step: the child of the tests of sudden ends.
//!
//! `stepper WHICH PROGRAM ARGUMENT…`: steps are those of `steps`; several writes of one thread, one directly after the other,
//! are one. The program is killed just before its step of this number, from one, or, where WHICH is no number, before the
//! first of its steps whose call has a name that begins so; what it did before has happened, and the step itself has not.
//! Its output is this program's.
//!
//! Exit status 9 if it was killed, with the name of the step in the last line on stderr; otherwise the program's own:
//! it had fewer steps.

use std::process::ExitCode;

use tidelock_tests::steps::{End, Next, follow};

const KILLED: u8 = 9;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let which = arguments.next().and_then(|which| which.into_string().ok()).expect("WHICH");
    let number: Option<u64> = which.parse().ok();
    let (mut steps, mut last) = (0, None);
    let ended = follow(arguments, |step| {
        let again = step.call == "pwrite" && last == Some((step.thread, step.call));
        last = Some((step.thread, step.call));
        steps += u64::from(!again);
        let reached = number.map_or_else(|| step.call.starts_with(&which), |number| steps == number && !again);
        if reached { Next::Kill } else { Next::Go }
    });
    match ended {
        End::Exited(code) => ExitCode::from(code as u8),
        End::Killed(step) => {
            eprintln!("killed before step {steps}: {step}");
            ExitCode::from(KILLED)
        }
    }
}
