//! Where the secrets of grants come from: environment variables and files that only their owner and its group can read.
//!
//! Messages name the variable or the file, and in a file the line, never its content: a malformed line may be the secret
//! itself.

use std::ffi::OsString;
use std::path::Path;

use zeroize::Zeroizing;

use tidelock::Secrets;
use tidelock::capabilities::grant::{BucketCredentials, Proxies, Secret};
use tidelock::config::CredentialRef;
use tidelock::types::{Error, Result};
pub(super) use tidelock_server::secrets::read_private as secret;

/// Resolves references with the environment and the files of this process.
pub(super) struct Credentials {
    variable: fn(&str) -> Option<OsString>,
}

impl Credentials {
    /// The environment of this process.
    pub(super) fn of_process() -> Self {
        Self { variable: |name| std::env::var_os(name) }
    }

    fn optional(&self, name: &str) -> Result<Option<Zeroizing<String>>> {
        match (self.variable)(name).map(OsString::into_string) {
            Some(Ok(text)) if !text.is_empty() => Ok(Some(Zeroizing::new(text))),
            Some(Err(_)) => Err(Error::invalid(format!("the environment variable {name} is not valid UTF-8"))),
            _ => Ok(None),
        }
    }

    fn needed(&self, name: &str) -> Result<Zeroizing<String>> {
        self.optional(name)?.ok_or_else(|| {
            Error::invalid(format!("the environment variable {name} is not set"))
                .hint(format!("set {name}, which the configuration names for credentials"))
        })
    }
}

impl Secrets for Credentials {
    fn bucket(&self, reference: &CredentialRef) -> Result<BucketCredentials> {
        match reference {
            CredentialRef::Env(name) => Ok(BucketCredentials {
                access_key: self.needed(&format!("{name}_ACCESS_KEY_ID"))?.to_string(),
                secret_key: Secret::new(self.needed(&format!("{name}_SECRET_ACCESS_KEY"))?.as_str()),
                session_token: self.optional(&format!("{name}_SESSION_TOKEN"))?.map(|text| Secret::new(text.as_str())),
            }),
            CredentialRef::File(path) => keys(path, &read(path)?),
        }
    }

    fn http(&self, reference: &CredentialRef) -> Result<Secret> {
        match reference {
            CredentialRef::Env(name) => Ok(Secret::new(self.needed(name)?.as_str())),
            CredentialRef::File(path) => match read(path)?.trim() {
                "" => Err(Error::invalid(format!("{}: contains no secret", path.display()))),
                secret => Ok(Secret::new(secret)),
            },
        }
    }

    fn encryption_key(&self, reference: &CredentialRef) -> Result<Secret> {
        match reference {
            CredentialRef::Env(name) => Ok(Secret::new(self.needed(name)?.as_str())),
            CredentialRef::File(path) => {
                let hint = "make a key with `openssl rand -hex 32`, and keep a copy: without it nothing can be read";
                Ok(Secret::new(secret(path, hint)?.as_str()))
            }
        }
    }

    /// `https_proxy` for https and `http_proxy` for http, else `all_proxy`, less `no_proxy`; in capitals too, save
    /// `HTTP_PROXY`, which a web server sets from a header of a request (CVE-2016-5385).
    fn proxies(&self) -> Result<Proxies> {
        let no_proxy = self.either(&["no_proxy", "NO_PROXY"])?;
        let no_proxy = no_proxy.map(|hosts| format!("{},", hosts.as_str())).unwrap_or_default();
        Ok(Proxies {
            http: self.proxy(&["http_proxy", "all_proxy", "ALL_PROXY"])?,
            https: self.proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            no_proxy: format!("{no_proxy}{NEVER_PROXIED}"),
        })
    }
}

/// This machine is never reached through a proxy that the environment names.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

