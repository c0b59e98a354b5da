//! Counting libtest's results.
//!
//! libtest's JSON output is not stable, so its text is parsed: the `test result:` line of each test
//! program, and the lines of ignored tests. Other lines are ignored; failures also show in
//! Cargo's exit status, and the two are compared.

use std::io::{BufRead, BufReader, Read, Write};

/// The result of a run of tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Tests that ran to their end without a failure.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that libtest did not run, as `name: why`.
    pub ignored: Vec<String>,
}

impl Tally {
    /// Copies the output of `cargo test` through to `out` line by line and counts. Bytes that are not UTF-8 pass as they
    /// are.
    pub fn stream(input: impl Read, mut out: impl Write) -> std::io::Result<Self> {
        let mut tally = Self::default();
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            tally.line(&String::from_utf8_lossy(&line));
            line.clear();
        }
        out.flush()?;
        Ok(tally)
    }

    /// Adds what another run came to.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored.extend(other.ignored);
    }

    fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += number(counts, "passed");
            self.failed += number(counts, "failed");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ignored"))
        {
            let why = outcome.trim().trim_start_matches(',').trim();
            self.ignored.push(format!("{name}: {}", if why.is_empty() { "marked as ignored" } else { why }));
        }
    }
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
        assert_eq!(copied, text.as_bytes());
        Ok(())
    }

    #[test]
    fn anything_else_counts_nothing() -> std::io::Result<()> {
        let text = b"test result: what\n\xff\xfe\ntest\nthe test result: ok. 9 passed; 0 failed".as_slice();
        assert_eq!(Tally::stream(text, std::io::sink())?, Tally::default());
        Ok(())
    }
}
