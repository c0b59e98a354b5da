//! The settings of the adapter, and the options of puts and restores.

use tidelock_sdk::bucket::PutOptions;
use tidelock_sdk::{Error, Label, choice, settings};

choice! {
    /// Where new objects go.
    pub enum StorageClass {
        /// Restored within minutes to hours.
        Glacier = "GLACIER",
        /// Restored within hours to days, for a quarter of the price.
        DeepArchive = "DEEP_ARCHIVE",
        /// Read at once, for a price each time.
        InstantRetrieval = "GLACIER_IR",
    }
}

choice! {
    /// Speed and price of a restore.
    pub enum Tier {
        /// 3 to 5 hours; 12 from `DEEP_ARCHIVE`.
        Standard = "Standard",
        /// 5 to 12 hours, for next to nothing; 48 from `DEEP_ARCHIVE`.
        Bulk = "Bulk",
        /// 1 to 5 minutes.
        Expedited = "Expedited",
    }
}

settings! {
    /// The settings of the adapter.
    pub struct Settings {
        /// `GLACIER` (without it), `DEEP_ARCHIVE`, or `GLACIER_IR`, which is read without a restore.
        storage_class: StorageClass = StorageClass::Glacier,
        /// How fast a restore is: `Standard` (without it), `Bulk`, or `Expedited`, which `DEEP_ARCHIVE` does not have.
        restore_tier: Tier = Tier::Standard,
    }
}

impl Settings {
    /// Validates the settings. Fails with `invalid` if they contradict each other.
    pub fn checked(self) -> Result<Self, Error> {
        match (self.storage_class, self.restore_tier) {
            (StorageClass::DeepArchive, Tier::Expedited) => {
                Err(Error::invalid("setting `restore-tier` must not be `Expedited` with `DEEP_ARCHIVE`"))
            }
            _ => Ok(self),
        }
    }

    /// Returns the tier of restores.
    pub fn tier(&self) -> &'static str {
        self.restore_tier.as_str()
    }

    /// Returns the options of a put.
    pub fn put_options(&self, size: Option<u64>, labels: Vec<Label>) -> PutOptions {
        PutOptions {
            size,
            labels,
            content_type: Some("application/octet-stream".into()),
            storage_class: Some(self.storage_class.as_str().into()),
            if_absent: true,
            encryption: None,
            retention: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelock_sdk::settings::SettingValue;

    use super::*;

    fn settings(values: &[(&str, &str)]) -> Result<Settings, Error> {
        let found = |name: &str| values.iter().find(|(known, _)| *known == name);
        Settings::from_source(|name| found(name).map(|(_, value)| SettingValue::Text((*value).into())))?.checked()
    }

    #[test]
    fn defaults_are_glacier_and_standard() {
        let settings = settings(&[]).unwrap();
        let options = settings.put_options(Some(7), vec![("a".into(), "b".into())]);
        assert_eq!((options.storage_class.as_deref(), settings.tier()), (Some("GLACIER"), "Standard"));
        assert!(options.if_absent && options.size == Some(7) && options.labels.len() == 1);
    }

    #[test]
    fn unsupported_combinations_are_refused() {
        assert!(settings(&[("storage-class", "DEEP_ARCHIVE"), ("restore-tier", "Bulk")]).is_ok());
        assert!(settings(&[("storage-class", "GLACIER_IR"), ("restore-tier", "Expedited")]).is_ok());
        for bad in [
            vec![("storage-class", "DEEP_ARCHIVE"), ("restore-tier", "Expedited")],
            vec![("storage-class", "STANDARD")],
            vec![("restore-tier", "standard")],
        ] {
            assert!(matches!(settings(&bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }
}
