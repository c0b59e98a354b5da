//! A guest of synchronous functions. Bodies held by the host are bounded like its own memory, and it can do no more with
//! bodies than with streams.

use crate::arena::Attack;
use crate::streams::nothing_of;

pub fn attacks() -> Vec<Attack> {
    let store = |name, act, limits, ends| Attack::store(name, act, limits, ends).sync();
    let retrieve = |name, act, ends| Attack::retrieve(name, act, "", ends).sync();
    vec![
        store("a_sync_loop", "input-spin", "cpu = '300ms'", ("limit", "limit: cpu 300ms")),
        store(
            "a_sync_loop_against_the_deadline",
            "input-spin",
            "cpu = '10m', deadline = '500ms'",
            ("timed-out", "limit: deadline 500ms"),
        ),
        store("a_body_never_read", "input-unread", "", ("corrupt", "read only 0 bytes")),
        store("a_sync_receipt_that_lies_about_size", "input-miscount", "", ("corrupt", "14 bytes stored")),
        store(
            "a_body_that_is_shorter_than_it_says",
            "input-short",
            "",
            ("invalid", "a size of 1000 bytes for a body of 5"),
        )
        .then(|arena| nothing_of(arena, "short")),
        store("ten_thousand_leaked_bodies", "input-leak", "", ("limit", "limit: handles 1000")),
        store("ten_thousand_pieces_of_a_body", "input-pieces", "", ("limit", "limit: handles 1000")),
        store("a_bomb_of_bodies", "input-bomb", "memory = '16 MiB'", ("limit", "limit: memory 16 MiB")),
        store("a_body_of_too_many_bytes", "input-large", "call_bytes = '1 MiB'", ("limit", "limit: call bytes 1 MiB")),
        store("a_storm_of_looks_at_a_body", "input-calls", "calls = 5000", ("limit", "limit: calls 5000")),
        store("a_sync_body_a_byte_at_a_time", "input-trickle", "idle = '1s'", ("timed-out|unavailable", ""))
            .at("{server}/trickle"),
        store(
            "a_sync_body_without_end",
            "input-gorge",
            "response_bytes = '2 MiB'",
            ("limit", "limit: response bytes 2 MiB"),
        )
        .at("{server}/endless"),
        store(
            "a_sync_flood_of_files",
            "input-flood",
            "request_bytes = '1 MiB'",
            ("limit", "limit: request bytes 1 MiB"),
        ),
        store("an_end_behind_a_break", "input-beyond", "", ("unavailable", "the response ended early"))
            .at("{server}/wrong-length")
            .then(|arena| nothing_of(arena, "broken")),
        retrieve("a_sync_object_of_other_bytes", "output-other-bytes", ("corrupt", "differs from the stored one")),
        retrieve("a_sync_object_that_ends_early", "output-short", ("corrupt|unavailable", "after 100 of 300000 bytes")),
        retrieve("a_sync_object_that_is_too_long", "output-too-long", ("corrupt", "more than the 300000 bytes")),
    ]
}
