//! The settings of the adapter.

use tidelock_sdk::ids::is_key;
use tidelock_sdk::settings::wrong;
use tidelock_sdk::{Error, settings};

use crate::tree::Shape;

settings! {
    /// The settings of the adapter.
    pub struct Settings {
        /// The daemon's RPC. Without it: `http://127.0.0.1:5001`.
        rpc: String = "http://127.0.0.1:5001".to_owned(),
        /// A trustless gateway that objects are read from, as in `http://127.0.0.1:8080`. Without it: the RPC.
        gateway: Option<String>,
        /// What the names of pins begin with: lower-case letters, digits and `-`. Without it: `tidelock`.
        namespace: String = "tidelock".to_owned(),
        /// Bytes of a leaf of new objects, 4096 to 2096896. Without it: 1048576.
        chunk_size: u32 = 1 << 20,
        /// Children of a node of new objects, 2 to 8192. Without it: 1024.
        max_links: u32 = 1024,
        /// Seconds in which a block has to be found, 1 to 3600. Without it: 20.
        timeout: u32 = 20,
    }
}

/// Kubo's own bound of `--chunker=size-N`: 2 MiB less 256 bytes.
const LARGEST_CHUNK: u32 = 2_096_896;

impl Settings {
    /// Validates and normalizes the settings. Fails with `invalid`, naming the setting.
    pub fn checked(mut self) -> Result<Self, Error> {
        self.rpc = base("rpc", &self.rpc)?;
        self.gateway = self.gateway.map(|url| base("gateway", &url)).transpose()?;
        if !is_key(&self.namespace) {
            return Err(wrong("namespace", "1 to 64 lower-case letters, digits and `-`"));
        }
        for (name, value, least, most) in [
            ("chunk-size", self.chunk_size, 4096, LARGEST_CHUNK),
            ("max-links", self.max_links, 2, 8192),
            ("timeout", self.timeout, 1, 3600),
        ] {
            if !(least..=most).contains(&value) {
                return Err(wrong(name, &["from ", &least.to_string(), " to ", &most.to_string()].concat()));
            }
        }
        Ok(self)
    }

    /// Returns the layout of new files.
    pub fn shape(&self) -> Shape {
        Shape { chunk: u64::from(self.chunk_size), links: self.max_links as usize }
    }

    /// Returns the name of the pin of an object.
    pub fn name(&self, key: &str) -> String {
        [&self.namespace, "/", key].concat()
    }

    /// Returns whether a pin of this name was made by this backend.
    pub fn is_ours(&self, name: &str) -> bool {
        name.strip_prefix(&self.namespace).and_then(|rest| rest.strip_prefix('/')).is_some_and(is_key)
    }
}

/// Validates a URL to which paths are appended.
fn base(name: &str, url: &str) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
    if !(url.starts_with("http://") || url.starts_with("https://")) || !url.chars().all(fits) {
        return Err(wrong(name, "a URL with http or https, without query, as in `http://127.0.0.1:5001`"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use tidelock_sdk::settings::SettingValue;

    use super::*;

    fn settings(values: &[(&str, SettingValue)]) -> Result<Settings, Error> {
        Settings::from_source(|name| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()))?.checked()
    }

    #[test]
    fn defaults_are_those_of_the_profile_unixfs_v1_2025() {
        let settings = settings(&[]).unwrap();
        let Shape { chunk, links } = settings.shape();
        assert_eq!((chunk, links, settings.rpc.as_str()), (1 << 20, 1024, "http://127.0.0.1:5001"));
        assert_eq!(settings.name("snap-1"), "tidelock/snap-1");
        assert!(settings.is_ours("tidelock/snap-1"));
        for other in
            ["", "tidelock", "tidelock/", "tidelock/A", "tidelock2/snap-1", "x/tidelock/snap-1", "tidelock/a/b"]
        {
            assert!(!settings.is_ours(other), "{other}");
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        let text = |value: &str| SettingValue::Text(value.into());
        assert_eq!(settings(&[("rpc", text("https://ipfs.example/kubo/"))]).unwrap().rpc, "https://ipfs.example/kubo");
        for bad in [
            ("rpc", text("127.0.0.1:5001")),
            ("rpc", text("/ip4/127.0.0.1/tcp/5001")),
            ("rpc", text("http://a/?b=c")),
            ("gateway", text("http://a b")),
            ("namespace", text("")),
            ("namespace", text("a/b")),
            ("chunk-size", SettingValue::Integer(4095)),
            ("chunk-size", SettingValue::Integer(2_096_897)),
            ("max-links", SettingValue::Integer(1)),
            ("timeout", SettingValue::Integer(0)),
        ] {
            assert!(matches!(settings(std::slice::from_ref(&bad)), Err(Error::Invalid(_))), "{bad:?}");
        }
    }
}
