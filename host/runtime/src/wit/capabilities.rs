//! The capabilities as guests of asynchronous functions import them: thin glue from `tidelock:storage@0.1.x` to the calls
//! of `granted.rs`, which are the same for both kinds of guests. The functions that need no grant and return at once are
//! here too.

use bytes::Bytes;

use super::bindings::tidelock::storage as wit;
use super::body::{accept, give};
use super::call::{AsyncCaller, Caller, HostCallResult};
use super::{Host, WitBody, convert, granted};
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use crate::operation::usage::Waiting;
use tidelock_capabilities::{digest, http};
use tidelock_types::Body;

impl Caller for &AsyncCaller {
    type Body = WitBody;

    fn with<R>(&mut self, f: impl FnOnce(&mut OperationState) -> R) -> R {
        AsyncCaller::with(self, |mut access| f(access.data_mut()))
    }

    fn take(&mut self, body: WitBody) -> wasmtime::Result<(Body, GuestParts)> {
        accept(self, body, Waiting::Call)
    }

    fn give(&mut self, body: Body, parts: GuestParts) -> wasmtime::Result<WitBody> {
        give(self, body, parts)
    }
}

impl wit::types::Host for OperationState {}
impl wit::http::Host for OperationState {}
impl wit::bucket::Host for OperationState {}
impl wit::directory::Host for OperationState {}

impl wit::http::HostWithStore<OperationState> for Host {
    async fn send(
        mut accessor: &AsyncCaller,
        grant: String,
        request: wit::http::Request,
    ) -> HostCallResult<wit::http::Response> {
        let wit::http::Request { method, url, headers, body: parts, size } = request;
        let (mut body, mut needs) = (Vec::with_capacity(parts.len()), GuestParts::default());
        for part in parts {
            body.push(match part {
                wit::http::Part::Bytes(bytes) => {
                    Caller::with(&mut accessor, |state| state.usage.sends(bytes.len()))?;
                    http::Part::Bytes(Bytes::from(bytes))
                }
                wit::http::Part::Body(body) => {
                    let (body, needed) = granted::sent(&mut accessor, body)?;
                    needs.merge(needed);
                    http::Part::Body(body)
                }
            });
        }
        let request = http::Request { method, url, headers, body, size };
        let response = granted::send(accessor, grant, request, needs).await?;
        Ok(response.map(|(status, headers, body)| wit::http::Response { status, headers, body }))
    }
}

impl wit::bucket::HostWithStore<OperationState> for Host {
    async fn put(
        accessor: &AsyncCaller,
        grant: String,
        key: String,
        data: WitBody,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<u64> {
        granted::put(accessor, grant, key, data, options).await
    }

    async fn get(
        accessor: &AsyncCaller,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::bucket::Object> {
        let object = granted::get(accessor, grant, key, range).await?;
        Ok(object.map(|(info, body)| wit::bucket::Object { info, body }))
    }

    async fn head(accessor: &AsyncCaller, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        granted::head(accessor, grant, key).await
    }

    async fn delete(accessor: &AsyncCaller, grant: String, key: String) -> HostCallResult<()> {
        granted::delete(accessor, grant, key).await
    }

    async fn copy(
        accessor: &AsyncCaller,
        grant: String,
        source: String,
        target: String,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<()> {
        granted::copy(accessor, grant, source, target, options).await
    }

    async fn restore(
        accessor: &AsyncCaller,
        grant: String,
        key: String,
        days: u32,
        tier: String,
    ) -> HostCallResult<wit::types::ArchiveState> {
        granted::restore(accessor, grant, key, days, tier).await
    }

    async fn list_objects(
        accessor: &AsyncCaller,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        granted::list_objects(accessor, grant, prefix, cursor, limit).await
    }
}

impl wit::directory::HostWithStore<OperationState> for Host {
    async fn write(
        accessor: &AsyncCaller,
        grant: String,
        path: String,
        data: WitBody,
        options: wit::directory::WriteOptions,
    ) -> HostCallResult<u64> {
        granted::write(accessor, grant, path, data, options).await
    }

    async fn read(
        accessor: &AsyncCaller,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::directory::File> {
        let file = granted::read(accessor, grant, path, range).await?;
        Ok(file.map(|(info, body)| wit::directory::File { info, body }))
    }

    async fn stat(accessor: &AsyncCaller, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        granted::stat(accessor, grant, path).await
    }

    async fn remove(accessor: &AsyncCaller, grant: String, path: String) -> HostCallResult<()> {
        granted::remove(accessor, grant, path).await
    }

    async fn list_entries(
        accessor: &AsyncCaller,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        granted::list_entries(accessor, grant, path, cursor, limit).await
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
