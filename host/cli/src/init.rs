//! `tidelock init`: a configuration that documents itself.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

use super::arguments::Init;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::config::commented_default;
use tidelock::types::Error;

#[derive(Serialize)]
struct Written<'a> {
    config: &'a Path,
}

pub(super) fn run(arguments: &Init, session: &Session) -> Result<(), Failure> {
    let path = session.config_file();
    write(path, arguments.force)?;
    if session.json {
        return output::object(&Written { config: path });
    }
    output::line(format_args!("wrote {}; its comments document every key", path.display()))
}

/// The file appears whole or not at all, and never in the place of another unless that is wanted.
fn write(path: &Path, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    let fail = |error| Failure::input(Error::io(format_args!("cannot write {shown}"), error));
    if path.is_dir() {
        return Err(Failure::usage(format!("{shown} is a directory"), "name a file in the directory"));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".tidelock-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(fail)?;
    file.write_all(commented_default().as_bytes()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    if force {
        return file.persist(path).map(drop).map_err(|refused| fail(refused.error));
    }
    file.persist_noclobber(path).map(drop).map_err(|refused| match refused.error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::usage(
            format!("{shown} already exists"),
            "overwrite it with --force, or name another with --config",
        ),
        _ => fail(refused.error),
    })
}
