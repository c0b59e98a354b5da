//! Reading the text of a manifest: the notation is serde's, the bounds are here.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize as _, Serializer};

use super::{MAX_MANIFEST_BYTES, Manifest};
use tidelock_types::position;
use tidelock_types::{Error, Result, SettingKind, parse_bytes, parse_duration};

/// Grants, settings and origins, each.
const MAX_ENTRIES: usize = 64;
/// Characters of a line for people.
const MAX_TEXT: usize = 500;
/// Characters of a name or a version.
const MAX_NAME: usize = 64;

pub(super) fn parse(bytes: &[u8]) -> Result<Manifest> {
    let wrong = |what: String| Error::invalid(format!("the manifest: {what}")).hint("see docs/formats.md");
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(wrong(format!("it has {} bytes, more than {MAX_MANIFEST_BYTES}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not valid UTF-8".to_owned()))?;
    let manifest: Manifest = toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| format!("{}: ", position(text, span.start))).unwrap_or_default();
        // The message may quote the text, which is a stranger's.
        let what: String = error.message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        wrong(format!("{place}{what}"))
    })?;
    check(&manifest).map_err(wrong)?;
    Ok(manifest)
}

/// The bounds that the notation does not know.
fn check(manifest: &Manifest) -> std::result::Result<(), String> {
    let Manifest { name, version, summary, interface, asks, limits, settings } = manifest;
    named("name", name)?;
    let is_allowed = |c: char| c.is_ascii_graphic();
    for (key, text) in [("version", version), ("interface", interface)] {
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(is_allowed) {
            return Err(format!("`{key}` must have 1 to {MAX_NAME} printable characters without spaces"));
        }
    }
    line("summary", summary)?;
    let count = asks.http.len() + asks.bucket.len() + asks.directory.len();
    let settings = settings.iter().flatten();
    if count > MAX_ENTRIES || settings.clone().count() > MAX_ENTRIES {
        return Err(format!("it has more than {MAX_ENTRIES} grants or settings"));
    }
    for grant in manifest.grants() {
        let path = format!("asks.{}.{}", grant.kind, short(grant.name));
        named(&path, grant.name)?;
        line(&format!("{path}.why"), grant.why)?;
    }
    for (name, http) in &asks.http {
        if http.origins.is_empty() || http.origins.len() > MAX_ENTRIES {
            return Err(format!("`asks.http.{name}.origins` must name 1 to {MAX_ENTRIES} origins"));
        }
    }
    for (name, setting) in settings {
        named(&format!("settings.{}", short(name)), name)?;
        line(&format!("settings.{name}.summary"), &setting.summary)?;
    }
    let zero = [
        ("memory", limits.memory == Some(0)),
        ("cpu", limits.cpu.is_some_and(|time| time.is_zero())),
        ("calls_in_flight", limits.calls_in_flight == Some(0)),
    ];
    match zero.into_iter().find(|(_, zero)| *zero) {
        Some((key, _)) => Err(format!("`limits.{key}` must not be zero")),
        None => Ok(()),
    }
}

fn short(name: &str) -> String {
    name.escape_debug().take(MAX_NAME).collect()
}

/// The names of adapters, grants and settings.
fn named(path: &str, name: &str) -> std::result::Result<(), String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("`{path}`: a name has 1 to {MAX_NAME} lower-case letters, digits, `-` and `_`"))
}

/// Checks a text for people.
fn line(path: &str, text: &str) -> std::result::Result<(), String> {
    if text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("`{path}` must be one line of at most {MAX_TEXT} characters"))
}

/// A number, or a text that is read by a function.
struct Either<T>(&'static str, fn(u64) -> Option<T>, fn(&str) -> Result<T>);

impl<T> Visitor<'_> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> std::result::Result<T, E> {
        let found = u64::try_from(number).ok().and_then(self.1);
        found.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<T, E> {
        (self.1)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<T, E> {
        (self.2)(text).map_err(|error| E::custom(error.message()))
    }
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    from.deserialize_any(Either("bytes, or a text such as \"16 MiB\"", Some, parse_bytes)).map(Some)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Duration>, D::Error> {
    from.deserialize_any(Either("a text such as \"10s\"", |_| None, parse_duration)).map(Some)
}

pub(super) fn seconds<S: Serializer>(time: &Option<Duration>, to: S) -> std::result::Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

pub(super) fn setting_kind<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<SettingKind, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Text,
        Integer,
        Boolean,
    }
    Ok(match Kind::deserialize(from)? {
        Kind::Text => SettingKind::Text,
        Kind::Integer => SettingKind::Integer,
        Kind::Boolean => SettingKind::Boolean,
    })
}
