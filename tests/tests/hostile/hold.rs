//! What the host holds and works for a guest: open files and replies, their read-ahead, requests under way, chunks,
//! prefixes and digests of taps, lists of long directories.

use std::path::Path;

use crate::arena::Attack;

/// Names in the directory that is listed.
const NAMES: usize = 20_000;

pub fn attacks() -> Vec<Attack> {
    let store = |name, act, limits, says| Attack::store(name, act, limits, ("limit", says));
    let held = |name, act| store(name, act, "held_bytes = '20 MiB'", "limit: held bytes 20 MiB");
    let open = |name, act| store(name, act, "open_bodies = 40", "limit: open bodies 40");
    vec![
        held("a_hoard_of_open_files", "hold-files"),
        held("a_hoard_of_open_replies", "hold-replies").at("{server}/endless"),
        held("a_hoard_of_prefixes", "hold-prefixes"),
        store("a_hoard_of_digests", "hold-digests", "held_bytes = '4 MiB'", "limit: held bytes 4 MiB"),
        held("a_hoard_of_chunks", "hold-chunks"),
        store("a_hoard_of_parts", "hold-parts", "held_bytes = '8 MiB'", "limit: held bytes 8 MiB")
            .at("{server}/silence"),
        held("a_hoard_of_files_written", "hold-written"),
        store("a_hoard_of_objects_put", "hold-put", "held_bytes = '100 MiB'", "limit: held bytes 100 MiB"),
        store(
            "a_hoard_of_the_backend",
            "hold-prefixes",
            "backend_held_bytes = '20 MiB'",
            "limit: backend held bytes 20 MiB",
        ),
        open("hundreds_of_open_files", "hold-small-files"),
        open("hundreds_of_open_replies", "hold-replies").at("{server}/endless"),
        open("hundreds_of_open_files_of_a_sync_guest", "input-open").sync(),
        store(
            "more_open_files_than_the_backend_has",
            "hold-small-files",
            "backend_open_bodies = 20",
            "limit: backend open bodies 20",
        ),
        // Listing is work on other threads, and counts as the guest's: its calls alone would not take that long.
        store("a_storm_of_long_lists", "hold-lists", "cpu = '300ms', calls = 60", "limit: cpu 300ms").prepared(many),
        store(
            "a_crowd_of_long_lists",
            "hold-crowd",
            "cpu = '300ms', calls = 200, blocking_jobs = 2",
            "limit: cpu 300ms",
        )
        .prepared(many),
    ]
}

/// Puts many files into the folder of a backend.
fn many(folder: &Path) {
    let many = folder.join("many");
    std::fs::create_dir(&many).unwrap();
    (0..NAMES).for_each(|name| drop(std::fs::File::create(many.join(format!("{name:05}"))).unwrap()));
}
