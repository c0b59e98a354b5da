//! Generated bindings of `tidelock:storage@0.1.x`. Nothing here is written by hand.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wasmtime::component::bindgen!({
    world: "host",
    path: "../../wit",
    imports: {
        "tidelock:storage/digest-stream.tap": store | trappable,
        "tidelock:storage/piece-digests.tap": store | trappable,
        // Synchronous functions for the guest, which do not block a thread here.
        "tidelock:storage/bodies.[method]body.read": async | trappable,
        "tidelock:storage/http-sync": async | trappable,
        "tidelock:storage/bucket-sync": async | trappable,
        "tidelock:storage/directory-sync": async | trappable,
        default: trappable,
    },
    with: { "tidelock:storage/bodies.body": crate::body_handle::BodyHandle },
    exports: { default: async },
});
