//! Removes the credentials of a grant from replies: a server that has one must not be able to pass it to the guest, to
//! an error, to a label or to the catalogue.
//!
//! Every request carries the session token, and whoever runs the service knows both secrets. So nothing that a reply says is
//! passed on with one of them in it. They are looked for as they are; a server that encodes them first tells only what it
//! could tell anybody anyway. The bytes of objects are not looked at.

use std::sync::Arc;

use http::header::HeaderMap;

use crate::grant::{BucketCredentials, Secret};

/// Secrets that are shorter are not looked for: they occur in texts by chance. No service issues such.
const SHORTEST: usize = 8;

/// The secret key and the session token.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Arc<[Secret]>);

impl Secrets {
    pub(super) fn of(credentials: Option<&BucketCredentials>) -> Self {
        let secrets = credentials.into_iter().flat_map(|c| [Some(&c.secret_key), c.session_token.as_ref()]);
        let mut secrets: Vec<Secret> =
            secrets.flatten().filter(|secret| secret.expose().len() >= SHORTEST).cloned().collect();
        // One may contain the other.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self(secrets.into())
    }

    /// Returns whether a text contains one of them, in any case: names of headers are in lower case.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        let within = |secret: &[u8]| text.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret));
        self.0.iter().any(|secret| within(secret.expose().as_bytes()))
    }

    /// The text with `***` in their place.
    pub(super) fn hidden_in(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.expose()) { text.replace(secret.expose(), "***") } else { text }
        })
    }

    /// Removes the headers that contain one.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        let showing: Vec<_> = headers
            .iter()
            .filter(|(name, value)| self.are_in(name.as_str().as_bytes()) || self.are_in(value.as_bytes()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in showing {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(key: &str, token: Option<&str>) -> Secrets {
        let token = token.map(Secret::new);
        let keys = BucketCredentials { access_key: "AK".into(), secret_key: Secret::new(key), session_token: token };
        Secrets::of(Some(&keys))
    }

    #[test]
    fn secrets_are_hidden_and_removed() {
        let both = secrets("hush-hush", Some("hush-hush-token"));
        assert_eq!(both.hidden_in("a hush-hush-token, hush-hush.".into()), "a ***, ***.");
        let mut headers = HeaderMap::new();
        headers.insert("etag", "x hush-hush-token".parse().unwrap());
        headers.insert("x-amz-meta-hush-hush", "y".parse().unwrap());
        headers.insert("x-amz-meta-name", "hush".parse().unwrap());
        both.remove_from(&mut headers);
        assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-amz-meta-name"]);
    }

    #[test]
    fn a_few_letters_are_no_secret() {
        for few in [secrets("b", None), secrets("", Some("")), Secrets::of(None)] {
            assert_eq!(few.hidden_in("abc".into()), "abc");
            assert!(!few.are_in(b"abc"));
        }
    }
}
