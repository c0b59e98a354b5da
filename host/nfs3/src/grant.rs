//! Permission to use the files of an NFSv3 export.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use tidelock_types::{Error, Result};

/// The port on which NFS servers listen.
const PORT: u16 = 2049;
/// The longest path of an export (`MNTPATHLEN`, RFC 1813).
const LONGEST_EXPORT: usize = 1024;

/// Permission to use the files of an NFSv3 export, without a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsGrant {
    /// The server's name or address.
    pub host: String,
    /// The port of NFS.
    pub port: u16,
    /// The port of the mount protocol. `None`: query the port mapper on port 111.
    pub mount_port: Option<u16>,
    /// The path under which the server exports it, from `/`.
    pub export: String,
    /// On whose behalf. `None`: this process's effective user and groups.
    pub user: Option<NfsUser>,
    /// The longest time for making a connection.
    pub connect_timeout: Duration,
    /// The longest time for the answer to a call.
    pub stall_timeout: Duration,
    /// How long a server that answered a moment ago and is gone now is waited for.
    pub patience: Duration,
    /// How long a temporary file of which nothing is heard is left alone: its writer may be cut off from the server.
    pub lease: Duration,
}

/// A user by its numeric ids. The server trusts them, or maps them (`squash`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NfsUser {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl NfsGrant {
    /// The grant of a URL `nfs://HOST[:PORT]/EXPORT[?uid=N&gid=N]`: port 2049, 10 s to connect, 30 s to answer, 10 s to
    /// come back, and a lease of 15 minutes.
    ///
    /// # Errors
    /// `invalid`, with the invalid part of the URL.
    pub fn parse(url: &str, mount_port: Option<u16>) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("the NFS URL {why}")).hint("write \"nfs://host:2049/export\"");
        let url = Url::parse(url).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        if url.scheme() != "nfs" || !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(wrong("is not an nfs:// URL"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host"))?;
        let export = percent_decode_str(url.path()).decode_utf8().map_err(|_| wrong("has a path that is not UTF-8"))?;
        if export.len() < 2 || export.len() > LONGEST_EXPORT || export.contains('\0') {
            return Err(wrong("has no export"));
        }
        Ok(Self {
            // The brackets of an IPv6 address belong to the URL.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(PORT),
            mount_port,
            export: export.into_owned(),
            user: user(&url)?,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            lease: Duration::from_secs(15 * 60),
        })
    }
}

fn user(url: &Url) -> Result<Option<NfsUser>> {
    let (mut uid, mut gid) = (None, None);
    for (key, value) in url.query_pairs() {
        let place = match key.as_ref() {
            "uid" => &mut uid,
            "gid" => &mut gid,
            _ => return Err(Error::invalid("the NFS URL has a parameter other than `uid` and `gid`")),
        };
        let number = value.parse::<u32>();
        *place = Some(number.map_err(|_| Error::invalid(format!("the NFS URL: {key} is not a number")))?);
    }
    match (uid, gid) {
        (None, None) => Ok(None),
        (Some(uid), gid) => Ok(Some(NfsUser { uid, gid: gid.unwrap_or(uid) })),
        (None, Some(_)) => Err(Error::invalid("the NFS URL has a `gid` without a `uid`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let grant = NfsGrant::parse("nfs://127.0.0.1:12049/srv/vm%20images?uid=1000&gid=100", Some(20048)).unwrap();
        assert_eq!((grant.host.as_str(), grant.port, grant.mount_port), ("127.0.0.1", 12049, Some(20048)));
        assert_eq!((grant.export.as_str(), grant.user), ("/srv/vm images", Some(NfsUser { uid: 1000, gid: 100 })));
        let grant = NfsGrant::parse("nfs://[::1]/e", None).unwrap();
        assert_eq!((grant.host.as_str(), grant.port, grant.user), ("::1", 2049, None));
        for wrong in [
            "http://h/e",
            "nfs://h",
            "nfs://h/",
            "nfs:///e",
            "nfs://u@h/e",
            "nfs://h/e?x=1",
            "nfs://h/e?uid=a",
            "nfs://h/e?gid=1",
            "nfs://h/e%00",
            "x",
        ] {
            assert!(NfsGrant::parse(wrong, None).is_err(), "{wrong}");
        }
    }
}
