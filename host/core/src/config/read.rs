//! Walking a TOML document without forgetting where anything stood.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::types::{Error, Result, parse_bytes, position};

/// A value, its path and its place.
pub(super) struct Item<'a> {
    text: &'a str,
    path: String,
    key: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

/// A table of which every key is known, or every key is a name of the user's choice.
pub(super) struct TomlTable<'a> {
    text: &'a str,
    path: String,
    /// Where the table was named.
    place: Range<usize>,
    table: &'a DeTable<'a>,
}

/// Parses a document and passes it to a reader.
pub(super) fn document<T>(text: &str, read: impl FnOnce(TomlTable<'_>) -> Result<T>) -> Result<T> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let what = error.message().trim_end().replace('\n', ", ");
        Error::invalid(format!("{}: {what}", position(text, at))).with_source(error)
    })?;
    read(TomlTable { text, path: String::new(), place: 0..0, table: document.get_ref() })
}

impl<'a> TomlTable<'a> {
    /// Refuses keys that are not among `known`.
    pub(super) fn only(self, known: &[&str]) -> Result<Self> {
        let unknown = self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        // The first in the text, not in the alphabet.
        let Some((key, _)) = unknown.min_by_key(|(key, _)| key.span().start) else { return Ok(self) };
        let name = key.get_ref();
        let error = Error::invalid(format!(
            "{}: unknown key `{}`{}",
            position(self.text, key.span().start),
            join(&self.path, name),
            match nearest(name, known) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            }
        ));
        Err(error.hint(format!("use one of the keys {}", list(known))))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Item { text: self.text, path: join(&self.path, key), key: name.span(), value })
    }

    /// Returns the value of a required key.
    pub(super) fn need(&self, key: &str, example: &str) -> Result<Item<'a>> {
        self.get(key).ok_or_else(|| {
            let place = position(self.text, self.place.start);
            let path = if self.path.is_empty() { "the configuration" } else { &format!("`{}`", self.path) };
            Error::invalid(format!("{place}: {path} lacks `{key}`")).hint(format!("write {example}"))
        })
    }

    /// All entries, under the names that the user chose, in the order of the alphabet.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> {
        self.table.iter().map(|(name, value)| {
            let name_text = name.get_ref().as_ref();
            (name_text, Item { text: self.text, path: join(&self.path, name_text), key: name.span(), value })
        })
    }
}

impl<'a> Item<'a> {
    /// An error about this value.
    pub(super) fn wrong(&self, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: `{}` {why}", position(self.text, self.value.span().start), self.path))
    }

    /// An error about the name of this value.
    pub(super) fn misnamed(&self, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: `{}` {why}", position(self.text, self.key.start), self.path))
    }

    fn expected(&self, what: &str) -> Error {
        let found = match self.value.get_ref() {
            DeValue::Integer(_) => "an integer",
            DeValue::Array(_) => "an array",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Table(_) => "a table",
        };
        self.wrong(format_args!("must be {what}, not {found}"))
    }

    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("a string"))
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("`true` or `false`"))
    }

    pub(super) fn integer(&self) -> Result<i64> {
        let DeValue::Integer(integer) = self.value.get_ref() else { return Err(self.expected("an integer")) };
        i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| self.wrong("does not fit 64 bits"))
    }

    /// An integer from 1 to `most`.
    pub(super) fn count(&self, most: u32) -> Result<u32> {
        let fits = u32::try_from(self.integer()?).ok().filter(|count| (1..=most).contains(count));
        fits.ok_or_else(|| match most {
            1 => self.wrong("must be 1"),
            _ => self.wrong(format_args!("must be from 1 to {most}")),
        })
    }

    /// A number of bytes, also as a text with a unit.
    pub(super) fn bytes(&self) -> Result<u64> {
        match self.value() {
            DeValue::Integer(_) => u64::try_from(self.integer()?).map_err(|_| self.wrong("must not be negative")),
            _ => self.parsed(parse_bytes),
        }
    }

    /// A number that is not negative.
    pub(super) fn amount(&self) -> Result<f64> {
        let text = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return Err(self.expected("a number")),
        };
        let amount = text.parse::<f64>().ok().filter(|amount| amount.is_finite() && *amount >= 0.0);
        amount.ok_or_else(|| self.wrong("must be a number that is not negative"))
    }

    /// Parses a string: the error says what is wrong with it.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        parse(self.text()?).map_err(|error| {
            let made = self.wrong(format_args!("is wrong: {}", error.message()));
            match error.advice() {
                Some(advice) => made.hint(advice),
                None => made,
            }
        })
    }

    /// A table with these keys.
    pub(super) fn table(&self, known: &[&str]) -> Result<TomlTable<'a>> {
        self.names()?.only(known)
    }

    /// A table whose keys are names of the user's choice.
    pub(super) fn names(&self) -> Result<TomlTable<'a>> {
        let table = self.value.get_ref().as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(TomlTable { text: self.text, path: self.path.clone(), place: self.key.clone(), table })
    }

    /// An array of at least one value.
    pub(super) fn array(&self) -> Result<Vec<Item<'a>>> {
        let array = self.value.get_ref().as_array().ok_or_else(|| self.expected("an array"))?;
        if array.is_empty() {
            return Err(self.wrong("must not be empty"));
        }
        let item = |(number, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            text: self.text,
            path: format!("{}[{number}]", self.path),
            key: self.key.clone(),
            value,
        };
        Ok(array.iter().enumerate().map(item).collect())
    }
}

/// A path, which belongs to `directory` if it is relative.
pub(super) fn path(item: &Item<'_>, directory: &Path) -> Result<PathBuf> {
    let text = item.text()?;
    if text.is_empty() || text.contains('\0') {
        return Err(item.wrong("must be a path"));
    }
    match home_of_somebody(text) {
        Some(error) => Err(item.wrong(error.message()).hint(error.advice().unwrap_or("write the whole path"))),
        None => Ok(directory.join(text)),
    }
}

/// The error for a path that only a shell understands, if it is one. It continues a sentence about the value.
pub(super) fn home_of_somebody(path: &str) -> Option<Error> {
    let first = path.split('/').next().unwrap_or_default();
    first.starts_with('~').then(|| {
        Error::invalid(format!("begins with `{first}`, which is not expanded here"))
            .hint(format!("write the whole path of the home directory, or ./{first} for a folder of that name"))
    })
}

/// A switch that is off unless it is said.
pub(super) fn switch(table: &TomlTable<'_>, key: &str) -> Result<bool> {
    table.get(key).map_or(Ok(false), |item| item.boolean())
}

/// A table of things with names of the user's choice.
pub(super) fn map<T>(item: &Item<'_>, read: impl Fn(&Item<'_>) -> Result<T>) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for (name, item) in item.names()?.entries() {
        check_name(name)
            .map_err(|error| item.misnamed(error.message()).hint(error.advice().unwrap_or("choose another name")))?;
        found.insert(name.to_owned(), read(&item)?);
    }
    Ok(found)
}

/// Names go into metrics, paths and URLs.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if fits && name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(Error::invalid("is not a valid name")
        .hint("use lower-case letters, digits, `-` and `_`, beginning with a letter, at most 64"))
}

/// The path of a key, quoted where TOML would have it quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer ones are not misspellings, and comparing costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let close = known.iter().map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate));
    close.filter(|(likeness, _)| *likeness > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// `a`, `b`, `c`.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
