//! Counting the results of `cargo test`.
//!
//! libtest's JSON output is not stable, so text is parsed: the `test result:` line of each test program, the lines of ignored
//! tests, and Cargo's lines that say which program runs and how one ended. A program without a result has failed: a signal
//! or an overflow of its stack ended it, and its other tests did not run. Other lines are ignored; failures also show
//! in Cargo's exit status, and the two are compared.

use std::io::{BufRead, BufReader, Read, Write};

/// The result of a run of tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Tests that ran to their end without a failure.
    pub passed: u64,
    /// Tests that failed, and programs that ended without a result.
    pub failed: u64,
    /// Tests that libtest did not run, as `name: why`.
    pub ignored: Vec<String>,
    /// The programs that ended without a result, as `name: why`.
    pub aborted: Vec<String>,
    /// The tests that failed, as `name: why`, with the first lines of what they said.
    pub failures: Vec<String>,
    running: Program,
    /// How many lines more belong to the last of the failures.
    saying: usize,
}

/// Lines of a failed test's output that are kept: where it panicked, and the beginning of the reason.
const LINES_KEPT: usize = 4;
/// Characters of such a line that are kept.
const CHARACTERS_KEPT: usize = 400;

/// The program that runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Program {
    name: Option<String>,
    /// Whether it has begun to run tests.
    begun: bool,
    /// Whether its result was read, or it was counted as aborted.
    ended: bool,
}

impl Tally {
    /// Copies the output of `cargo test`, of both streams, through to `out` line by line and counts. Bytes that are not UTF-8
    /// pass as they are.
    pub fn stream(input: impl Read, mut out: impl Write) -> std::io::Result<Self> {
        let mut tally = Self::default();
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            tally.line(&without_colours(&String::from_utf8_lossy(&line)));
            line.clear();
        }
        tally.next(Program::default());
        out.flush()?;
        Ok(tally)
    }

    /// Adds what another run came to.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored.extend(other.ignored);
        self.aborted.extend(other.aborted);
        self.failures.extend(other.failures);
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = failed(line) {
            self.failures.push(name.to_owned());
            self.saying = LINES_KEPT;
        } else if line.starts_with("failures:") {
            self.saying = 0;
        } else if self.saying > 0
            && let Some(failure) = self.failures.last_mut()
            && !line.trim().is_empty()
        {
            let separator = if self.saying == LINES_KEPT { ": " } else { " | " };
            failure.push_str(separator);
            failure.extend(line.trim().chars().take(CHARACTERS_KEPT));
            self.saying -= 1;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += number(counts, "passed");
            self.failed += number(counts, "failed");
            self.running.ended = true;
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ignored"))
        {
            let why = outcome.trim().trim_start_matches(',').trim();
            self.ignored.push(format!("{name}: {}", if why.is_empty() { "marked as ignored" } else { why }));
        } else if let Some(name) = program(line) {
            self.next(Program { name: Some(name), ..Program::default() });
        } else if is_beginning(line) {
            // Documentation tests of one crate run in several programs.
            let name = self.running.name.clone();
            self.next(Program { name, begun: true, ended: false });
        } else if let Some(why) = line.trim_start().strip_prefix("process didn't exit successfully: ")
            && !self.running.ended
        {
            let why = why.rsplit_once("` (").map_or(why, |(_, why)| why.trim_end().trim_end_matches(')'));
            self.abort(why);
        }
    }

    /// Another program runs from here on: that of before has ended, with a result or without.
    fn next(&mut self, program: Program) {
        if self.running.begun && !self.running.ended {
            self.abort("it ended without a result");
        }
        self.running = program;
    }

    fn abort(&mut self, why: &str) {
        let name = self.running.name.as_deref().unwrap_or("a test program");
        self.aborted.push(format!("{name}: {why}"));
        self.failed += 1;
        self.running.ended = true;
    }
}

/// The program that Cargo says it runs, as `     Running tests/a.rs (target/debug/deps/a-1f)` or `   Doc-tests a`.
fn program(line: &str) -> Option<String> {
    let said = line.strip_prefix(' ')?.trim();
    if let Some(name) = said.strip_prefix("Doc-tests ") {
        return Some(format!("the documentation of {name}"));
    }
    let (source, program) = said.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
    let stem = program.rsplit('/').next().unwrap_or(program);
    // Several crates have a `src/lib.rs`.
    let name = stem.rsplit_once('-').map_or(stem, |(name, _)| name);
    Some(format!("{name} ({source})"))
}

