//! Nesting to a depth that the guest chooses: taps around taps, components in components, types of types, a manifest of
//! lists. The host's stack is not the guest's to fill: each is refused or read, and nothing recurses with it.

use crate::arena::Attack;

/// The header of a component.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

pub fn attacks() -> Vec<Attack> {
    let taps = ("limit", "limit: taps 32");
    // So that no other limit ends them.
    let handles = "handles = 200000";
    vec![
        Attack::store("ten_thousand_taps_read", "compute-deep-read", handles, taps),
        Attack::store("ten_thousand_taps_dropped", "compute-deep-drop", handles, taps),
        Attack::store("ten_thousand_taps_sent", "compute-deep-send", handles, taps),
        Attack::load("components_ten_thousand_deep", components, "", ("invalid", "components are nested")),
        Attack::load("types_ten_thousand_deep", types, "", ("invalid", "")),
        Attack::load("component_types_a_hundred_thousand_deep", component_types, "", ("invalid", "types are nested")),
        Attack::load("a_manifest_ten_thousand_deep", manifest, "", ("invalid", "")),
    ]
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A component of one section.
fn with_section(id: u8, content: &[u8]) -> Vec<u8> {
    [&COMPONENT[..], &[id], &leb(content.len()), content].concat()
}

/// A component in a component in a component.
fn components() -> Vec<u8> {
    (0..10_000).fold(COMPONENT.to_vec(), |inner, _| with_section(4, &inner))
}

/// A list of lists of lists, as the type of what a function takes.
fn types() -> Vec<u8> {
    const DEPTH: usize = 10_000;
    let mut content = leb(DEPTH + 2);
    content.push(0x7d);
    for of in 0..DEPTH {
        content.push(0x70);
        // The index is a signed number.
        let index = leb(of);
        match index.last() {
            Some(last) if last & 0x40 != 0 => {
                content.extend_from_slice(&index[..index.len() - 1]);
                content.extend([last | 0x80, 0]);
            }
            _ => content.extend_from_slice(&index),
        }
    }
    // A function that takes the last of them: one parameter, no result.
    content.extend([0x40, 1, 1, b'a']);
    content.extend([0x90, 0xce, 0x00]);
    content.extend([0x01, 0x00]);
    let types = with_section(7, &content);
    // And is imported.
    let import = [&[1, 0, 1, b'f', 1][..], &leb(DEPTH + 1)].concat();
    [&types[..], &[10], &leb(import.len()), &import].concat()
}

/// The type of a component that has the type of a component that has the type of a component.
fn component_types() -> Vec<u8> {
    const DEPTH: usize = 100_000;
    let mut content = vec![1];
    for _ in 0..DEPTH {
        content.extend([0x41, 1, 1]);
    }
    content.extend([0x41, 0]);
    with_section(7, &content)
}

/// The attacker with a manifest of lists of lists.
fn manifest() -> Vec<u8> {
    let text = format!("name = {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let name = "tidelock:manifest";
    let content = [&leb(name.len()), name.as_bytes(), text.as_bytes()].concat();
    let guest = std::fs::read(tidelock_tests::program::guest("attacker")).expect("the guest is there");
    [&guest[..], &[0], &leb(content.len()), &content].concat()
}
