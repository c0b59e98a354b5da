//! Conditions on a row of `placements`, which every statement that begins a removal puts together.

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

/// An import has read all that the backend holds: nothing there needs the object without being known.
pub(super) const LOOKED_THROUGH: &str = "
    coalesce((SELECT looked FROM looked_through AS known WHERE known.backend IN (placements.backend, '')
              ORDER BY known.backend DESC LIMIT 1), 1)";

/// A pack on the same backend names the object as one that it takes pages from.
pub(super) const NAMED: &str = "
    EXISTS (SELECT 1 FROM needs WHERE needs.pack = coalesce(placements.pack, placements.snapshot)
                AND needs.backend = placements.backend)";

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
pub(super) const READABLE: &str = "
    (other.state = 'live' AND NOT EXISTS
        (SELECT 1 FROM needs WHERE needs.backend = other.backend AND needs.object = other.object
             AND NOT EXISTS (SELECT 1 FROM placements AS source
                 WHERE source.snapshot = needs.needed AND source.backend = needs.backend
                     AND source.state = 'live' AND coalesce(source.pack, source.snapshot) = needs.pack)))";

/// Names of backends as a parameter for `json_each`.
pub(super) fn names_as_json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A pack in the hot tier takes pages from the snapshot, and its own is on no backend yet: should the hot copy of these pages rot,
/// it is the other copies that the pack is read with.
pub(super) const HELD_FOR_HOT: &str = "
    (placements.backend <> 'hot' AND EXISTS
        (SELECT 1 FROM needs WHERE needs.needed = placements.snapshot AND needs.backend = 'hot' AND EXISTS
            (SELECT 1 FROM placements AS pack WHERE pack.backend = 'hot' AND pack.object = needs.object
                 AND pack.state <> 'removing' AND NOT EXISTS
                 (SELECT 1 FROM placements AS pushed WHERE pushed.snapshot = pack.snapshot AND pushed.backend <> 'hot'
                      AND pushed.state = 'live'))))";

/// A condition by its name in the statements, for whoever reads these as texts.
#[cfg(test)]
pub(super) const ALL: [(&str, &str); 7] = [
    ("{WORTHLESS}", WORTHLESS),
    ("{LOOKED_THROUGH}", LOOKED_THROUGH),
    ("{NAMED}", NAMED),
    ("{MET_BY_OTHERS}", MET_BY_OTHERS),
    ("{REPLACED}", REPLACED),
    ("{READABLE}", READABLE),
    ("{HELD_FOR_HOT}", HELD_FOR_HOT),
];
