//! `tidelock retrieve`: from an id to an image.
//!
//! A file appears whole or not at all: the bytes go to a temporary file beside it, which takes its place once the last
//! of them was checked and is on disk. Everything else (standard output, a pipe, a device) gets the bytes as they
//! come; each was checked before.
//!
//! A hot image is copied into the file by all processors, or cloned where the file system can share bytes.
//!
//! A restore is requested for a snapshot in cold storage, and then waited for (`--wait`) or left to a later command.
//!
//! Writing has its own thread, so that neither a slow reader nor a slow disk delays the handling of signals.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::arguments::Retrieve;
use super::console::{Bar, Console};
use super::failure::Failure;
use super::session::Session;
use super::sink::Sink;
use super::{input, output};
use tidelock::types::{ArchiveState, Body, ByteRange, Error, ErrorKind, SnapshotId, format_duration};
use tidelock::{CopiedOut, Host, Image, Retrieved};

/// How often a restore is waited for before it is left to a later call.
const RESTORES: u32 = 3;
/// Chunks that wait to be written.
const AHEAD: usize = 4;

#[derive(Serialize)]
struct Report {
    id: SnapshotId,
    size: u64,
    source: String,
    seconds: f64,
}

pub(super) async fn run(arguments: Retrieve, session: &Session) -> Result<(), Failure> {
    let began = Instant::now();
    let to = destination(arguments.output.as_deref(), session.json, output::is_terminal())?;
    let host = session.open_existing().await?;
    let image = host.open(host.find(&arguments.id).await?).await?;
    let (to, size) = (to.map(Path::to_owned), length(image.size(), arguments.range)?);
    // A pipe waits for its reader; signals are handled meanwhile.
    let opened = spawn_blocking(move || Sink::open(to.as_deref(), size)).await;
    let sink = opened.map_err(|error| Error::other("opening the output was interrupted").with_source(error))??;
    let mut sink = sink;
    if let (None, Some(file)) = (arguments.range, sink.file()) {
        let bar = session.console.bar("retrieving", Some(size));
        if let Some(CopiedOut { source, .. }) = image.copy_out(file, bar.progress()).await? {
            sink.filled(size);
            drop(bar);
            finish(sink).await?;
            return answer(&Report { id: image.id(), size, source, seconds: began.elapsed().as_secs_f64() }, session);
        }
    }
    let retrieved = match image.stream(arguments.range).await {
        Err(error) if arguments.wait && is_restoring(&error) => {
            restored(&host, &image, arguments.range, error, &session.console).await?
        }
        outcome => outcome?,
    };
    let (id, size, source) = (retrieved.id, retrieved.size, retrieved.source);
    let bar = session.console.bar("retrieving", Some(size));
    write(retrieved.body, sink, &bar).await?;
    drop(bar);
    answer(&Report { id, size, source, seconds: began.elapsed().as_secs_f64() }, session)
}

fn answer(report: &Report, session: &Session) -> Result<(), Failure> {
    if session.json { output::object(report) } else { Ok(()) }
}

/// Makes what was written durable and visible.
async fn finish(sink: Sink) -> Result<(), Failure> {
    spawn_blocking(move || sink.finish()).await.map_err(stopped)?
}

fn stopped(error: tokio::task::JoinError) -> Error {
    Error::other("the write was interrupted").with_source(error)
}

/// The bytes that are asked for.
fn length(size: u64, range: Option<ByteRange>) -> Result<u64, Failure> {
    Ok(range.unwrap_or_default().within(size)?.1)
}

fn is_restoring(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Archived(ArchiveState::Restoring(_) | ArchiveState::Readable(_)))
}

/// Waits for the restore that an error announces, and opens the snapshot. A restored snapshot is readable for a limited
/// time only, and may be cold again by then: the restore may have to be requested again.
async fn restored(
    host: &Host,
    image: &Image,
    range: Option<ByteRange>,
    mut error: Error,
    console: &Console,
) -> Result<Retrieved, Failure> {
    for _ in 0..RESTORES {
        console.note(&error.to_string());
        let began = Instant::now();
        let estimate = match error.kind() {
            ErrorKind::Archived(ArchiveState::Restoring(left)) => *left,
            _ => None,
        };
        let bar = console.waiting("being restored from cold storage".to_owned());
        let told = |_: &ArchiveState| {
            if let Some(left) = estimate.map(|estimate| estimate.saturating_sub(began.elapsed())) {
                bar.say(format!("being restored from cold storage, at most {} more", format_duration(left)));
            }
        };
        host.until_restored(image.id(), told).await?;
        drop(bar);
        match image.stream(range).await {
            Err(again) if is_restoring(&again) => error = again,
            outcome => return Ok(outcome?),
        }
    }
    Err(error.into())
}

/// Where to: a path, or `None` for standard output.
fn destination(output: Option<&Path>, json: bool, terminal: bool) -> Result<Option<&Path>, Failure> {
    let path = output.filter(|path| !input::is_standard(path));
    if path.is_none() && json {
        return Err(Failure::usage(
            "standard output cannot take both the image and a JSON object",
            "write the image to a file with -o FILE",
        ));
    }
    if output.is_none() && terminal {
        return Err(Failure::usage(
            "refusing to write an image to a terminal",
            "write it to a file with -o FILE, pipe it, or force it with -o -",
        ));
    }
    Ok(path)
}

/// Writes everything, or fails. The sink is finished only after the body ended without an error.
async fn write(mut body: Body, mut sink: Sink, bar: &Bar) -> Result<(), Failure> {
    let (send, mut receive) = mpsc::channel::<Bytes>(AHEAD);
    let writer = spawn_blocking(move || {
        while let Some(chunk) = receive.blocking_recv() {
            sink.write(&chunk)?;
        }
        Ok::<_, Failure>(sink)
    });
    let mut failed = None;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => {
                let bytes = chunk.len() as u64;
                if send.send(chunk).await.is_err() {
                    // The writer has ended, and returns the reason.
                    break;
                }
                bar.advance(bytes);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(send);
    let sink = writer.await.map_err(stopped)?;
    match failed {
        Some(error) => Err(error.into()),
        None => finish(sink?).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_has_one_thing() {
        let to = |output: Option<&'static str>, json, terminal| destination(output.map(Path::new), json, terminal);
        assert_eq!(to(None, false, false).unwrap(), None);
        assert_eq!(to(Some("-"), false, true).unwrap(), None);
        assert_eq!(to(Some("x"), true, true).unwrap(), Some(Path::new("x")));
        for (output, json, terminal) in [(None, false, true), (None, true, false), (Some("-"), true, false)] {
            assert_eq!(to(output, json, terminal).unwrap_err().status(), 2);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, "old").unwrap();
        let chunks = [Ok(Bytes::from_static(b"new")), Err(Error::unavailable("gone"))];
        let body = Body::new(futures::stream::iter(chunks), Some(6));
        let failure = write(body, Sink::open(Some(&path), 0).unwrap(), &Bar::none()).await.unwrap_err();
        assert_eq!(failure.text().unwrap(), "error: gone\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

        write(Body::from_bytes("new"), Sink::open(Some(&path), 0).unwrap(), &Bar::none()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
