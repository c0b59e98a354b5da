//! What an adapter may ask of the host, by the name of a grant.
//!
//! A handle (`Directory::granted("objects")`) is only a name: nothing is opened or checked until it is used, and a name
//! that the operator did not grant is `denied` then. A component imports the capabilities that it calls and no others.

pub mod bucket;
pub mod directory;
pub mod http;

/// Digests of values, at native speed.
pub mod digest {
    pub use crate::bindings::tidelock::storage::digest::{hmac_sha256, sha256};
}

/// Digests of streams.
pub mod digest_stream {
    use crate::bindings::tidelock::storage::digest_stream as import;
    use crate::{Body, Error};

    pub use import::{Algorithm, Digests, Plan};

    /// Digests a body while it passes, without its bytes coming into the adapter's memory. The future gives the digests
    /// after the last byte of the body that is returned, so that must be read or handed on first.
    pub fn tap(data: Body, plan: &Plan) -> (Body, impl Future<Output = Result<Digests, Error>> + use<>) {
        let tapped = import::tap(data.into(), plan);
        (tapped.data.into(), tapped.digests.into_future())
    }
}

/// Digests of the pieces of streams, without one of the whole: for content whose id depends on its pieces.
pub mod piece_digests {
    use crate::bindings::tidelock::storage::piece_digests as import;
    use crate::{Body, Error};

    pub use super::digest_stream::Algorithm;
    pub use import::{Digests, Plan};

    /// As [`digest_stream::tap`](super::digest_stream::tap), in half the time.
    pub fn tap(data: Body, plan: &Plan) -> (Body, impl Future<Output = Result<Digests, Error>> + use<>) {
        let tapped = import::tap(data.into(), plan);
        (tapped.data.into(), tapped.digests.into_future())
    }
}

/// Notes for the operator.
pub mod log {
    use crate::bindings::tidelock::storage::log as import;

    pub use import::Level;

    /// Writes a note. The host limits how many and how long.
    pub fn write(level: Level, message: &str) {
        import::write(level, message);
    }

    /// A note for debugging the adapter.
    pub fn debug(message: &str) {
        write(Level::Debug, message);
    }

    /// A note on normal operation.
    pub fn info(message: &str) {
        write(Level::Info, message);
    }

    /// A note on a problem.
    pub fn warn(message: &str) {
        write(Level::Warn, message);
    }
}

/// Time.
pub mod clock {
    pub use crate::bindings::tidelock::storage::clock::{monotonic, now};
}

/// Random bytes.
pub mod entropy {
    pub use crate::bindings::tidelock::storage::entropy::bytes;
}

/// Waiting for a backend that works on something. What failed is not tried again here: it is returned.
pub mod timer {
    use crate::bindings::tidelock::storage::timer as import;

    /// Returns after so many milliseconds, at most 10,000 at once.
    pub async fn wait(milliseconds: u32) {
        import::wait(milliseconds).await;
    }
}

/// Which grants there are, for an adapter that can do without some of them.
pub mod grants {
    use crate::bindings::tidelock::storage::grants as import;

    pub use import::Kind;

    /// Returns whether the adapter has the grant of this kind and name: its manifest asks for it, and the operator
    /// grants it. Always false while the adapter describes itself.
    pub fn has(kind: Kind, name: &str) -> bool {
        import::has(kind, name)
    }
}
