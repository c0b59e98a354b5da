//! A moto server with an archive, shared by all tests of a process; and its configuration.

use std::sync::LazyLock;

use xtask::backends::Moto;
use xtask::backends::moto::{BUCKET, Keys, REGION};

use crate::program::Home;

/// The server that tests share. A test that stops it, or controls restores, starts its own.
pub fn shared() -> &'static Moto {
    static SERVER: LazyLock<Moto> = LazyLock::new(start);
    &SERVER
}

/// A server of one's own.
pub fn start() -> Moto {
    Moto::start().expect("moto starts")
}

/// A configuration with one backend, `vault`, below a prefix of the bucket. `settings` are those of the adapter, as in
/// `storage-class = "DEEP_ARCHIVE"`.
pub fn config(server: &Moto, prefix: &str, settings: &str) -> String {
    let Moto { endpoint, .. } = server;
    format!(
        r#"
[backends.vault]
adapter = "glacier"
tier = "cold"
settings = {{ {settings} }}
limits = {{ idle = "15s" }}
[backends.vault.grants.bucket.objects]
endpoint = "{endpoint}"
region = "{REGION}"
bucket = "{BUCKET}"
prefix = "{prefix}/"
path_style = true
credentials = {{ env = "VAULT" }}
"#
    )
}

/// A folder with that configuration and the credentials in its environment.
pub fn home(server: &Moto, prefix: &str, settings: &str) -> Home {
    let mut home = Home::with(&config(server, prefix, settings));
    credentials(&mut home, &server.keys);
    home
}

/// Puts credentials into the environment of a folder.
pub fn credentials(home: &mut Home, keys: &Keys) {
    home.env("VAULT_ACCESS_KEY_ID", &keys.access_key);
    home.env("VAULT_SECRET_ACCESS_KEY", &keys.secret_key);
    if let Some(token) = &keys.session_token {
        home.env("VAULT_SESSION_TOKEN", token);
    }
}
