//! What wit-bindgen makes of `wit/`: thin, generated, and not meant to be used directly where the SDK has a name of its own.
//!
//! The optional interfaces are worlds and modules of their own, so that a component which does not export them does not
//! have them: the section that promises an export is put into the component by the export macro alone, and
//! wit-component merges the sections that it finds. They share their types with the main world through `with`.

#![allow(missing_docs, missing_debug_implementations)]

wit_bindgen::generate!({
    world: "storage-adapter",
    path: "../../wit",
    pub_export_macro: true,
    export_macro_name: "export_storage_adapter",
    default_bindings_module: "tidelock_sdk::bindings",
});

/// The world of adapters whose objects can be cold.
pub mod archiving {
    wit_bindgen::generate!({
        world: "archiving",
        path: "../../wit",
        with: { "tidelock:storage/types@0.1.1": crate::bindings::tidelock::storage::types },
        pub_export_macro: true,
        export_macro_name: "export_archiving",
        default_bindings_module: "tidelock_sdk::bindings::archiving",
    });
}

/// The world of adapters that are paid.
pub mod accounting {
    wit_bindgen::generate!({
        world: "accounting",
        path: "../../wit",
        with: { "tidelock:storage/types@0.1.1": crate::bindings::tidelock::storage::types },
        pub_export_macro: true,
        export_macro_name: "export_accounting",
        default_bindings_module: "tidelock_sdk::bindings::accounting",
    });
}

/// The world of adapters that can list what they hold.
pub mod listing {
    wit_bindgen::generate!({
        world: "listing",
        path: "../../wit",
        with: { "tidelock:storage/types@0.1.1": crate::bindings::tidelock::storage::types },
        pub_export_macro: true,
        export_macro_name: "export_listing",
        default_bindings_module: "tidelock_sdk::bindings::listing",
    });
}
