//! Settings: declared and read from one place, so that the two cannot drift apart.
//!
//! [`settings!`](crate::settings!) makes a struct whose fields are the settings. Its doc comments are the summaries that
//! the operator sees, its types are the kinds, and whether a setting is required follows from its type and default.
//!
//! ```
//! tidelock_sdk::choice! {
//!     /// How objects are laid out.
//!     pub enum Layout { FanOut = "fan-out", Flat = "flat" }
//! }
//! tidelock_sdk::settings! {
//!     /// What the operator may set.
//!     pub struct Settings {
//!         /// How objects are laid out: `fan-out` (without it) or `flat`.
//!         layout: Layout = Layout::FanOut,
//!         /// Days for which objects cannot be removed. Without it they can.
//!         retention_days: Option<u32>,
//!         /// The account to write to.
//!         account: String,
//!     }
//! }
//! let specs = Settings::specs();
//! assert_eq!(specs[1].name, "retention-days");
//! assert!(specs[2].required && !specs[0].required);
//! ```

use crate::Error;
use crate::bindings::tidelock::storage::settings as import;

pub use crate::bindings::tidelock::storage::types::{SettingKind, SettingSpec, SettingValue};

/// A type that a setting can have.
pub trait FromSetting: Sized {
    /// The kind in the configuration.
    const KIND: SettingKind;

    /// The value out of what the configuration holds; `invalid`, naming the setting, if it does not fit.
    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error>;

    /// The value if nothing is configured and no default is declared; `None` makes the setting required.
    fn absent() -> Option<Self> {
        None
    }
}

impl FromSetting for String {
    const KIND: SettingKind = SettingKind::Text;

    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error> {
        match value {
            SettingValue::Text(text) => Ok(text),
            _ => Err(wrong(name, "text")),
        }
    }
}

impl FromSetting for bool {
    const KIND: SettingKind = SettingKind::Boolean;

    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error> {
        match value {
            SettingValue::Boolean(b) => Ok(b),
            _ => Err(wrong(name, "true or false")),
        }
    }
}

impl FromSetting for i64 {
    const KIND: SettingKind = SettingKind::Integer;

    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error> {
        match value {
            SettingValue::Integer(n) => Ok(n),
            _ => Err(wrong(name, "a whole number")),
        }
    }
}

impl FromSetting for u32 {
    const KIND: SettingKind = SettingKind::Integer;

    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error> {
        u32::try_from(i64::from_value(name, value)?).map_err(|_| wrong(name, "a whole number from 0 to 4294967295"))
    }
}

impl<T: FromSetting> FromSetting for Option<T> {
    const KIND: SettingKind = T::KIND;