impl Credentials {
    /// The first of these variables that is set, in lower or upper case.
    fn either(&self, names: &[&str]) -> Result<Option<Zeroizing<String>>> {
        for name in names {
            if let Some(text) = self.optional(name)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn proxy(&self, names: &[&str]) -> Result<Option<Secret>> {
        let Some(text) = self.either(names)? else { return Ok(None) };
        // As curl takes it: a host without a scheme.
        let url = if text.contains("://") { text } else { Zeroizing::new(format!("http://{}", text.as_str())) };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let names = names.join(", ");
            return Err(Error::invalid(format!(
                "the environment ({names}) names a proxy that is not http:// or https://"
            ))
            .hint("set `proxy` in the grant, to a URL or to \"none\""));
        }
        Ok(Some(Secret::new(url.as_str())))
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    secret(path, "put the credentials into this file, or name another in the configuration")
}

/// `access_key_id=…`, `secret_access_key=…` and perhaps `session_token=…`, also with `aws_` before the names and below
/// one heading, as in `~/.aws/credentials`.
fn keys(path: &Path, text: &str) -> Result<BucketCredentials> {
    let shown = path.display();
    let hint = "write lines access_key_id=…, secret_access_key=… and, if needed, session_token=…";
    let (mut access, mut secret, mut session, mut headings) = (None, None, None, 0);
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') && line.ends_with(']') {
            headings += 1;
            continue;
        }
        let (key, value) = line.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
        let place = match key.strip_prefix("aws_").unwrap_or(key) {
            "access_key_id" => &mut access,
            "secret_access_key" => &mut secret,
            "session_token" => &mut session,
            _ => return Err(Error::invalid(format!("{shown}: line {number} has an unknown key")).hint(hint)),
        };
        if place.replace(value).is_some() || headings > 1 {
            return Err(Error::invalid(format!("{shown}: line {number} has a duplicate key"))
                .hint("keep one set of keys per file"));
        }
    }
    let needed = |value: Option<&'_ str>, name: &str| {
        value
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Error::invalid(format!("{shown}: {name} is missing")).hint(hint))
    };
    Ok(BucketCredentials {
        access_key: needed(access, "access_key_id")?,
        secret_key: Secret::new(needed(secret, "secret_access_key")?),
        session_token: session.filter(|token| !token.is_empty()).map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn with(variable: fn(&str) -> Option<OsString>) -> Credentials {
        Credentials { variable }
    }

    fn file(dir: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = dir.path().join("keys");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_bucket_has_three_variables_and_a_header_one() {
        let env = with(|name| match name {
            "CLOUD_ACCESS_KEY_ID" => Some("AK".into()),
            "CLOUD_SECRET_ACCESS_KEY" => Some("SK".into()),
            "TOKEN" => Some("Bearer x".into()),
            _ => None,
        });
        let found = env.bucket(&CredentialRef::Env("CLOUD".into())).unwrap();
        assert_eq!((found.access_key.as_str(), found.secret_key.expose()), ("AK", "SK"));
        assert!(found.session_token.is_none());
        assert_eq!(env.http(&CredentialRef::Env("TOKEN".into())).unwrap().expose(), "Bearer x");
    }

    #[test]
    fn proxies_are_those_of_curl() {
        let env = with(|name| match name {
            "HTTPS_PROXY" => Some("proxy.example:3128".into()),
            "HTTP_PROXY" => Some("http://from-a-header:1".into()),
            "NO_PROXY" => Some("internal.example".into()),
            _ => None,
        });
        let found = env.proxies().unwrap();
        assert_eq!(found.https.unwrap().expose(), "http://proxy.example:3128");
        assert!(found.http.is_none());
        assert_eq!(found.no_proxy, "internal.example,localhost,127.0.0.0/8,::1");
        let error = with(|name| (name == "all_proxy").then(|| "socks5://u:hush@p:1".into())).proxies().unwrap_err();
        assert!(error.to_string().contains("all_proxy") && !format!("{error:?}").contains("hush"), "{error:?}");
        assert!(with(|_| None).proxies().unwrap().is_none());
    }

    #[test]
    fn a_missing_credential_is_named() {
        let env = with(|name| (name == "CLOUD_ACCESS_KEY_ID").then(|| "AK".into()));
        let error = env.bucket(&CredentialRef::Env("CLOUD".into())).unwrap_err();
        assert_eq!(error.to_string(), "the environment variable CLOUD_SECRET_ACCESS_KEY is not set");
        let error = env.http(&CredentialRef::File("/nonexistent/token".into())).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/token"), "{error}");
        assert_eq!(error.kind().name(), "invalid");
    }

    #[test]
    fn a_file_has_lines_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "access_key_id=AK\nsecret_access_key=S=K=\n",
            "# mine\n[default]\naws_access_key_id = AK\naws_secret_access_key = S=K=\n",
        ] {
            let found = with(|_| None).bucket(&CredentialRef::File(file(&dir, text, 0o600))).unwrap();
            assert_eq!((found.access_key.as_str(), found.secret_key.expose()), ("AK", "S=K="));
        }
    }

    #[test]
    fn the_error_of_a_credential_file_does_not_quote_it() {
        let dir = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("hush\n", "line 1"),
            ("access_key_id=AK\nhush=hush\n", "line 2"),
            ("access_key_id=hush\n", "secret_access_key"),
            ("access_key_id=hush\naccess_key_id=hush\n", "duplicate key"),
            ("", "access_key_id"),
        ] {
            let error = with(|_| None).bucket(&CredentialRef::File(file(&dir, text, 0o600))).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o604, 0o660, 0o644, 0o620] {
            let error = with(|_| None).http(&CredentialRef::File(file(&dir, "hush", mode))).unwrap_err();
            assert!(error.advice().unwrap().starts_with("chmod 600 "), "{error:?}");
        }
        for mode in [0o400, 0o440, 0o640] {
            let found = with(|_| None).http(&CredentialRef::File(file(&dir, "hush\n", mode))).unwrap();
            assert_eq!(found.expose(), "hush");
        }
        assert!(with(|_| None).http(&CredentialRef::File(file(&dir, " \n", 0o600))).is_err());
    }
}
