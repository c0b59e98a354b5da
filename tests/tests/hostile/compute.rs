//! Processors, memory, tables, instances, stack.

use crate::arena::Attack;
use crate::components::{with_components, with_exported_components, with_instances, with_module, with_pages};

pub fn attacks() -> Vec<Attack> {
    let load = Attack::load;
    vec![
        load(
            "a_loop_in_start",
            || with_module("(func $a (loop $l (br $l))) (start $a)"),
            "cpu = '300ms'",
            ("limit", "limit: cpu 300ms"),
        ),
        Attack::store("a_loop_in_an_export", "compute-spin", "cpu = '300ms'", ("limit", "limit: cpu 300ms")),
        Attack::store(
            "a_loop_against_the_deadline",
            "compute-spin",
            "cpu = '10m', deadline = '500ms'",
            ("timed-out", "limit: deadline 500ms"),
        ),
        // What the host computes for it counts as well.
        Attack::store("a_loop_of_digests", "compute-hash", "cpu = '300ms'", ("limit", "limit: cpu 300ms")),
        Attack::store(
            "a_tower_of_taps",
            "compute-tap",
            "cpu = '300ms', deadline = '10s'",
            ("limit", "limit: cpu 300ms"),
        ),
        Attack::store("a_memory_bomb", "compute-hoard", "memory = '8 MiB'", ("limit", "limit: memory 8 MiB")),
        load("a_memory_bomb_in_start", || with_module(MEMORY_GROWS), "", ("limit", "limit: memory 64 MiB")),
        load("a_memory_that_is_too_large_from_the_start", || with_pages(2000), "", ("limit", "limit: memory 64 MiB")),
        load("a_memory_that_no_limit_allows", || with_pages(20_000), "", ("limit", "limit: memory 64 MiB")),
        load(
            "a_table_bomb",
            || with_module(TABLE_GROWS),
            "table_elements = 5000",
            ("limit", "limit: table elements 5000"),
        ),
        load(
            "a_table_that_is_too_large_from_the_start",
            || with_module("(table 6000 funcref)"),
            "table_elements = 5000",
            ("limit", "limit: table elements 5000"),
        ),
        load(
            "a_table_that_no_limit_allows",
            || with_module("(table 30000 funcref)"),
            "",
            ("limit", "limit: table elements 20000"),
        ),
        load("an_instance_bomb", || with_instances(100, ""), "", ("limit", "limit: instances 64")),
        load("instances_that_no_limit_allows", || with_instances(300, ""), "", ("limit", "limit: instances 128")),
        load("a_bomb_of_components", || with_components(16), "", ("limit", "limit: components 16")),
        load("a_bomb_of_exported_components", || with_exported_components(40), "", ("invalid", "cannot be determined")),
        load("a_bomb_of_memories", || with_instances(5, "(memory 1)"), "", ("limit", "limit: memories 4")),
        load("a_bomb_of_tables", || with_instances(70, "(table 1 funcref)"), "", ("limit", "limit: tables 64")),
        load("a_deep_recursion", || with_module(RECURSION), "", ("limit", "limit: stack 512 KiB")),
        load("a_trap_in_start", || with_module("(func $a unreachable) (start $a)"), "", ("trapped", "unreachable")),
        Attack::store(
            "state_left_for_the_next_operation",
            "compute-leave",
            "in_flight = 1",
            ("denied", "nothing was left"),
        ),
    ]
}

const MEMORY_GROWS: &str = "(func $a (loop $l (drop (memory.grow (i32.const 16))) (br $l))) (start $a)";

const TABLE_GROWS: &str = "(table $t 1 funcref)
    (func $a (loop $l (drop (table.grow $t (ref.null func) (i32.const 100))) (br $l))) (start $a)";

const RECURSION: &str = "(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
    (func $a (drop (call $deep (i32.const 0)))) (start $a)";
