//! Servers that answer with garbage, floods and silence. They end in a typed error of the request, which the guest can
//! return.

use crate::arena::Attack;

pub fn attacks() -> Vec<Attack> {
    let get = |name, target, ends| Attack::store(name, "reach-url", "idle = '1s'", ends).at(target);
    let broken = |says| ("unavailable", says);
    vec![
        get("a_reply_with_endless_headers", "{server}/endless-headers", broken("message head is too large")),
        get("a_reply_with_a_huge_header", "{server}/huge-header", broken("message head is too large")),
        get("a_reply_with_large_headers", "{server}/large-headers", broken("limit: header bytes 64 KiB")),
        get("a_reply_with_a_huge_status", "{server}/huge-status", broken("message head is too large")),
        get("a_reply_with_a_huge_chunk_line", "{server}/huge-chunk", broken("the response ended early")),
        get("a_reply_with_a_wrong_chunk", "{server}/bad-chunk", broken("Invalid chunk size")),
        get("a_reply_with_too_little", "{server}/wrong-length", broken("the response ended early")),
        get("a_reply_with_two_lengths", "{server}/two-lengths", broken("content-length")),
        get("a_reply_that_is_reset", "{server}/reset", broken("the response ended early")),
        get("a_reply_that_is_not_http", "{server}/garbage", broken("invalid HTTP version")),
        get("a_reply_that_never_comes", "{server}/silence", broken("transferred almost no bytes")),
        get("a_reply_that_is_always_about_to_come", "{server}/continues", broken("transferred almost no bytes")),
        get("a_head_a_byte_at_a_time", "{server}/loris", broken("transferred almost no bytes")),
        Attack::store("a_body_a_byte_at_a_time", "reach-url", "idle = '1s'", ("timed-out|unavailable", ""))
            .at("{server}/trickle"),
        Attack::store(
            "a_body_without_end",
            "reach-url",
            "response_bytes = '2 MiB'",
            ("limit", "limit: response bytes 2 MiB"),
        )
        .at("{server}/endless"),
    ]
}
