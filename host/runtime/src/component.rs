//! A component as it is loaded: its bytes, and detached signatures.
//!
//! Signatures are detached: they are beside the file as `FILE.wasm.sig` and are sent over HTTP in a header, so that a
//! component is the same bytes with or without them, and a key can be added or retired without a new build.
//! Where a host picks components up automatically, put the signatures there first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt as _;

use super::digest::ComponentDigest;
use super::signature::{MAX_SIGNATURE_BYTES, Signature, parse_signatures};
use tidelock_types::{Error, Result, format_bytes};

/// The most bytes that a component may have. The largest that are known, with a Python interpreter in them, have 40 MiB.
pub const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// A component and its signatures. Nothing about either has been checked.
#[derive(Debug, Clone, Default)]
pub struct Component {
    /// The component, in the binary format.
    pub bytes: Vec<u8>,
    /// Its signatures; may be empty, and may be of untrusted keys.
    pub signatures: Vec<Signature>,
}

impl From<Vec<u8>> for Component {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, signatures: Vec::new() }
    }
}

impl From<&[u8]> for Component {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl Component {
    /// Reads a component and, if there is one beside it, its file of signatures.
    ///
    /// # Errors
    /// Errors of the file system; `invalid` for a file that is too large, and for a malformed file of signatures: it
    /// does not count as having none.
    pub async fn read(path: &Path) -> Result<Self> {
        let bytes = bounded(path, MAX_COMPONENT_BYTES, "it is not an adapter").await?;
        let beside = signatures_beside(path);
        let signatures = match bounded(&beside, MAX_SIGNATURE_BYTES, "a signature file is smaller").await {
            Ok(text) => parse_signatures(&text).map_err(|error| {
                let named = Error::invalid(format!("{}: {}", beside.display(), error.message()));
                error.advice().map_or_else(|| named.duplicate(), |hint| named.duplicate().hint(hint))
            })?,
            Err(error) if *error.kind() == tidelock_types::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { bytes, signatures })
    }

    /// The SHA-256 of the bytes.
    pub fn digest(&self) -> ComponentDigest {
        ComponentDigest::of(&self.bytes)
    }
}

/// Where the signatures of a component file are: its path with `.sig` behind it.
pub fn signatures_beside(component: &Path) -> PathBuf {
    let mut path = OsString::from(component);
    path.push(".sig");
    path.into()
}

async fn bounded(path: &Path, most: u64, otherwise: &str) -> Result<Vec<u8>> {
    let fail = |error| Error::io(path.display(), error);
    let file = tokio::fs::File::open(path).await.map_err(fail)?;
    if file.metadata().await.map_err(fail)?.is_dir() {
        return Err(Error::invalid(format!("{} is a directory", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).await.map_err(fail)?;
    if bytes.len() as u64 > most {
        let what = format!("{} has more than {}: {otherwise}", path.display(), format_bytes(most));
        return Err(Error::invalid(what));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SecretKey;

    #[tokio::test]
    async fn signatures_lie_beside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        std::fs::write(&file, b"bytes").unwrap();
        let unsigned = Component::read(&file).await.unwrap();
        assert_eq!((unsigned.bytes.as_slice(), unsigned.signatures.len()), (&b"bytes"[..], 0));
        let signature = SecretKey::generate().unwrap().sign(unsigned.digest());
        std::fs::write(dir.path().join("a.wasm.sig"), format!("# by me\n{signature}\n")).unwrap();
        assert_eq!(Component::read(&file).await.unwrap().signatures, [signature]);
    }

    #[tokio::test]
    async fn signatures_that_cannot_be_read_are_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sig) = (dir.path().join("a.wasm"), dir.path().join("a.wasm.sig"));
        std::fs::write(&file, b"bytes").unwrap();
        for (text, says) in [(b"nonsense".to_vec(), "line 1"), (vec![b'#'; 1 << 20], "more than")] {
            std::fs::write(&sig, text).unwrap();
            let error = Component::read(&file).await.unwrap_err().to_string();
            assert!(error.contains("a.wasm.sig") && error.contains(says), "{error}");
        }
        std::fs::remove_file(&sig).unwrap();
        std::fs::create_dir(&sig).unwrap();
        assert!(Component::read(&file).await.unwrap_err().to_string().contains("directory"));
    }
}