/// Whether this is `running 3 tests`.
fn is_beginning(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(words[..], ["running", count, "test" | "tests"] if count.parse::<u64>().is_ok())
}

/// The test whose output this line begins, as `---- a::b stdout ----`. Tests with a runner of their own say no `stdout`.
fn failed(line: &str) -> Option<&str> {
    let name = line.trim_end().strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
}

/// The line without what colours it on a terminal.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// The number before `word` in `ok. 3 passed; 0 failed; …`.
fn number(counts: &str, word: &str) -> u64 {
    let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_are_summed() -> std::io::Result<()> {
        let text = "\nrunning 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\ntest e ... ignored, needs a kernel module\n\
            test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
            test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s\n";
        let mut copied = Vec::new();
        let tally = Tally::stream(text.as_bytes(), &mut copied)?;
        assert_eq!((tally.passed, tally.failed), (42, 1));
        assert_eq!(tally.ignored, ["d: marked as ignored", "e: needs a kernel module"]);
        assert_eq!(tally.aborted, [""; 0]);
        assert_eq!(copied, text.as_bytes());
        Ok(())
    }

    #[test]
    fn failed_tests_are_kept_with_the_beginning_of_what_they_said() -> std::io::Result<()> {
        let text = "running 3 tests\ntest a::b ... FAILED\ntest c ... FAILED\ntest d ... ok\n\nfailures:\n\n---- a::b stdout ----\n\n\
            thread 'a::b' (7) panicked at a.rs:1:2:\nno copy\n\n---- c ----\n1\n2\n3\n4\n5\n\n\nfailures:\n    a::b\n    c\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let tally = Tally::stream(text.as_bytes(), std::io::sink())?;
        assert_eq!(tally.failed, 2);
        assert_eq!(tally.failures, ["a::b: thread 'a::b' (7) panicked at a.rs:1:2: | no copy", "c: 1 | 2 | 3 | 4"]);
        Ok(())
    }

    #[test]
    fn anything_else_counts_nothing() -> std::io::Result<()> {
        let text = b"test result: what\n\xff\xfe\ntest\nthe test result: ok. 9 passed; 0 failed".as_slice();
        let Tally { passed, failed, aborted, .. } = Tally::stream(text, std::io::sink())?;
        assert_eq!((passed, failed, aborted), (0, 0, vec![]));
        Ok(())
    }

    #[test]
    fn a_program_that_ends_without_a_result_has_failed_and_is_named() -> std::io::Result<()> {
        let text = "   Compiling a v0.1.0\n\u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/tidelock_types-0a1b)\n\n\
            running 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n     \
            Running tests/hostile/main.rs (target/debug/deps/hostile-2c3d)\n\nrunning 40 tests\ntest x ... ok\n\n\
            thread 'y' has overflowed its stack\nfatal runtime error: stack overflow\n\
            error: test failed, to rerun pass `-p tidelock-tests --test hostile`\n\nCaused by:\n  \
            process didn't exit successfully: `/a (b)/hostile-2c3d` (signal: 6, SIGABRT: process abort signal)\n     \
            Running tests/library/main.rs (target/debug/deps/library-4e5f)\n\nrunning 1 test\ntest z ... FAILED\n\n\
            test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
            error: test failed, to rerun pass `-p tidelock-tests --test library`\n\nCaused by:\n  \
            process didn't exit successfully: `library-4e5f` (exit status: 101)\n     \
            Running tests/plain.rs (target/debug/deps/plain-6a7b)\n\nCaused by:\n  \
            process didn't exit successfully: `plain-6a7b` (signal: 9, SIGKILL: kill)\n   \
            Doc-tests tidelock\n\nrunning 1 test\n\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\nrunning 3 tests\n";
        let tally = Tally::stream(text.as_bytes(), std::io::sink())?;
        assert_eq!((tally.passed, tally.failed), (3, 4));
        assert_eq!(
            tally.aborted,
            [
                "hostile (tests/hostile/main.rs): signal: 6, SIGABRT: process abort signal",
                "plain (tests/plain.rs): signal: 9, SIGKILL: kill",
                "the documentation of tidelock: it ended without a result"
            ]
        );
        Ok(())
    }
}
