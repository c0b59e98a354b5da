//! The keys of objects, and the settings of the adapter.
//!
//! The id of an object is its key, relative to the prefix of the grant; so ids stay valid when the settings change.
//! `flat` puts the object `KEY` at `KEY`. `fan-out` puts it at `ab/KEY`, where `ab` is a byte of a hash of the key in
//! hex: some stores share their load by the beginning of a key, or keep directories behind the scenes.

use tidelock_sdk::bucket::{Encryption, PutOptions, Retention};
use tidelock_sdk::ids::is_key;
use tidelock_sdk::{Error, choice, settings};

choice! {
    /// How objects are spread over key prefixes.
    pub enum Layout {
        /// 256 prefixes.
        FanOut = "fan-out",
        /// None.
        Flat = "flat",
    }
}

choice! {
    /// Server-side encryption.
    pub enum Sse {
        /// With a key of the store's.
        Aes256 = "AES256",
        /// With a key of the key service.
        Kms = "aws:kms",
        /// The same, in two layers.
        KmsTwice = "aws:kms:dsse",
    }
}

choice! {
    /// The permission that shortens a retention.
    pub enum RetentionMode {
        /// `s3:BypassGovernanceRetention`.
        Governance = "GOVERNANCE",
        /// None: a retention cannot be shortened.
        Compliance = "COMPLIANCE",
    }
}

