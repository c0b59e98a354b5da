//! Placements: which object of which backend holds a snapshot.

use crate::types::{Encoding, ObjectId, PackId, SnapshotId};

/// The most bytes of a reason.
const MAX_REASON: usize = 300;

/// The reason of a placement that is bad because its backend, which was the right one, had no such object. Its bytes were
/// never seen to be wrong, so that it is live again once the object is there.
pub const ABSENT: &str = "the backend has no such object";

/// How the reason of a placement begins that is bad only because its backend has no sound object of something that it takes
/// pages from. Its own object is not at fault, and it is live again once that is there.
pub const LACKING: &str = "what it takes pages from is lost here";

/// Whether the object of a placement can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementState {
    /// It holds the snapshot.
    Live,
    /// It may be missing or damaged: the evidence is weak. May be read, after those that are live; counts as no copy.
    Suspect,
    /// It was found to be missing or damaged.
    Bad,
    /// Its removal has begun; it must not be read any more.
    Removing,
}

impl PlacementState {
    /// The text in the database and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Bad => "bad",
            Self::Removing => "removing",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Suspect, Self::Bad, Self::Removing].into_iter().find(|state| state.name() == name)
    }
}

/// The fact that an object on a backend holds a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What it holds.
    pub snapshot: SnapshotId,
    /// On which backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// How the bytes are laid out: `raw` is the logical bytes as they are.
    pub encoding: Encoding,
    /// The pack that the object is, if its encoding is `pages`.
    pub pack: Option<PackId>,
    /// Whether it can be relied on.
    pub state: PlacementState,
    /// Why it is in this state, if that was said: at most 300 bytes of visible characters.
    pub reason: Option<String>,
    /// When it came into this state (seconds since 1970-01-01 UTC).
    pub since: u64,
    /// A number that is another one after every change of the row, and is never given twice.
    pub version: u64,
    /// The bytes of the object.
    pub stored_bytes: u64,
    /// When it was stored (seconds since 1970-01-01 UTC).
    pub created: u64,
}

impl Placement {
    /// Returns whether it is bad only because the object was not there ([`ABSENT`]).
    pub fn is_absent(&self) -> bool {
        self.state == PlacementState::Bad && self.reason.as_deref() == Some(ABSENT)
    }

    /// Returns whether it is bad only because of what it takes pages from ([`LACKING`]).
    pub fn is_lacking(&self) -> bool {
        self.state == PlacementState::Bad && self.reason.as_deref().is_some_and(|reason| reason.starts_with(LACKING))
    }

    /// Returns whether its object is this pack, where one that holds its snapshot as it is counts as the pack of the snapshot's id.
    pub fn is_pack(&self, id: PackId) -> bool {
        match &self.pack {
            Some(pack) => *pack == id,
            None => self.snapshot.as_bytes() == id.as_bytes(),
        }
    }
}

/// A text as a reason: what is not visible becomes a space, and what is too long is cut.
pub(super) fn visible_reason(text: &str) -> String {
    let mut reason = String::new();
    for c in text.chars().map(|c| if c.is_control() || is_format(c) { ' ' } else { c }) {
        if reason.len() + c.len_utf8() > MAX_REASON {
            break;
        }
        reason.push(c);
    }
    reason
}

/// Characters that change how the text around them is shown.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A placement to be recorded.
#[derive(Debug, Clone)]
pub struct NewPlacement {
    /// On which backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// How the bytes are laid out: `raw` is the logical bytes as they are.
    pub encoding: Encoding,
    /// What the object is and needs, if it is a pack.
    pub pack: Option<NewPack>,
    /// The bytes of the object.
    pub stored_bytes: u64,
}

/// An object that is a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPack {
    /// Its identity.
    pub id: PackId,
    /// What it takes pages from. Each has to be on the same backend, so that no copy depends on another backend than its own.
    pub needs: Vec<Need>,
}

/// Something that a pack takes pages from: this very pack, since another one of the same snapshot has its pages elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The snapshot that it holds.
    pub snapshot: SnapshotId,
    /// The pack; of an object that holds its snapshot as it is, the id of the snapshot.
    pub pack: PackId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_visible() {
        assert_eq!(visible_reason("a\u{1b}[31m\u{202e}b\n"), "a [31m b ");
        let long = visible_reason(&"ü".repeat(1000));
        assert_eq!((long.len(), long.chars().count()), (300, 150));
        assert_eq!(visible_reason(ABSENT), ABSENT);
    }
}
