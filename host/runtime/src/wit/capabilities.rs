//! The capabilities as guests of asynchronous functions import them: thin glue from `tidelock:storage@0.1.x` to
//! `tidelock_capabilities`. What a call does is in `granted.rs`, for guests of both kinds; here is how it is made.
//!
//! Every call that takes time passes through [`call`], which counts it against the operation's limits of host calls and
//! records progress; every body that leaves is counted. What needs no grant and answers at once is here too.

use std::future::Future;

use bytes::Bytes;

use super::bindings::tidelock::storage as wit;
use super::body::{accept, give, outcome};
use super::call::{Caller, HostCallResult, call};
use super::{Host, WitBody, convert, granted};
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use crate::operation::usage::Waiting;
use crate::stream::counted;
use tidelock_capabilities::{Capabilities, digest, http};
use tidelock_types::{Body, Result};

/// A body that leaves through a capability, and what it needs of the guest.
fn sent(accessor: &Caller, body: WitBody) -> wasmtime::Result<(Body, GuestParts)> {
    let (body, parts) = accept(accessor, body, Waiting::Call)?;
    let usage = accessor.with(|mut access| access.data_mut().usage.clone());
    Ok((counted(body, move |bytes| usage.sends(bytes)), parts))
}

/// Outgoing bytes of a capability that are not a body.
fn sends(accessor: &Caller, bytes: usize) -> wasmtime::Result<()> {
    Ok(accessor.with(|mut access| access.data_mut().usage.sends(bytes))?)
}

/// Makes a call whose answer has no body.
async fn answered<T, F: Future<Output = Result<T>>>(
    accessor: &Caller,
    holds: u64,
    work: impl FnOnce(Capabilities) -> F,
) -> HostCallResult<T> {
    Ok(outcome(call(accessor, holds, |granted| Ok(work(granted))).await?))
}

/// Gives a body that a capability opened, for which at most so many bytes are held.
fn opened(accessor: &Caller, body: Body, holds: u64, parts: GuestParts) -> wasmtime::Result<WitBody> {
    let body = accessor.with(|mut access| access.data_mut().opened(body, holds))?;
    give(accessor, body, parts)
}

impl wit::types::Host for OperationState {}
impl wit::http::Host for OperationState {}
impl wit::bucket::Host for OperationState {}
impl wit::directory::Host for OperationState {}

impl wit::http::HostWithStore<OperationState> for Host {
    async fn send(
        accessor: &Caller,
        grant: String,
        request: wit::http::Request,
    ) -> HostCallResult<wit::http::Response> {
        let wit::http::Request { method, url, headers, body, size } = request;
        let head = granted::head_bytes(&url, &headers);
        sends(accessor, head)?;
        let (mut parts, mut needs) = (Vec::with_capacity(body.len()), GuestParts::default());
        for part in body {
            parts.push(match part {
                wit::http::Part::Bytes(bytes) => {
                    sends(accessor, bytes.len())?;
                    http::Part::Bytes(Bytes::from(bytes))
                }
                wit::http::Part::Body(body) => {
                    let (body, needed) = sent(accessor, body)?;
                    needs.merge(needed);
                    http::Part::Body(body)
                }
            });
        }
        let holds = granted::request_holds(head, &parts);
        let request = http::Request { method, url, headers, body: parts, size };
        Ok(match answered(accessor, holds, |granted| granted::send(granted, grant, request)).await? {
            Ok(http::Response { status, headers, body }) => Ok(wit::http::Response {
                status,
                headers,
                body: opened(accessor, body, granted::REPLY_HOLDS, needs.without_taps())?,
            }),
            Err(error) => Err(error),
        })
    }
}