    fn from_value(name: &str, value: SettingValue) -> Result<Self, Error> {
        T::from_value(name, value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// `invalid`, in the words "setting `name` must be …".
pub fn wrong(name: &str, must_be: &str) -> Error {
    Error::invalid(["setting `", name, "` must be ", must_be].concat())
}

/// The configured value of a setting, from the host.
pub fn configured(name: &str) -> Option<SettingValue> {
    import::get(name)
}

/// One line of what [`settings!`](crate::settings!) declares.
#[doc(hidden)]
pub fn spec<T: FromSetting>(name: String, doc: &str, default: Option<T>) -> SettingSpec {
    SettingSpec {
        name,
        kind: T::KIND,
        required: default.is_none() && T::absent().is_none(),
        summary: doc.trim().to_owned(),
    }
}

/// One value of what [`settings!`](crate::settings!) reads.
#[doc(hidden)]
pub fn read<T: FromSetting>(
    source: &mut dyn FnMut(&str) -> Option<SettingValue>,
    name: String,
    default: Option<T>,
) -> Result<T, Error> {
    match source(&name) {
        Some(value) => T::from_value(&name, value),
        None => {
            default.or_else(T::absent).ok_or_else(|| Error::invalid(["setting `", &name, "` is required"].concat()))
        }
    }
}

/// A field's setting, if it says no other.
#[doc(hidden)]
pub fn name_of(field: &str) -> String {
    field.replace('_', "-")
}

/// Declares a struct of settings. Each field has a doc comment, which becomes its summary, and a type that is
/// [`FromSetting`](crate::settings::FromSetting); `= value` gives a default. A field `a_b` is the setting `a-b`, and
/// `a_b as "c"` the setting `c`, for a backend whose users know it under another name. The struct gets `specs()` for `describe`, `read()`, and `from_source(f)` for tests.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $( $(#[doc = $doc:literal])+ $field:ident $(as $known:literal)? : $ty:ty $(= $default:expr)? ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name { $( $(#[doc = $doc])+ pub $field: $ty ),* }

        impl $name {
            /// What `describe` declares.
            pub fn specs() -> ::std::vec::Vec<$crate::settings::SettingSpec> {
                ::std::vec![$( $crate::settings::spec::<$ty>(
                    $crate::settings!(@name $field $($known)?), ::std::concat!($($doc),+),
                    $crate::settings!(@default $($default)?)) ),*]
            }

            #[allow(dead_code, reason = "tests read from elsewhere")]
            /// The configured settings; `invalid`, naming the setting, if one is missing or does not fit.
            pub fn read() -> ::std::result::Result<Self, $crate::Error> {
                Self::from_source($crate::settings::configured)
            }

            /// The same from anywhere.
            pub fn from_source(
                mut source: impl FnMut(&str) -> ::std::option::Option<$crate::settings::SettingValue>,
            ) -> ::std::result::Result<Self, $crate::Error> {
                ::std::result::Result::Ok(Self { $( $field: $crate::settings::read::<$ty>(
                    &mut source, $crate::settings!(@name $field $($known)?),
                    $crate::settings!(@default $($default)?))? ),* })
            }
        }
    };
    (@name $field:ident) => { $crate::settings::name_of(::std::stringify!($field)) };
    (@name $field:ident $known:literal) => { ::std::string::String::from($known) };
    (@default) => { ::std::option::Option::None };
    (@default $default:expr) => { ::std::option::Option::Some($default) };
}

/// Declares an enum that a text setting can be: `enum Layout { FanOut = "fan-out", Flat = "flat" }`.
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $( $(#[$vmeta:meta])* $variant:ident = $text:literal ),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[$vmeta])* #[doc = ::std::concat!("`", $text, "`")] $variant ),+ }

        impl $name {
            /// As it is written in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text ),+ }
            }
        }

        impl $crate::settings::FromSetting for $name {
            const KIND: $crate::settings::SettingKind = $crate::settings::SettingKind::Text;

            fn from_value(
                name: &str,
                value: $crate::settings::SettingValue,
            ) -> ::std::result::Result<Self, $crate::Error> {
                let text = <::std::string::String as $crate::settings::FromSetting>::from_value(name, value)?;
                match text.as_str() {
                    $( $text => ::std::result::Result::Ok(Self::$variant), )+
                    _ => ::std::result::Result::Err($crate::settings::wrong(
                        name, ::std::concat!("one of", $( " `", $text, "`" ),+))),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    choice! {
        /// A choice.
        pub enum Mode { Slow = "slow", VeryFast = "very-fast" }
    }

    settings! {
        /// Some of each.
        pub struct Sample {
            /// Two lines
            /// of text.
            plain_text: String,
            /// With a default.
            mode: Mode = Mode::Slow,
            /// Optional.
            days: Option<u32>,
            /// A number.
            offset: i64 = -1,
            /// A switch.
            on: bool = true,
            /// Under another name.
            elsewhere as "known_elsewhere": bool = false,
        }
    }

    fn read(values: &[(&str, SettingValue)]) -> Result<Sample, Error> {
        Sample::from_source(|name| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()))
    }

    fn text(s: &str) -> SettingValue {
        SettingValue::Text(s.into())
    }

    fn reason(result: Result<Sample, Error>) -> String {
        match result {
            Err(Error::Invalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_declared_settings_are_read() {
        let mut asked = Vec::new();
        let _ = Sample::from_source(|name| {
            asked.push(name.to_owned());
            (name == "plain-text").then(|| text("x"))
        });
        let specs = Sample::specs();
        assert_eq!(asked, specs.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
        assert_eq!(asked, ["plain-text", "mode", "days", "offset", "on", "known_elsewhere"]);
        assert_eq!(specs.iter().map(|s| s.required).collect::<Vec<_>>(), [true, false, false, false, false, false]);
        assert_eq!(specs[0].summary, "Two lines of text.");
        assert!(matches!(specs[1].kind, SettingKind::Text) && matches!(specs[2].kind, SettingKind::Integer));
    }

    #[test]
    fn defaults_and_values() {
        let s = read(&[("plain-text", text("x"))]).unwrap();
        assert_eq!((s.plain_text.as_str(), s.mode, s.days, s.offset, s.on), ("x", Mode::Slow, None, -1, true));
        let s = read(&[
            ("plain-text", text("y")),
            ("mode", text("very-fast")),
            ("days", SettingValue::Integer(7)),
            ("on", SettingValue::Boolean(false)),
            ("known_elsewhere", SettingValue::Boolean(true)),
        ])
        .unwrap();
        assert_eq!((s.mode, s.days, s.on, s.elsewhere), (Mode::VeryFast, Some(7), false, true));
        assert_eq!(s.mode.as_str(), "very-fast");
    }

    #[test]
    fn errors_name_the_setting() {
        assert_eq!(reason(read(&[])), "setting `plain-text` is required");
        let with = |name, value| reason(read(&[("plain-text", text("x")), (name, value)]));
        assert_eq!(with("mode", text("fast")), "setting `mode` must be one of `slow` `very-fast`");
        assert_eq!(
            with("days", SettingValue::Integer(-1)),
            "setting `days` must be a whole number from 0 to 4294967295"
        );
        assert_eq!(with("on", text("true")), "setting `on` must be true or false");
        assert_eq!(with("offset", text("1")), "setting `offset` must be a whole number");
    }
}
