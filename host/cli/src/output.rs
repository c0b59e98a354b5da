//! Standard output: one JSON object, or text for people. A reader that leaves early is not an error.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::failure::{ErrorObject, Failure};

/// Prints a text as it is.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Prints a text and a newline.
pub(super) fn line(line: impl std::fmt::Display) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Prints an object on a line.
pub(super) fn object(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|error| Failure::output(error.into()))?;
    line(json)
}

/// What a command has found, and the error that this amounts to, in one object.
#[derive(Serialize)]
pub(super) struct Outcome<'a, T> {
    #[serde(flatten)]
    found: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

impl<'a, T> Outcome<'a, T> {
    pub(super) fn of(found: &'a T, verdict: Option<&'a Failure>) -> Self {
        Self { found, error: verdict.and_then(Failure::object) }
    }
}

/// Prints what a command has found, as an object or as a text, and fails if that amounts to an error.
pub(super) fn outcome<T: Serialize>(
    json: bool,
    found: &T,
    describe: impl FnOnce(&T) -> String,
    verdict: Option<Failure>,
) -> Result<(), Failure> {
    match json {
        true => object(&Outcome::of(found, verdict.as_ref()))?,
        false => text(&describe(found))?,
    }
    verdict.map_or(Ok(()), |failure| Err(failure.told()))
}

/// Rows of a list in an object, printed one by one.
pub(super) struct Rows {
    out: BufWriter<io::Stdout>,
    first: bool,
}

impl Rows {
    /// Prints the next one.
    pub(super) fn add(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        let row = serde_json::to_string(row).map_err(|error| Failure::output(error.into()))?;
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        write!(self.out, "{comma}{row}").map_err(Failure::output)
    }
}

/// Prints `{"NAME": […]}` with what `rows` adds, however many these are. If it breaks off, the list is closed and `error`
/// follows: still one object.
pub(super) async fn list(name: &str, rows: impl AsyncFnOnce(&mut Rows) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut list = Rows { out: BufWriter::new(io::stdout()), first: true };
    write!(list.out, "{{\"{name}\":[").map_err(Failure::output)?;
    let result = rows(&mut list).await;
    let end = match &result {
        Ok(()) => "]}\n".to_owned(),
        Err(Failure::Error { error, .. }) => {
            let error =
                serde_json::to_string(&ErrorObject::of(error)).map_err(|error| Failure::output(error.into()))?;
            format!("],\"error\":{error}}}\n")
        }
        Err(_) => return result,
    };
    list.out.write_all(end.as_bytes()).and_then(|()| list.out.flush()).map_err(Failure::output)?;
    result.map_err(Failure::told)
}

/// Returns whether a person looks at standard output.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A moment in UTC: `2026-03-01 12:00:00Z`.
pub(super) fn moment(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.strftime("%F %TZ").to_string())
}

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Rows in aligned columns, below a heading.
pub(super) struct TextTable {
    columns: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// With a heading for each column.
    pub(super) fn new<const N: usize>(headings: [(&str, Side); N]) -> Self {
        Self {
            columns: headings.iter().map(|(_, side)| *side).collect(),
            rows: vec![headings.iter().map(|(text, _)| (*text).to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }
}

impl std::fmt::Display for TextTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| width(at).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(&self.columns).zip(&widths) {
                line += &match side {
                    Side::Left => format!("{cell:<width$}  "),
                    Side::Right => format!("{cell:>width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns the text without control characters, which must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Names and values, one pair on a line.
#[derive(Default)]
pub(super) struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a pair.
    pub(super) fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push((name.to_owned(), printable(&value.to_string())));
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name:<width$}  {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = TextTable::new([("NAME", Side::Left), ("SIZE", Side::Right), ("WHY", Side::Left)]);
        table.row(["a".into(), "12 B".into(), String::new()]);
        table.row(["long name\u{1b}".into(), "4096 B".into(), "x".into()]);
        assert_eq!(table.to_string(), "NAME          SIZE  WHY\na             12 B\nlong name\u{fffd}  4096 B  x\n");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(moment(0), "1970-01-01 00:00:00Z");
        assert_eq!(moment(1_709_210_096), "2024-02-29 12:34:56Z");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
    }
}
