//! How the bytes of a snapshot lie in an object.

use std::fmt;

use super::{Error, Result};

/// The encoding of a snapshot's bytes in an object. Readers dispatch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// As they are: the object is the snapshot, byte for byte.
    #[default]
    Raw,
    /// A pack: pages that are compressed in frames, with a map of which page is where, some of them perhaps in packs of
    /// other snapshots. `docs/formats.md` has the bytes.
    Pages,
}

impl Encoding {
    /// The label of an object that has the name of its encoding, unless that is [`Self::Raw`].
    pub const LABEL: &'static str = "tidelock-encoding";

    /// The name in the catalogue and in `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Pages => "pages",
        }
    }

    /// The bytes of an object that holds a snapshot of `size` bytes; `None` where that depends on what the bytes are, so
    /// that only the record of the object tells.
    pub const fn object_size(self, size: u64) -> Option<u64> {
        match self {
            Self::Raw => Some(size),
            Self::Pages => None,
        }
    }

    /// The encoding of a name.
    ///
    /// # Errors
    /// `unsupported` for a name that this version does not know.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "raw" => Ok(Self::Raw),
            "pages" => Ok(Self::Pages),
            _ => Err(Error::unsupported(format!("unknown encoding `{}`", name.escape_debug()))
                .hint("use a newer version of tidelock, which wrote it")),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_object_is_as_long_as_its_snapshot() {
        assert_eq!(Encoding::Raw.object_size(4097), Some(4097));
    }

    #[test]
    fn names_lead_back() {
        for encoding in [Encoding::Raw, Encoding::Pages] {
            assert_eq!(Encoding::from_name(encoding.name()).unwrap(), encoding);
        }
        assert_eq!(Encoding::from_name("other").unwrap_err().kind().name(), "unsupported");
    }
}
