//! Components that Rust cannot express: the attacker's own module with a start function, a table or a memory put into it,
//! and its component with further core instances.

use std::sync::OnceLock;

use tidelock_tests::program::guest;

/// The core module of a guest, from before it became a component.
pub fn module(name: &str) -> Vec<u8> {
    // It is built with the component.
    guest(name);
    let dir = xtask::guests::target_dir().join("wasm32-unknown-unknown/release");
    let path = dir.join(format!("tidelock_adapter_{}.wasm", name.replace('-', "_")));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The attacker's module as text.
fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| wasmprinter::print_bytes(module("attacker")).expect("the module can be printed"))
}

/// The attacker as a component, with more in its module.
pub fn with_module(more: &str) -> Vec<u8> {
    encode(&before_the_end(text(), more))
}

/// The attacker, whose memory has so many pages from the start.
pub fn with_pages(pages: u32) -> Vec<u8> {
    let (before, after) = text().split_once("(memory (;0;) ").expect("the module has a memory");
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    encode(&format!("{before}(memory (;0;) {pages}{after}"))
}

/// The attacker, with so many further instances of a core module.
pub fn with_instances(count: usize, module: &str) -> Vec<u8> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let component = std::fs::read(guest("attacker")).expect("the guest is there");
        wasmprinter::print_bytes(component).expect("the component can be printed")
    });
    let instances = "(core instance (instantiate $more))\n".repeat(count);
    let more = format!("(core module $more {module})\n{instances}");
    wat::parse_str(before_the_end(text, &more)).unwrap_or_else(|error| panic!("{error}"))
}

/// The attacker, with so many further components beside it, each of one core instance.
pub fn with_components(count: usize) -> Vec<u8> {
    let component = std::fs::read(guest("attacker")).expect("the guest is there");
    let text = wasmprinter::print_bytes(component).expect("the component can be printed");
    let instances = "(instance (instantiate $one))\n".repeat(count);
    let one = "(component $one (core module $m) (core instance (instantiate $m)))";
    wat::parse_str(before_the_end(&text, &format!("{one}\n{instances}"))).unwrap_or_else(|error| panic!("{error}"))
}

/// The attacker, with so many instances of a component that another one exports.
pub fn with_exported_components(count: usize) -> Vec<u8> {
    let component = std::fs::read(guest("attacker")).expect("the guest is there");
    let text = wasmprinter::print_bytes(component).expect("the component can be printed");
    let holder = "(component $holder (component $one (core module $m) (core instance (instantiate $m)))
        (export \"one\" (component $one)))
        (instance $held (instantiate $holder)) (alias export $held \"one\" (component $taken))";
    let instances = "(instance (instantiate $taken))\n".repeat(count);
    wat::parse_str(before_the_end(&text, &format!("{holder}\n{instances}"))).unwrap_or_else(|error| panic!("{error}"))
}

fn before_the_end(text: &str, more: &str) -> String {
    let body = text.trim_end().strip_suffix(')').expect("a module ends in a bracket");
    format!("{body}\n{more}\n)")
}

fn encode(text: &str) -> Vec<u8> {
    let module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let encode = || wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode();
    encode().unwrap_or_else(|error| panic!("{error:?}"))
}
