//! The settings of the adapter.
//!
//! Their names are those of TON's own tools, with underscores.

use tidelock_sdk::settings::wrong;
use tidelock_sdk::{Error, settings};

use crate::address::is_address;

settings! {
    /// The settings of the adapter.
    pub struct Settings {
        /// The storage daemon's API, as in `http://127.0.0.1:8192`.
        daemon_endpoint as "daemon_endpoint": String,
        /// What the daemon calls the directory of the grant `shared`: an absolute path.
        shared_path as "shared_path": String,
        /// For how many seconds a bag that the daemon has to fetch may come no further. Without it: 120.
        download_timeout as "download_timeout": u32 = 120,
        /// toncenter's API, as in `https://toncenter.com/api/v2`. Without it nothing is known of balances.
        rpc_endpoint as "rpc_endpoint": Option<String>,
        /// The wallet that pays, of version v4r2 or v5r1.
        wallet_address as "wallet_address": Option<String>,
        /// The storage contract that is paid. With it, nothing is stored that its balance does not pay for.
        contract_address as "contract_address": Option<String>,
    }
}

impl Settings {
    /// Validates and normalizes the settings. Fails with `invalid`, naming the setting.
    pub fn checked(mut self) -> Result<Self, Error> {
        self.daemon_endpoint = endpoint("daemon_endpoint", &self.daemon_endpoint)?;
        if let Some(rpc) = &self.rpc_endpoint {
            self.rpc_endpoint = Some(rpc_url(&endpoint("rpc_endpoint", rpc)?));
        }
        let path = self.shared_path.trim_end_matches('/');
        if !path.strip_prefix('/').is_some_and(is_plain) {
            return Err(wrong("shared_path", "an absolute path without `..`, as in `/srv/bags`"));
        }
        self.shared_path = path.into();
        for (name, address) in [("wallet_address", &self.wallet_address), ("contract_address", &self.contract_address)]
        {
            let Some(address) = address else { continue };
            if !is_address(address) {
                return Err(wrong(name, "an address of TON, as in `EQ…` or `0:…`"));
            }
            if self.rpc_endpoint.is_none() {
                return Err(Error::invalid(["setting `", name, "` needs setting `rpc_endpoint`"].concat()));
            }
        }
        Ok(self)
    }

    /// Returns the daemon's path of a file below the shared directory.
    pub fn daemon_path(&self, path: &str) -> String {
        [&self.shared_path, "/", path].concat()
    }

    /// Returns the path below the shared directory of a daemon's path; `None` if it is elsewhere.
    pub fn path_of<'a>(&self, daemon_path: &'a str) -> Option<&'a str> {
        let rest = daemon_path.strip_prefix(&self.shared_path)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }
}

/// Returns whether a path, after its first `/`, has no empty or relative parts and no control characters.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(plain) && !path.chars().any(char::is_control)
}

fn endpoint(name: &str, text: &str) -> Result<String, Error> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !text.contains(['?', '#', '@']) => Ok(text.into()),
        _ => Err(wrong(name, "a URL that begins with `http://` or `https://`, without a query or a password")),
    }
}

/// Accepts the API's folder as well as the URL of its one endpoint.
fn rpc_url(endpoint: &str) -> String {
    if endpoint.ends_with("/jsonRPC") { endpoint.into() } else { [endpoint, "/jsonRPC"].concat() }
}

#[cfg(test)]
mod tests {
    use tidelock_sdk::settings::SettingValue;

    use super::*;

    const WALLET: &str = "EQAqbua3_0G_7K_jgzhjJceolfT-TONGsY65wUoBUtZinKC1";

    fn settings(values: &[(&str, &str)]) -> Result<Settings, Error> {
        let basic = [("daemon_endpoint", "http://127.0.0.1:8192/"), ("shared_path", "/srv/bags/")];
        let all = |name: &str| values.iter().chain(&basic).find(|(known, _)| *known == name).map(|(_, value)| *value);
        Settings::from_source(|name| all(name).map(|value| SettingValue::Text(value.into())))?.checked()
    }

    #[test]
    fn endpoints_have_one_form() {
        let plain = settings(&[]).unwrap();
        assert_eq!(
            (plain.daemon_endpoint.as_str(), plain.shared_path.as_str()),
            ("http://127.0.0.1:8192", "/srv/bags")
        );
        assert_eq!(plain.download_timeout, 120);
        for written in ["http://a/api/v2", "http://a/api/v2/", "http://a/api/v2/jsonRPC"] {
            let settings = settings(&[("rpc_endpoint", written), ("wallet_address", WALLET)]).unwrap();
            assert_eq!(settings.rpc_endpoint.as_deref(), Some("http://a/api/v2/jsonRPC"));
        }
    }

    #[test]
    fn invalid_settings_are_named() {
        for (name, bad) in [
            ("daemon_endpoint", "127.0.0.1:8192"),
            ("daemon_endpoint", "http://"),
            ("daemon_endpoint", "http://user:secret@127.0.0.1"),
            ("rpc_endpoint", "http://a?api_key=secret"),
            ("shared_path", "srv/bags"),
            ("shared_path", "/"),
            ("shared_path", "/srv/../etc"),
            ("shared_path", "/srv//bags"),
            ("shared_path", "/srv/\nbags"),
            ("wallet_address", WALLET),
            ("contract_address", "EQ"),
        ] {
            let Err(Error::Invalid(why)) = settings(&[(name, bad)]) else { panic!("{name} {bad}") };
            assert!(why.contains(name) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn paths_are_the_daemons_and_ours() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.daemon_path("stored/k"), "/srv/bags/stored/k");
        assert_eq!(settings.path_of("/srv/bags/stored"), Some("stored"));
        assert_eq!(settings.path_of("/srv/bags"), Some(""));
        for elsewhere in ["/srv", "/srv/bagsx", "/etc", "srv/bags"] {
            assert_eq!(settings.path_of(elsewhere), None, "{elsewhere}");
        }
    }
}
