//! `tidelock serve`: the daemon.
//!
//! The first SIGTERM or SIGINT lets requests in progress end, for as long as configured; the second aborts them.
//! Status 0 means that nothing was aborted.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::arguments::Serve;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::Host;
use tidelock::config::{Listen, Service};
use tidelock::types::Error;
use tidelock_server::{Server, document};

#[derive(Serialize)]
struct Listening<'a> {
    listen: &'a str,
    pid: u32,
}

pub(super) async fn run(arguments: Serve, session: &Session) -> Result<(), Failure> {
    if arguments.openapi {
        return output::text(&document());
    }
    let mut signals = Signals::new()?;
    let config = session.config()?;
    let service = place(config.service.clone(), &arguments)?;
    let host = session.open().await?;
    if arguments.check {
        return super::serve_check::run(&host, session).await;
    }
    open_backends(&host).await?;
    let server = Server::bind(host.clone(), &service).await?;
    let watching = match &config.adapters_dir {
        Some(dir) => Some(host.watch_adapter_dir(dir).await?),
        None => None,
    };
    let listening = Listening { listen: server.address(), pid: std::process::id() };
    if session.json {
        output::object(&listening)?
    } else {
        output::line(format_args!("listening on {}", listening.listen))?
    }
    let second = AtomicU8::new(0);
    let (stop, cut) = signals.twice(&second);
    let ended = server.run(stop, cut).await;
    drop(watching);
    match (ended.cut, second.load(Ordering::Relaxed)) {
        (0, _) => Ok(()),
        (_, 0) => Err(Error::timed_out(format!("{} connections were aborted at the deadline", ended.cut))
            .hint("raise `drain` in [service] if requests take longer")
            .into()),
        (_, signal) => Err(Failure::Interrupted(signal)),
    }
}

/// The address, from the arguments or the configuration.
fn place(mut service: Service, arguments: &Serve) -> Result<Service, Failure> {
    let here = std::env::current_dir().map_err(|error| Error::io("the current directory", error))?;
    if let Some(file) = &arguments.token_file {
        service.token_file = Some(here.join(file));
    }
    let Some(listen) = &arguments.listen else { return Ok(service) };
    let wrong = |error: Error| {
        let hint = error.advice().unwrap_or_default().to_owned();
        Failure::usage(format!("--listen {listen} {}", error.message()), hint)
    };
    service.listen = Listen::parse(listen, &here).map_err(wrong)?;
    if let Listen::Unix(path) = &mut service.listen {
        *path = path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path.clone());
    }
    service.check().map_err(wrong)?;
    Ok(service)
}

/// Opens all backends. A daemon serves with those that it can open and tries the others again; without any there is
/// nothing to serve.
async fn open_backends(host: &Host) -> Result<(), Failure> {
    let (mut first, mut open) = (None, 0);
    for name in host.backends() {
        match host.open_backend(name).await {
            Ok(()) => open += 1,
            Err(error) => {
                tracing::error!(hint = error.advice(), "{error}");
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if open == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Error::io("cannot handle signals", error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The first of them, and the second, of which the number is kept.
    fn twice<'a>(&'a mut self, second: &'a AtomicU8) -> (impl Future<Output = ()> + 'a, impl Future<Output = ()> + 'a) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let first = async move {
            self.next().await;
            // The other future takes the streams over.
            let _ = tell.send(self);
        };
        let second = async move {
            match told.await {
                Ok(signals) => second.store(signals.next().await, Ordering::Relaxed),
                Err(_) => std::future::pending().await,
            }
        };
        (first, second)
    }

    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value() as u8
    }
}
