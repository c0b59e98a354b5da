//! Host calls: their number, concurrency, size, handles, and log.

use crate::arena::Attack;

pub fn attacks() -> Vec<Attack> {
    let store = Attack::store;
    vec![
        store("a_storm_of_host_calls", "calls-storm", "calls = 500", ("limit", "limit: calls 500")),
        store("a_storm_of_plain_calls", "calls-plain-storm", "calls = 5000", ("limit", "limit: calls 5000")),
        store("a_storm_without_end", "calls-storm", "cpu = '300ms'", ("limit", "limit: cpu 300ms")),
        store(
            "a_thousand_calls_at_once",
            "calls-burst",
            "calls_in_flight = 10",
            ("limit", "limit: calls in flight 10"),
        ),
        store("ten_thousand_leaked_handles", "calls-leak", "", ("limit", "limit: handles 1000")),
        store("a_huge_string", "calls-string", "call_bytes = '1 MiB'", ("limit", "limit: call bytes 1 MiB")),
        store("a_huge_list", "calls-list", "call_bytes = '1 MiB'", ("limit", "limit: call bytes 1 MiB")),
        store("a_huge_result", "calls-result", "call_bytes = '1 MiB'", ("limit", "limit: call bytes 1 MiB")),
        store("a_flood_of_log", "calls-log", "log_bytes = '64 KiB'", ("limit", "limit: log bytes 64 KiB")),
        store("a_flood_of_empty_log", "calls-empty-log", "log_bytes = '64 KiB'", ("limit", "limit: log bytes 64 KiB")),
        store("a_thousand_headers", "calls-headers", "", ("limit", "limit: headers 256")),
        store("a_huge_header", "calls-header", "header_bytes = '10 KiB'", ("limit", "limit: header bytes 10 KiB")),
    ]
}
