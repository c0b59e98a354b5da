//! The options of an upload, in the words of the SDK.
//!
//! Three requests take the same options through three builders that share no trait; hence the macro.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption, StorageClass};

use super::PutOptions;
use tidelock_types::{Error, Result};

/// Options that were checked.
pub(super) struct Checked {
    pub(super) labels: Vec<(String, String)>,
    pub(super) content_type: Option<String>,
    pub(super) storage_class: Option<StorageClass>,
    pub(super) encryption: Option<(ServerSideEncryption, Option<String>)>,
    pub(super) retention: Option<(ObjectLockMode, DateTime)>,
    pub(super) if_absent: bool,
}

/// Sets the options common to all uploads on a request's builder.
macro_rules! apply {
    ($builder:expr, $options:expr) => {{
        let options: &$crate::bucket::options::Checked = $options;
        let mut builder =
            $builder.set_content_type(options.content_type.clone()).set_storage_class(options.storage_class.clone());
        for (name, value) in &options.labels {
            builder = builder.metadata(name, value);
        }
        if let Some((algorithm, key)) = &options.encryption {
            builder = builder.server_side_encryption(algorithm.clone()).set_ssekms_key_id(key.clone());
        }
        if let Some((mode, until)) = &options.retention {
            builder = builder.object_lock_mode(mode.clone()).object_lock_retain_until_date(until.clone());
        }
        builder
    }};
}
pub(super) use apply;

impl Checked {
    /// # Errors
    /// `invalid` for options that a request cannot express.
    pub(super) fn new(options: PutOptions) -> Result<Self> {
        let wrong = |what: &str, value: &str| {
            Err(Error::invalid(format!(
                "`{}` is not {what}",
                value.chars().take(100).collect::<String>().escape_debug()
            )))
        };
        for (name, value) in &options.labels {
            let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || !name.chars().all(is_allowed) {
                return wrong("the name of a label: lower-case letters, digits and `-`", name);
            }
            if !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
                return wrong("the value of a label: printable ASCII", value);
            }
        }
        let encryption = match options.encryption {
            None => None,
            Some(encryption) => match encryption.algorithm.as_str() {
                "AES256" if encryption.key_id.is_some() => return wrong("an algorithm that takes a key", "AES256"),
                "AES256" | "aws:kms" | "aws:kms:dsse" => {
                    Some((ServerSideEncryption::from(encryption.algorithm.as_str()), encryption.key_id))
                }
                other => return wrong("an encryption: AES256, aws:kms or aws:kms:dsse", other),
            },
        };
        let retention = match options.retention {
            None => None,
            Some(retention) => match (retention.mode.as_str(), i64::try_from(retention.until)) {
                (mode @ ("GOVERNANCE" | "COMPLIANCE"), Ok(until)) => {
                    Some((ObjectLockMode::from(mode), DateTime::from_secs(until)))
                }
                (other, _) => return wrong("a retention: GOVERNANCE or COMPLIANCE, and a time", other),
            },
        };
        Ok(Self {
            labels: options.labels,
            content_type: options.content_type,
            storage_class: options.storage_class.as_deref().map(StorageClass::from),
            encryption,
            retention,
            if_absent: options.if_absent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{Encryption, Retention};

    #[test]
    fn invalid_options_are_refused() {
        let refused = |options: PutOptions| assert!(Checked::new(options).is_err());
        let label =
            |name: &str, value: &str| PutOptions { labels: vec![(name.into(), value.into())], ..Default::default() };
        refused(label("", "x"));
        refused(label("Upper", "x"));
        refused(label("a", "x\r\ny: z"));
        refused(label("a", "ü"));
        Checked::new(label("base-2", "x y")).unwrap();
        let encrypted = |algorithm: &str, key_id: Option<&str>| PutOptions {
            encryption: Some(Encryption { algorithm: algorithm.into(), key_id: key_id.map(Into::into) }),
            ..Default::default()
        };
        refused(encrypted("rot13", None));
        refused(encrypted("AES256", Some("k")));
        Checked::new(encrypted("aws:kms", Some("k"))).unwrap();
        let kept = |mode: &str, until| PutOptions {
            retention: Some(Retention { mode: mode.into(), until }),
            ..Default::default()
        };
        refused(kept("FOREVER", 1));
        refused(kept("GOVERNANCE", u64::MAX));
    }
}
