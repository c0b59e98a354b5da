//! Whether a component may be used at all, before a byte of it is compiled: the digest that a backend pins, and the keys
//! of which one must have signed it.
//!
//! Both are checked wherever a component is loaded, at the start and at every swap, by [`super::Adapter::load`].
//! A signature says that the holder of a key vouches for exactly these bytes; it says nothing about their age: to allow
//! one version and no earlier one, pin the digest.
//!
//! Keys are rotated without an interruption: the new key is trusted beside the old one, components are
//! signed with both, and the old one is removed from the configuration. Components signed only by it are then rejected.

use super::component::Component;
use super::digest::ComponentDigest;
use super::manifest::Manifest;
use super::signature::Signature;
use tidelock_types::{Error, PublicKey, Result};

/// A backend's requirements for its component. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The only component that may serve.
    pub digest: Option<ComponentDigest>,
    /// The keys, with the names that the operator gave them, of which one must have signed. Empty demands no signature.
    pub signed_by: Vec<(String, PublicKey)>,
    /// Whether a component without a manifest is rejected. Otherwise it is treated as asking for its imports.
    pub require_manifest: bool,
}

impl Trust {
    /// Checks a component and returns its digest.
    ///
    /// # Errors
    /// `denied`, with the missing requirement.
    pub fn check(&self, component: &Component) -> Result<ComponentDigest> {
        let digest = component.digest();
        if let Some(pinned) = self.digest.filter(|pinned| *pinned != digest) {
            return Err(Error::denied(format!("the component is {digest}, but the configuration pins {pinned}"))
                .hint("change `digest` to use the new component"));
        }
        if self.signed_by.is_empty() || self.signer(digest, &component.signatures).is_some() {
            return Ok(digest);
        }
        Err(self.unsigned(digest, &component.signatures))
    }

    /// Checks that there is a manifest, if one is required.
    ///
    /// # Errors
    /// `denied` if there is none.
    pub fn check_manifest(&self, manifest: Option<&Manifest>) -> Result<()> {
        if manifest.is_some() || !self.require_manifest {
            return Ok(());
        }
        Err(Error::denied("the component has no manifest, but the configuration requires one")
            .hint("embed one with `tidelock adapter embed`, or see `require_manifest` in [trust]"))
    }

    /// The name of the first key of those demanded that has signed.
    pub fn signer(&self, digest: ComponentDigest, signatures: &[Signature]) -> Option<&str> {
        let signed = |key: &PublicKey| signatures.iter().any(|one| one.key == *key && one.verifies(digest));
        self.signed_by.iter().find(|(_, key)| signed(key)).map(|(name, _)| name.as_str())
    }

    fn unsigned(&self, digest: ComponentDigest, signatures: &[Signature]) -> Error {
        let names: Vec<&str> = self.signed_by.iter().map(|(name, _)| name.as_str()).collect();
        let of_trusted = |one: &&Signature| self.signed_by.iter().any(|(_, key)| *key == one.key);
        let why = if signatures.is_empty() {
            "it is not signed".to_owned()
        } else if let Some(forged) = signatures.iter().find(of_trusted) {
            let name = self.signed_by.iter().find(|(_, key)| *key == forged.key).map_or("", |(name, _)| name);
            format!("its signature by `{name}` does not match its bytes")
        } else {
            let keys: Vec<String> = signatures.iter().take(3).map(|one| one.key.to_string()).collect();
            format!("it is signed by {} instead", keys.join(", "))
        };
        Error::denied(format!("the component {digest} must be signed by {}, but {why}", names.join(" or ")))
            .hint("sign it with `tidelock adapter sign`, or see `signed_by` and [trust.keys] in the configuration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SecretKey;

    fn trust(keys: &[(&str, &SecretKey)]) -> Trust {
        let signed_by = keys.iter().map(|(name, key)| ((*name).to_owned(), key.public())).collect();
        Trust { signed_by, ..Trust::default() }
    }

    fn signed(bytes: &[u8], keys: &[&SecretKey]) -> Component {
        let mut component = Component::from(bytes);
        component.signatures = keys.iter().map(|key| key.sign(component.digest())).collect();
        component
    }

    #[test]
    fn nothing_is_demanded_by_default_and_a_pin_is_exact() {
        let component = Component::from(&b"one"[..]);
        assert_eq!(Trust::default().check(&component).unwrap(), component.digest());
        let pinned = Trust { digest: Some(component.digest()), ..Trust::default() };
        pinned.check(&component).unwrap();
        let error = pinned.check(&Component::from(&b"two"[..])).unwrap_err();
        assert!(error.to_string().contains("pins") && *error.kind() == tidelock_types::ErrorKind::Denied, "{error:?}");
    }

    #[test]
    fn one_of_the_demanded_keys_is_enough_and_nothing_less() {
        let [old, new, other] = [(); 3].map(|()| SecretKey::generate().unwrap());
        let both = trust(&[("old", &old), ("new", &new)]);
        both.check(&signed(b"x", &[&old])).unwrap();
        both.check(&signed(b"x", &[&other, &new])).unwrap();
        let refused = |trust: &Trust, component: &Component| trust.check(component).unwrap_err().to_string();
        assert!(refused(&both, &signed(b"x", &[])).contains("old or new, but it is not signed"));
        assert!(refused(&both, &signed(b"x", &[&other])).contains("instead"));
        let mut moved = signed(b"x", &[&old]);
        moved.bytes = b"y".to_vec();
        assert!(refused(&both, &moved).contains("`old` does not match its bytes"));
        // A signature of another key under a trusted key's name.
        let mut forged = signed(b"x", &[&other]);
        forged.signatures[0].key = new.public();
        assert!(refused(&both, &forged).contains("`new` does not match its bytes"));
    }

    #[test]
    fn rotation() {
        let [old, new] = [(); 2].map(|()| SecretKey::generate().unwrap());
        let (by_old, by_both) = (signed(b"x", &[&old]), signed(b"x", &[&old, &new]));
        let meanwhile = trust(&[("old", &old), ("new", &new)]);
        assert!(meanwhile.check(&by_old).is_ok() && meanwhile.check(&by_both).is_ok());
        let afterwards = trust(&[("new", &new)]);
        assert!(afterwards.check(&by_old).is_err() && afterwards.check(&by_both).is_ok());
    }
}
