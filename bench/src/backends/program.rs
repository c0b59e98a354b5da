//! Native clients that are programs: run to the end, or read from.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::peers::Sink;

/// Runs a program; gives what it printed.
pub(super) async fn run(mut command: Command) -> Result<String> {
    command.stdout(Stdio::piped());
    let printed = output(command).await?;
    Ok(String::from_utf8_lossy(&printed).trim().to_owned())
}

/// Runs a program whose output is an object: into nothing, or into `sink` to be compared.
pub(super) async fn read(mut command: Command, compare: bool, sink: Sink<'_>) -> Result<()> {
    if compare {
        command.stdout(Stdio::piped());
        sink(&output(command).await?);
        return Ok(());
    }
    command.stdout(Stdio::null());
    output(command).await.map(drop)
}

/// Waits on a thread of its own, as for a file: the runtime's workers have other things to do.
async fn output(mut command: Command) -> Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || {
        let name = command.get_program().to_string_lossy().into_owned();
        let silent = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let child = silent.spawn().with_context(|| format!("cannot start {name}"))?;
        let ended = child.wait_with_output()?;
        ensure!(ended.status.success(), "{name} failed: {}", String::from_utf8_lossy(&ended.stderr).trim());
        Ok(ended.stdout)
    })
    .await?
}
