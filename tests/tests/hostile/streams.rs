//! Streams that stand still, trickle, end early or never, and results that lie about them.

use crate::arena::{Arena, Attack};

pub fn attacks() -> Vec<Attack> {
    let idle = ("timed-out", "limit: idle 400ms");
    let quick = "idle = '400ms'";
    let (store, retrieve) = (Attack::store, Attack::retrieve);
    vec![
        store("a_stream_never_read", "input-never-read", quick, idle),
        store("a_file_that_never_ends", "input-never-ended", quick, idle).then(|arena| nothing_of(arena, "endless")),
        store("a_file_a_byte_a_minute", "input-trickle", quick, idle).then(|arena| nothing_of(arena, "trickle")),
        store("a_tapped_stream_never_read", "input-tap-unread", quick, idle),
        store(
            "a_tapped_stream_never_read_that_looks_alive",
            "input-tap-alive",
            "idle = '400ms', deadline = '1500ms'",
            ("timed-out", "limit: deadline 1.5s"),
        )
        .at("{server}/slow"),
        store("a_file_that_ends_early", "input-ended-early", "", ("unavailable", "ended after 5 of 1000 bytes"))
            .then(|arena| nothing_of(arena, "short")),
        store("a_receipt_for_bytes_that_were_not_read", "input-unread", "", ("corrupt", "read only 0 bytes")),
        store("a_receipt_that_lies_about_size", "input-miscount", "", ("corrupt", "14 bytes stored")),
        retrieve("an_object_that_never_ends", "output-never-ended", quick, idle),
        retrieve("an_object_a_byte_a_minute", "output-trickle", quick, idle),
        // Calls keep it from being idle: the deadline ends it.
        retrieve(
            "an_object_that_trickles_and_looks_alive",
            "output-lively-trickle",
            "idle = '400ms', deadline = '1500ms'",
            ("timed-out", "limit: deadline 1.5s"),
        )
        .at("{server}/slow"),
        retrieve(
            "an_object_that_ends_early",
            "output-ended-early",
            "",
            ("corrupt|unavailable", "ends after 65536 of 300000 bytes"),
        ),
        retrieve("an_object_that_is_too_long", "output-too-long", "", ("corrupt", "more than the 300000 bytes")),
        retrieve("an_object_of_other_bytes", "output-other-bytes", "", ("corrupt", "differs from the stored one")),
        retrieve("an_object_whose_guest_hoards", "output-hoard", "memory = '8 MiB'", ("limit", "limit: memory 8 MiB")),
        retrieve("an_object_whose_guest_traps", "output-trap", "", ("trapped", "unreachable")),
        retrieve("an_object_that_breaks_off", "output-unsaid", "", ("unavailable", "the backend went away")),
    ]
}

/// No file of that name is to be seen by anybody.
pub fn nothing_of(arena: &Arena, name: &str) -> Result<(), String> {
    let objects = arena.dir.path().join("data/objects");
    let found = tidelock_tests::program::files(arena.dir.path());
    match found.iter().find(|path| path.file_name().is_some_and(|file| file == name)) {
        Some(path) => Err(format!("{} is there ({})", path.display(), objects.display())),
        None => Ok(()),
    }
}
