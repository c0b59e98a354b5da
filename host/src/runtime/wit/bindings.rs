//! Generated bindings of `tidelock:storage@0.1.x`. Nothing here is written by hand.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wasmtime::component::bindgen!({
    world: "host",
    path: "../wit",
    imports: {
        "tidelock:storage/digest-stream.tap": store | trappable,
        default: trappable,
    },
    exports: { default: async },
});
