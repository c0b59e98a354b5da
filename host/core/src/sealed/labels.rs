//! Labels of a sealed object: one label that holds all of them, and the base of the object.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::format::{Header, KEY_ID, ObjectKey, SALT};
use super::keys::Keyring;
use crate::types::{Error, ObjectId, Result};

/// The name of the label.
const LABEL: &str = "tidelock-sealed";

/// The longest name of a base that is kept.
const LONGEST_BASE: usize = 512;

/// What is in it.
#[derive(Serialize, Deserialize)]
struct Content {
    labels: Vec<(String, String)>,
    base: Option<String>,
}

/// Seals labels. The value is the number of the key, the salt of the object, and the sealed JSON, in base64url.
pub(super) fn seal(
    labels: &[(String, String)],
    base: Option<&ObjectId>,
    header: &Header,
    keys: &Keyring,
) -> Result<(String, String)> {
    // Servers bound what they keep with an object, S3 at 2 KiB. The snapshot that is the base is among the labels.
    let base = base.filter(|base| base.as_str().len() <= LONGEST_BASE);
    let content = Content { labels: labels.to_vec(), base: base.map(|base| base.as_str().to_owned()) };
    let mut bytes = [&header.key[..], &header.salt].concat();
    let from = bytes.len();
    serde_json::to_writer(&mut bytes, &content)
        .map_err(|error| Error::other("labels cannot be written").with_source(error))?;
    keys.label_key(header)?.seal(0, true, &mut bytes, from)?;
    Ok((LABEL.to_owned(), BASE64URL_NOPAD.encode(&bytes)))
}

/// The sealed labels among those of an object.
pub(super) fn sealed_in(labels: &[(String, String)]) -> Option<&str> {
    labels.iter().find(|(name, _)| name == LABEL).map(|(_, value)| value.as_str())
}

/// Labels, and the base of the object.
pub(super) type Opened = (Vec<(String, String)>, Option<ObjectId>);

/// Opens labels. `None` if they are damaged: like any other labels, they are lost then.
///
/// # Errors
/// `denied` if the key is not here that they name.
pub(super) fn open(value: &str, keys: &Keyring) -> Result<Option<Opened>> {
    let Some((header, sealed)) = split(value) else { return Ok(None) };
    Ok(opened(sealed, &keys.label_key(&header)?))
}

fn split(value: &str) -> Option<(Header, Vec<u8>)> {
    let bytes = BASE64URL_NOPAD.decode(value.as_bytes()).ok()?;
    let (key, rest) = bytes.split_first_chunk::<KEY_ID>()?;
    let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
    Some((Header { key: *key, salt: *salt }, sealed.to_vec()))
}

fn opened(mut sealed: Vec<u8>, key: &ObjectKey) -> Option<Opened> {
    let content = key.open(0, true, &mut sealed)?.to_vec();
    let Content { labels, base } = serde_json::from_slice(&content).ok()?;
    Some((labels, base.and_then(|base| ObjectId::new(base).ok())))
}
