//! A SeaweedFS for all tests of a process, and the configuration that uses one.

use std::sync::LazyLock;

use xtask::backends::Seaweed;

use crate::program::Home;

/// The bucket.
pub const BUCKET: &str = "snapshots";

/// The server that tests share. It must not be stopped: such a test starts its own with [`start`].
pub fn shared() -> &'static Seaweed {
    static SERVER: LazyLock<Seaweed> = LazyLock::new(start);
    &SERVER
}

/// A server with the bucket.
pub fn start() -> Seaweed {
    let server = Seaweed::start().expect("SeaweedFS starts");
    server.create_bucket(BUCKET).expect("SeaweedFS makes a bucket");
    server
}

/// A configuration with one backend, `cloud`, below a prefix of the bucket.
pub fn config(server: &Seaweed, prefix: &str) -> String {
    let Seaweed { endpoint, region, .. } = server;
    format!(
        r#"
[backends.cloud]
adapter = "s3"
limits = {{ idle = "15s" }}
[backends.cloud.grants.bucket.objects]
endpoint = "{endpoint}"
region = "{region}"
bucket = "{BUCKET}"
prefix = "{prefix}/"
path_style = true
credentials = {{ env = "CLOUD" }}
"#
    )
}

/// A folder with that configuration and the credentials in its environment.
pub fn home(server: &Seaweed, prefix: &str) -> Home {
    let mut home = Home::with(&config(server, prefix));
    home.env("CLOUD_ACCESS_KEY_ID", &server.access_key);
    home.env("CLOUD_SECRET_ACCESS_KEY", &server.secret_key);
    home
}
