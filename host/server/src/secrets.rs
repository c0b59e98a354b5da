//! Secrets in files: read only if they are for their owner and perhaps a group. Messages name the file, never its content.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use tidelock::types::{Error, Result};

/// The most bytes of a file with a secret: generous for any token.
const LARGEST: u64 = 64 << 10;

/// The fewest bytes of a token that clients send. 16 random bytes as text have more.
const SHORTEST_TOKEN: usize = 16;

/// What others may not do with a file of secrets: everything, but that a group may read it. Kubernetes mounts secrets for a
/// user that does not own them so (`defaultMode: 0440` and `fsGroup`).
const FORBIDDEN: u32 = 0o037;

/// Reads a file that only its owner and its group can read. The hint is for a file that cannot be read at all.
///
/// # Errors
/// `invalid`, whatever is wrong: the user has named a file that will not do.
pub fn read_private(path: &Path, hint: &str) -> Result<Zeroizing<String>> {
    let shown = path.display();
    // Whatever it is, the user has named a file that will not do.
    let fail =
        |error| Error::invalid(Error::io(format_args!("credentials: {shown}"), error).message()).hint(hint.to_owned());
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.mode() & FORBIDDEN != 0 {
        return Err(Error::invalid(format!("{shown} contains credentials and is readable by other users"))
            .hint(format!("chmod 600 {shown}; of a secret of Kubernetes, set defaultMode to 0440")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LARGEST {
        return Err(Error::invalid(format!("{shown} has more than 64 KiB and cannot contain credentials")));
    }
    Ok(text)
}

/// The token in a file, without the space around it.
///
/// # Errors
/// As [`read_private`]; `invalid` for a token that cannot be sent in a header, or could be guessed.
pub fn read_token(path: &Path) -> Result<Zeroizing<String>> {
    let hint = "create a random one: (umask 077; head -c 32 /dev/urandom | base64 >FILE)";
    let text = read_private(path, hint)?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN {
        let what = format!("{}: a token must have at least {SHORTEST_TOKEN} characters", path.display());
        return Err(Error::invalid(what).hint(hint));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("{}: a token must be ASCII without spaces", path.display());
        return Err(Error::invalid(what).hint(hint));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// The digest with which a token is compared. Comparing digests takes constant time (`blake3::Hash` ensures
/// that), and does not reveal the token's length.
pub(super) struct Token(blake3::Hash);

impl Token {
    /// Of a token.
    pub(super) fn new(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// Returns whether this is it.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0 == blake3::hash(given)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_private_long_and_plain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let with = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_token(&path)
        };
        assert_eq!(with(" 0123456789abcdef\n", 0o600).unwrap().as_str(), "0123456789abcdef");
        assert_eq!(with("0123456789abcdef", 0o440).unwrap().as_str(), "0123456789abcdef");
        for (text, mode, says) in [
            ("0123456789abcdef", 0o644, "other users"),
            ("0123456789abcdef", 0o660, "other users"),
            ("0123456789abcde\n", 0o600, "16 characters"),
            ("", 0o600, "16 characters"),
            ("01234567 89abcdef", 0o600, "spaces"),
        ] {
            let error = with(text, mode).unwrap_err();
            assert!(error.to_string().contains(says) && error.advice().is_some(), "{error:?}");
            assert!(!format!("{error:?}").contains("89abcde"), "{error:?}");
        }
    }

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("0123456789abcdef");
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef ", b"0123456789abcdeg"] {
            assert!(!token.is(wrong));
        }
    }
}
