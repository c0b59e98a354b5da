//! The headers that are the host's, in requests of an adapter and in the credentials of a grant.

use http::header::{self, HeaderName};

/// Returns whether a header is reserved for the host: those that control destination, framing and
/// connection (RFC 9110 §7.6.1 and §10.1.1).
pub fn owned_by_host(name: &HeaderName) -> bool {
    const OWNED: [HeaderName; 9] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::PROXY_AUTHORIZATION,
    ];
    OWNED.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}
