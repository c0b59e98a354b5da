//! Access outside of grants: origins, addresses, headers, files, keys, grants.

use std::path::PathBuf;

use crate::arena::{Arena, Attack};

pub fn attacks() -> Vec<Attack> {
    let denied = |says| ("denied", says);
    let invalid = |says| ("invalid", says);
    let get = |name, target, ends| Attack::store(name, "reach-url", "", ends).at(target).then(unreached);
    let header = |name, target, ends| Attack::store(name, "reach-header", "", ends).at(target).then(unreached);
    let read = |name, target, ends| Attack::store(name, "reach-read", "", ends).at(target);
    vec![
        // The granted server by another name, and another server of the granted host.
        get(
            "an_origin_that_was_not_granted",
            "http://localhost:{port}/unsent",
            denied("not among the grant's origins"),
        ),
        get("another_port_of_a_granted_host", "{outside}/unsent", denied("not among the grant's origins")),
        get("a_metadata_address", "http://169.254.169.254/latest/", denied("not among the grant's origins")),
        get("a_granted_host_as_user_name", "http://nowhere.invalid@{outside_host}/unsent", invalid("credentials")),
        get("a_file_as_url", "file:///etc/passwd", invalid("neither http: nor https:")),
        Attack::store("a_redirect_out_of_the_grant", "reach-redirect", "", denied("not among the grant's origins"))
            .at("{server}/redirect?{outside}/unsent")
            .then(unreached),
        header("a_smuggled_host", "{server}/unsent Host=metadata", invalid("is reserved")),
        header("a_smuggled_length", "{server}/unsent content-length=0", invalid("is reserved")),
        header("a_smuggled_encoding", "{server}/unsent Transfer-Encoding=chunked", invalid("is reserved")),
        header("a_smuggled_credential", "{server}/unsent Authorization=Bearer mine", invalid("is reserved")),
        header("a_line_break_in_a_header", "{server}/unsent x=aCRLFx-smuggled: b", invalid("control characters")),
        header("a_line_break_in_a_name", "{server}/unsent xCRLFx-smuggled=b", invalid("not the name of a header")),
        header("a_zero_in_a_header", "{server}/unsent x=aNULb", invalid("control characters")),
        read("a_path_that_climbs", "../good/x", denied("leads out of the directory")),
        read("a_path_that_climbs_from_below", "a/../../good/x", denied("leads out of the directory")),
        read("an_absolute_path", "/etc/passwd", denied("leads out of the directory")),
        read("a_path_with_a_backslash", "..\\good", ("denied|invalid|not-found", "")),
        read("a_link_out_of_the_directory", "way-out", denied("a path led outside")),
        read("a_directory_link_out_of_the_directory", "way-up/data/catalogue.sqlite", denied("a path led outside")),
        Attack::store("a_write_out_of_the_directory", "reach-write", "", denied("leads out of the directory"))
            .at("../good/planted")
            .then(unplanted),
        Attack::store("a_write_through_a_link", "reach-write", "", denied("a path led outside"))
            .at("way-up/planted")
            .then(unplanted),
        Attack::store("a_removal_through_a_link", "reach-remove", "", denied("a path led outside"))
            .at("way-up/kept")
            .then(kept),
        Attack::store("a_list_through_a_link", "reach-list", "", denied("a path led outside")).at("way-up"),
        Attack::store("unfinished_files_of_others", "reach-list", "", ("denied|invalid", "")).at(".tmp"),
        Attack::store("a_grant_that_is_not_there", "reach-grant", "", denied("`secrets`")),
        Attack::store("a_key_of_another_backend", "reach-key", "", denied("leads out of the grant's prefix"))
            .at("../good/x")
            .then(unreached),
        Attack::store("a_copy_from_another_backend", "reach-copy", "", denied("leads out of the grant's prefix"))
            .at("../good/x")
            .then(unreached),
        Attack::store(
            "a_request_that_never_ends",
            "reach-send",
            "request_bytes = '1 MiB'",
            ("limit", "limit: request bytes 1 MiB"),
        )
        .at("{server}/sink"),
    ]
}

/// The server that is granted was not asked for anything that only these attacks ask for, and the one that is not for
/// nothing at all.
fn unreached(arena: &Arena) -> Result<(), String> {
    let unsent = |head: &&String| {
        ["unsent", "smuggled", "good/x"]
            .iter()
            .any(|what| head.lines().any(|line| !line.starts_with("GET /redirect?") && line.contains(what)))
    };
    let (granted, outside) = (arena.server.requests(), arena.outside.requests());
    match granted.iter().find(unsent).or(outside.first()) {
        Some(request) => Err(format!("a server got {request}")),
        None => Ok(()),
    }
}

fn unplanted(arena: &Arena) -> Result<(), String> {
    let found = tidelock_tests::program::files(arena.dir.path());
    match found.into_iter().find(|path| path.ends_with("planted")) {
        Some(path) => Err(format!("{} was written", path.display())),
        None => Ok(()),
    }
}

fn kept(arena: &Arena) -> Result<(), String> {
    if lure(arena).exists() { Ok(()) } else { Err("a file outside of the grant is gone".into()) }
}

/// A file outside of every grant.
pub fn lure(arena: &Arena) -> PathBuf {
    arena.dir.path().join("kept")
}
