//! The adapters that travel in the program, as they were in `target/adapters` when it was built (`host/core/build.rs`).
//!
//! A program can be built before any guest is: then it has their names only.

include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// The component of a built-in adapter. `None` for a name that is not one of [`names`], and for one that was not there
/// when this program was built.
pub fn builtin(name: &str) -> Option<&'static [u8]> {
    COMPONENTS.iter().find(|(known, _)| *known == name).and_then(|(_, component)| *component)
}

/// The names of the adapters that belong in the program, whether or not they are in this one.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMPONENTS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_adapter_is_a_component() {
        // The magic number of WebAssembly, then version 13 and layer 1: a component rather than a module.
        let header = b"\0asm\x0d\0\x01\0";
        assert_eq!(names().collect::<Vec<_>>(), ["fs", "glacier", "ipfs", "nfs", "s3", "ton"]);
        assert!(names().filter_map(builtin).all(|component| component.starts_with(header)));
        assert_eq!(builtin("nonsense"), None);
        // Each has a manifest with its requirements, by the names of its grants.
        for (name, component) in names().filter_map(|name| Some((name, builtin(name)?))) {
            let manifest = crate::runtime::Manifest::of_component(component).unwrap();
            assert_eq!(
                manifest.unwrap_or_else(|| panic!("{name} carries no manifest: run `cargo xtask guests`")).name,
                name
            );
        }
    }
}