impl wit::bucket::HostWithStore<OperationState> for Host {
    async fn put(
        accessor: &Caller,
        grant: String,
        key: String,
        data: WitBody,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<u64> {
        let data = sent(accessor, data)?.0;
        let holds = granted::put_holds(&key, &data, &options);
        answered(accessor, holds, |granted| granted::put(granted, grant, key, data, options)).await
    }

    async fn get(
        accessor: &Caller,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::bucket::Object> {
        Ok(
            match answered(accessor, granted::bucket_holds(&[&key]), |granted| granted::get(granted, grant, key, range))
                .await?
            {
                Ok((info, body)) => Ok(wit::bucket::Object {
                    info,
                    body: opened(accessor, body, granted::REPLY_HOLDS, GuestParts::default())?,
                }),
                Err(error) => Err(error),
            },
        )
    }

    async fn head(accessor: &Caller, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        answered(accessor, granted::bucket_holds(&[&key]), |granted| granted::head(granted, grant, key)).await
    }

    async fn delete(accessor: &Caller, grant: String, key: String) -> HostCallResult<()> {
        answered(accessor, granted::bucket_holds(&[&key]), |granted| granted::delete(granted, grant, key)).await
    }

    async fn copy(
        accessor: &Caller,
        grant: String,
        source: String,
        target: String,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<()> {
        let holds = granted::texts(&[&source]).saturating_add(granted::put_holds(
            &target,
            &Body::from_bytes(Bytes::new()),
            &options,
        ));
        answered(accessor, holds, |granted| granted::copy(granted, grant, source, target, options)).await
    }

    async fn restore(
        accessor: &Caller,
        grant: String,
        key: String,
        days: u32,
        tier: String,
    ) -> HostCallResult<wit::types::ArchiveState> {
        answered(accessor, granted::bucket_holds(&[&key, &tier]), |granted| {
            granted::restore(granted, grant, key, days, tier)
        })
        .await
    }

    async fn list_objects(
        accessor: &Caller,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        let (limit, holds) = accessor.with(|mut access| {
            granted::listing(&access.data_mut().environment.limits, limit, &prefix, cursor.as_deref())
        });
        answered(accessor, holds, |granted| granted::list_objects(granted, grant, prefix, cursor, limit)).await
    }
}

impl wit::directory::HostWithStore<OperationState> for Host {
    async fn write(
        accessor: &Caller,
        grant: String,
        path: String,
        data: WitBody,
        options: wit::directory::WriteOptions,
    ) -> HostCallResult<u64> {
        let data = sent(accessor, data)?.0;
        let holds = granted::write_holds(&path, &data, &options);
        answered(accessor, holds, |granted| granted::write(granted, grant, path, data, options)).await
    }

    async fn read(
        accessor: &Caller,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::directory::File> {
        Ok(
            match answered(accessor, granted::texts(&[&path]), |granted| granted::read(granted, grant, path, range))
                .await?
            {
                Ok((info, body)) => Ok(wit::directory::File {
                    info,
                    body: opened(accessor, body, granted::READ_HOLDS, GuestParts::default())?,
                }),
                Err(error) => Err(error),
            },
        )
    }

    async fn stat(accessor: &Caller, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        answered(accessor, granted::texts(&[&path]), |granted| granted::stat(granted, grant, path)).await
    }

    async fn remove(accessor: &Caller, grant: String, path: String) -> HostCallResult<()> {
        answered(accessor, granted::texts(&[&path]), |granted| granted::remove(granted, grant, path)).await
    }

    async fn list_entries(
        accessor: &Caller,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        answered(accessor, granted::texts(&[&path, cursor.as_deref().unwrap_or_default()]), |granted| {
            granted::list_entries(granted, grant, path, cursor, limit)
        })
        .await
    }
}

impl wit::digest::Host for OperationState {
    fn sha256(&mut self, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.called()?;
        Ok(digest::sha256(&data).to_vec())
    }

    fn hmac_sha256(&mut self, key: Vec<u8>, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.called()?;
        Ok(digest::hmac_sha256(&key, &data).to_vec())
    }
}

impl wit::log::Host for OperationState {
    fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        self.called()?;
        self.logged(message.len())?;
        let backend = self.environment.backend.clone();
        let message = convert::text(message);
        match level {
            wit::log::Level::Debug => tracing::debug!(target: "tidelock::adapter", %backend, "{message}"),
            wit::log::Level::Info => tracing::info!(target: "tidelock::adapter", %backend, "{message}"),
            wit::log::Level::Warn => tracing::warn!(target: "tidelock::adapter", %backend, "{message}"),
            wit::log::Level::Error => tracing::error!(target: "tidelock::adapter", %backend, "{message}"),
        }
        Ok(())
    }
}

impl wit::settings::Host for OperationState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<wit::types::SettingValue>> {
        self.called()?;
        Ok(self.environment.settings.get(&name).map(convert::setting_out))
    }
}

impl wit::clock::Host for OperationState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.called()?;
        let since = self.environment.platform.since_epoch();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        self.called()?;
        Ok(u64::try_from(self.environment.platform.since(self.started).as_nanos()).unwrap_or(u64::MAX))
    }
}

impl wit::entropy::Host for OperationState {
    fn bytes(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        self.called()?;
        let mut bytes = vec![0; count.min(4096) as usize];
        self.environment.platform.fill(&mut bytes).map_err(wasmtime::Error::new)?;
        Ok(bytes)
    }
}