settings! {
    /// The settings of the adapter.
    pub struct Settings {
        /// `flat` (without it) puts objects directly below the grant's prefix; `fan-out` spreads them over 256 prefixes.
        layout: Layout = Layout::Flat,
        /// The storage class of new objects, for example `STANDARD_IA`. Without it: the bucket's default.
        storage_class: Option<String>,
        /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:dsse`. Without it: the bucket's default.
        sse: Option<Sse>,
        /// The key of the key service, with `sse` one of the kms kinds. Without it: the account's default key.
        sse_kms_key: Option<String>,
        /// For how many days new objects are locked. The bucket must have object lock. Without it they are not.
        retention_days: Option<u32>,
        /// `GOVERNANCE` (without it) or `COMPLIANCE`, with `retention-days`.
        retention_mode: Option<RetentionMode>,
    }
}

/// 100 years. More is a typing error, which compliance mode makes permanent.
const MAX_RETENTION_DAYS: u32 = 36_525;

const DAY: u64 = 86_400;

impl Settings {
    /// Validates the settings. Fails with `invalid` if they contradict each other.
    pub fn checked(self) -> Result<Self, Error> {
        if self.sse_kms_key.is_some() && !matches!(self.sse, Some(Sse::Kms | Sse::KmsTwice)) {
            return Err(Error::invalid("setting `sse-kms-key` needs setting `sse` to be `aws:kms` or `aws:kms:dsse`"));
        }
        match (self.retention_days, self.retention_mode) {
            (None, Some(_)) => Err(Error::invalid("setting `retention-mode` needs setting `retention-days`")),
            (Some(days), _) if days == 0 || days > MAX_RETENTION_DAYS => {
                Err(Error::invalid("setting `retention-days` must be from 1 to 36525"))
            }
            _ => Ok(self),
        }
    }

    /// The key, and so the id, of a new object.
    pub fn key(&self, key: &str) -> String {
        match self.layout {
            Layout::Flat => key.into(),
            Layout::FanOut => [&fan(key), "/", key].concat(),
        }
    }

    /// Returns the options of a put. `now_ms` (milliseconds since 1970) is asked for only if objects are locked.
    pub fn put_options(
        &self,
        size: Option<u64>,
        labels: Vec<(String, String)>,
        now_ms: impl Fn() -> u64,
    ) -> PutOptions {
        let retention = self.retention_days.map(|days| Retention {
            mode: self.retention_mode.unwrap_or(RetentionMode::Governance).as_str().into(),
            until: (now_ms() / 1000).saturating_add(u64::from(days) * DAY),
        });
        PutOptions {
            size,
            labels,
            content_type: Some("application/octet-stream".into()),
            storage_class: self.storage_class.clone(),
            if_absent: true,
            encryption: self
                .sse
                .map(|sse| Encryption { algorithm: sse.as_str().into(), key_id: self.sse_kms_key.clone() }),
            retention,
        }
    }
}

/// Returns whether a key is one that this adapter made, in either layout.
pub fn is_object(key: &str) -> bool {
    match key.split_once('/') {
        None => is_key(key),
        Some((fanned, name)) => is_key(name) && fan(name) == fanned,
    }
}

/// The prefix of a key: FNV-1a (32 bits) of it, folded to 8. It need not resist attacks, since the host makes the keys.
fn fan(key: &str) -> String {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let folded = hash ^ (hash >> 16);
    let byte = folded ^ (folded >> 8);
    [byte >> 4 & 15, byte & 15].iter().filter_map(|&digit| char::from_digit(digit, 16)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tidelock_sdk::settings::SettingValue;

    use super::*;

    fn settings(values: &[(&str, SettingValue)]) -> Result<Settings, Error> {
        Settings::from_source(|name| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()))?.checked()
    }

    fn text(value: &str) -> SettingValue {
        SettingValue::Text(value.into())
    }

    fn no_clock() -> u64 {
        panic!("the time is not needed")
    }

    #[test]
    fn layouts() {
        assert_eq!(settings(&[]).unwrap().key("k1"), "k1");
        assert_eq!(settings(&[("layout", text("fan-out"))]).unwrap().key("k1"), "e4/k1");
    }

    #[test]
    fn a_plain_put() {
        let options = settings(&[]).unwrap().put_options(Some(7), Vec::new(), no_clock);
        assert!(options.if_absent && options.size == Some(7));
        assert_eq!(options.content_type.as_deref(), Some("application/octet-stream"));
        assert!(options.encryption.is_none() && options.retention.is_none() && options.storage_class.is_none());
    }

    #[test]
    fn a_put_with_everything() {
        let settings = settings(&[
            ("storage-class", text("STANDARD_IA")),
            ("sse", text("aws:kms")),
            ("sse-kms-key", text("arn:key")),
            ("retention-days", SettingValue::Integer(30)),
            ("retention-mode", text("COMPLIANCE")),
        ]);
        let options = settings.unwrap().put_options(None, Vec::new(), || 1_000_999);
        assert_eq!(options.storage_class.as_deref(), Some("STANDARD_IA"));
        let encryption = options.encryption.unwrap();
        assert_eq!((encryption.algorithm.as_str(), encryption.key_id.as_deref()), ("aws:kms", Some("arn:key")));
        let retention = options.retention.unwrap();
        assert_eq!((retention.mode.as_str(), retention.until), ("COMPLIANCE", 1_000 + 30 * 86_400));
    }

    #[test]
    fn settings_that_do_not_go_together() {
        for bad in [
            vec![("sse-kms-key", text("arn:key"))],
            vec![("sse", text("AES256")), ("sse-kms-key", text("arn:key"))],
            vec![("sse", text("aes256"))],
            vec![("retention-mode", text("GOVERNANCE"))],
            vec![("retention-days", SettingValue::Integer(0))],
            vec![("retention-days", SettingValue::Integer(36_526))],
            vec![("retention-days", SettingValue::Integer(-1))],
        ] {
            assert!(matches!(settings(&bad), Err(Error::Invalid(_))), "{bad:?}");
        }
        let locked = settings(&[("retention-days", SettingValue::Integer(1))]).unwrap();
        assert_eq!(locked.put_options(None, Vec::new(), || 0).retention.unwrap().mode, "GOVERNANCE");
    }

    /// Keys that count up are spread over all prefixes.
    #[test]
    fn the_fan_out_spreads() {
        let mut prefixes = HashMap::<_, u32>::new();
        for n in 0..25_600 {
            *prefixes.entry(fan(&format!("snapshot-{n:08}"))).or_default() += 1;
        }
        assert_eq!(prefixes.len(), 256);
        assert!(prefixes.values().all(|&n| (50..200).contains(&n)), "{:?}", prefixes.values().max());
    }

    proptest! {
        #[test]
        fn its_own_keys_are_known(key in "[a-z0-9-]{1,64}", fanned: bool) {
            let layout = if fanned { "fan-out" } else { "flat" };
            prop_assert!(is_object(&settings(&[("layout", text(layout))]).unwrap().key(&key)));
        }

        #[test]
        fn others_are_not(key in "[A-Z./]{1,20}") {
            prop_assert!(!is_object(&key));
        }
    }
}
