//! `tidelock adapter keygen`, `sign`, `verify` and `embed`: for publishers of components, and for operators who verify
//! them by hand.
//!
//! A secret key is in one file that only its owner can read. It is never printed, and its text is wiped from memory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::arguments::{Embed, Keygen, Sign, VerifyComponent};
use super::credentials;
use super::failure::Failure;
use super::input;
use super::output;
use super::session::Session;
use tidelock::runtime::manifest::{MAX_MANIFEST_BYTES, embed_manifest};
use tidelock::runtime::{Component, ComponentDigest, SecretKey, Signature, Trust, signatures_beside};
use tidelock::types::{Error, PublicKey, Result as Outcome};

#[derive(Serialize)]
struct Made<'a> {
    key: String,
    file: &'a Path,
}

pub(super) fn keygen(arguments: &Keygen, session: &Session) -> Result<(), Failure> {
    let key = SecretKey::generate()?;
    let path = &arguments.file;
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let hint = "choose another file, or move this one away: a lost key cannot be recreated";
            Failure::input(Error::invalid(format!("{} already exists", path.display())).hint(hint))
        }
        _ => Failure::input(Error::io(path.display(), error)),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    let head = format!("# A secret key for signing tidelock adapters. Its public key is {}\n", key.public());
    let text = key.to_text();
    let written = [head.as_bytes(), text.as_bytes(), b"\n"].iter().try_for_each(|part| file.write_all(part));
    written.and_then(|()| file.sync_all()).map_err(fail)?;
    let made = Made { key: key.public().to_string(), file: path };
    if session.json { output::object(&made) } else { output::line(&made.key) }
}

#[derive(Serialize)]
struct Signed {
    digest: String,
    key: String,
    file: PathBuf,
}

pub(super) async fn sign(arguments: &Sign, session: &Session) -> Result<(), Failure> {
    let component = input::component(&arguments.component.file).await?;
    let digest = component.digest();
    let text = credentials::secret(&arguments.key, "create a key with `tidelock adapter keygen FILE`")?;
    let named = |error: Error| {
        Error::invalid(format!("{}: {}", arguments.key.display(), error.message()))
            .hint(error.advice().unwrap_or_default())
    };
    let signature = SecretKey::from_text(&text).map_err(named)?.sign(digest);
    // Signatures of the file's previous content are useless.
    let mut all: Vec<Signature> = component.signatures.into_iter().filter(|one| one.verifies(digest)).collect();
    let key = signature.key.to_string();
    if !all.contains(&signature) {
        all.push(signature);
    }
    let file = signatures_beside(&arguments.component.file);
    let lines: String = all.iter().map(|one| format!("{one}\n")).collect();
    replace(&file, format!("# of {digest}\n{lines}").as_bytes())?;
    let signed = Signed { digest: digest.to_string(), key, file };
    if session.json { output::object(&signed) } else { output::line(signed.file.display()) }
}

#[derive(Serialize)]
struct Verified {
    digest: String,
    signed_by: String,
}

pub(super) async fn verify(arguments: &VerifyComponent, session: &Session) -> Result<(), Failure> {
    let component = input::component(&arguments.component.file).await?;
    let signed_by: Vec<(String, PublicKey)> = if arguments.key.is_empty() {
        session.config()?.trust.keys.into_iter().collect()
    } else {
        arguments.key.iter().map(|key| (key.to_string(), *key)).collect()
    };
    if signed_by.is_empty() {
        let hint = "name one with --key ed25519:…, or add it to [trust.keys] of the configuration";
        return Err(Failure::usage("no key to verify with", hint));
    }
    let trust = Trust { signed_by, ..Trust::default() };
    let digest = trust.check(&component)?;
    let signed_by = trust.signer(digest, &component.signatures).unwrap_or_default().to_owned();
    let verified = Verified { digest: digest.to_string(), signed_by };
    if session.json {
        return output::object(&verified);
    }
    output::line(format_args!("{} is signed by {}", verified.digest, verified.signed_by))
}

#[derive(Serialize)]
struct Embedded<'a> {
    digest: String,
    bytes: usize,
    file: &'a Path,
}

pub(super) async fn embed(arguments: &Embed, session: &Session) -> Result<(), Failure> {
    let Component { bytes, .. } = input::component(&arguments.component.file).await?;
    let shown = arguments.manifest.display();
    let text = {
        use std::io::Read as _;
        let fail = |error| Failure::input(Error::io(&shown, error));
        let mut text = Vec::new();
        let file = File::open(&arguments.manifest).map_err(fail)?;
        file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut text).map_err(fail)?;
        text
    };
    let named = |error: Error| {
        Error::invalid(format!("{shown}: {}", error.message())).hint(error.advice().unwrap_or("see docs/formats.md"))
    };
    let with = embed_manifest(&bytes, &text).map_err(named)?;
    let file = arguments.output.as_ref().unwrap_or(&arguments.component.file);
    replace(file, &with)?;
    let embedded = Embedded { digest: ComponentDigest::of(&with).to_string(), bytes: with.len(), file };
    if session.json { output::object(&embedded) } else { output::line(&embedded.digest) }
}

/// Writes a file that appears whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".tmp").tempfile_in(folder)?;
        // A component and its signatures are not secret: readable like any created file.
        rustix::fs::fchmod(file.as_file(), rustix::fs::Mode::from_raw_mode(0o644))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error: std::io::Error| Error::io(path.display(), error))
}
