//! Conditions on a row of `placements`, which every statement that begins a removal puts together.
//!
//! Each of these statements has [`FREE`] or, where another object takes the place of the one that goes, [`REPLACEABLE`]. The parts
//! are macros, so that the whole is put together from the same texts.

/// An import has read all that the backend holds: nothing there needs the object without being known.
macro_rules! looked_through {
    () => {
        "
    coalesce((SELECT looked FROM looked_through AS known WHERE known.backend IN (placements.backend, '')
              ORDER BY known.backend DESC LIMIT 1), 1)"
    };
}
/// A pack on the same backend names the object as one that it takes pages from.
macro_rules! named {
    () => {
        "
    EXISTS (SELECT 1 FROM needs WHERE needs.pack = coalesce(placements.pack, placements.snapshot)
                AND needs.backend = placements.backend)"
    };
}
macro_rules! readable {
    () => {
        "
    (other.state = 'live' AND NOT EXISTS
        (SELECT 1 FROM needs WHERE needs.backend = other.backend AND needs.object = other.object
             AND NOT EXISTS (SELECT 1 FROM placements AS source
                 WHERE source.snapshot = needs.needed AND source.backend = needs.backend
                     AND source.state = 'live' AND coalesce(source.pack, source.snapshot) = needs.pack)))"
    };
}
/// A pack in the hot tier takes pages from the snapshot, and its own is on no backend yet: should the hot copy of these pages rot,
/// it is the other copies that the pack is read with.
macro_rules! held_for_hot {
    () => {
        "
    (placements.backend <> 'hot' AND EXISTS
        (SELECT 1 FROM needs WHERE needs.needed = placements.snapshot AND needs.backend = 'hot' AND EXISTS
            (SELECT 1 FROM placements AS pack WHERE pack.backend = 'hot' AND pack.object = needs.object
                 AND pack.state <> 'removing' AND NOT EXISTS
                 (SELECT 1 FROM placements AS pushed WHERE pushed.snapshot = pack.snapshot AND pushed.backend <> 'hot'
                      AND pushed.state = 'live'))))"
    };
}

/// The backend that is the hot tier.
pub(super) const HOT: &str = "hot";

/// A condition on a row of `placements`: its object gives nothing, since it is known to be bad, or is a pack of which
/// something that it needs is.
pub(super) const WORTHLESS: &str = "
    (placements.state = 'bad' OR EXISTS
        (SELECT 1 FROM needs WHERE needs.backend = placements.backend AND needs.object = placements.object
             AND NOT EXISTS (SELECT 1 FROM placements AS source
                 WHERE source.snapshot = needs.needed AND source.backend = needs.backend
                     AND source.state IN ('live', 'suspect') AND coalesce(source.pack, source.snapshot) = needs.pack)))";

/// Each pack on the same backend that names the snapshot as one that it takes pages from has these from another live object of it.
/// With a wrong value in a row there is none, and nothing goes.
pub(super) const MET_BY_OTHERS: &str = "
    NOT EXISTS (SELECT 1 FROM needs WHERE needs.needed = placements.snapshot AND needs.backend = placements.backend
        AND NOT EXISTS (SELECT 1 FROM placements AS met
            WHERE met.snapshot = placements.snapshot AND met.backend = placements.backend AND met.state = 'live'
                AND met.object <> placements.object AND coalesce(met.pack, met.snapshot) = needs.pack))";

/// The object is a pack, and a later live object of its snapshot and backend is one that needs nothing: a rebase has put that in its
/// place.
pub(super) const REPLACED: &str = "
    (placements.pack IS NOT NULL AND EXISTS
        (SELECT 1 FROM placements AS full WHERE full.snapshot = placements.snapshot AND full.backend = placements.backend
             AND full.state = 'live' AND full.pack IS NOT NULL AND full.seq > placements.seq
             AND NOT EXISTS (SELECT 1 FROM needs WHERE needs.backend = full.backend AND needs.object = full.object)))";

/// A condition on a row `other` of `placements`: it is live, and so is what it takes pages from on its backend.
pub(super) const READABLE: &str = readable!();

/// Names of backends as a parameter for `json_each`.
pub(super) fn names_as_json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A pack on another backend takes pages from the snapshot, and these are not sound there: it is from this object that they are
/// made again. Once they are, it goes with whatever is let go of next.
pub(super) const NEEDED_FOR_REPAIR: &str = "
    EXISTS (SELECT 1 FROM needs WHERE needs.needed = placements.snapshot
        AND needs.backend <> placements.backend AND needs.backend <> 'hot'
        AND NOT EXISTS (SELECT 1 FROM placements AS met
            WHERE met.snapshot = placements.snapshot AND met.backend = needs.backend AND met.state = 'live'
                AND coalesce(met.pack, met.snapshot) = needs.pack))";

/// Nothing needs this object: no pack on its backend, whether it is known or not, and no hot pack that is yet to be pushed.
pub(super) const FREE: &str = concat!("(NOT ", named!(), " AND ", looked_through!(), " AND NOT ", held_for_hot!(), ")");

/// What needs this object has its pages from another one that stays: packs that name it from a live object that is the same pack,
/// and hot packs, which take them from any, from one on the same backend that can be read.
pub(super) const REPLACEABLE: &str = concat!(
    "((NOT ",
    named!(),
    " AND ",
    looked_through!(),
    " AND (NOT ",
    held_for_hot!(),
    " OR EXISTS
        (SELECT 1 FROM placements AS other WHERE other.snapshot = placements.snapshot
             AND other.backend = placements.backend AND other.object <> placements.object AND ",
    readable!(),
    ")))
      OR EXISTS (SELECT 1 FROM placements AS same WHERE same.snapshot = placements.snapshot
             AND same.backend = placements.backend AND same.object <> placements.object
             AND same.state = 'live' AND same.pack IS placements.pack))"
);

/// A condition by its name in the statements, for whoever reads these as texts.
#[cfg(test)]
pub(super) const ALL: [(&str, &str); 7] = [
    ("{WORTHLESS}", WORTHLESS),
    ("{MET_BY_OTHERS}", MET_BY_OTHERS),
    ("{REPLACED}", REPLACED),
    ("{READABLE}", READABLE),
    ("{NEEDED_FOR_REPAIR}", NEEDED_FOR_REPAIR),
    ("{FREE}", FREE),
    ("{REPLACEABLE}", REPLACEABLE),
];
