//! The capabilities as guests import them: thin glue from `tidelock:storage@0.1.x` to `tidelock_capabilities`.
//!
//! Every asynchronous call passes through [`call`], which counts it against the operation's limits of host calls and
//! marks progress; every outgoing body passes through [`sent`]. The calls themselves are implemented elsewhere.

use bytes::Bytes;

use super::bindings::tidelock::storage as wit;
use super::body::{accept, give, outcome};
use super::call::{Caller, HostCallResult, call};
use super::convert::{self, error_out};
use super::{Host, WitBody};
use crate::state::OperationState;
use crate::stream::counted;
use crate::usage::Waiting;
use tidelock_capabilities::{Capabilities, bucket, digest, directory, http};
use tidelock_types::Body;

/// A body that leaves through a capability.
fn sent(accessor: &Caller, body: WitBody) -> wasmtime::Result<Body> {
    let (body, _) = accept(accessor, body, Waiting::Call)?;
    let usage = accessor.with(|mut access| access.data_mut().usage.clone());
    Ok(counted(body, move |bytes| usage.sends(bytes)))
}

/// Outgoing bytes of a capability that are not a body.
fn sends(accessor: &Caller, bytes: usize) -> wasmtime::Result<()> {
    Ok(accessor.with(|mut access| access.data_mut().usage.sends(bytes))?)
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
        let head: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        sends(accessor, head.saturating_add(request.url.len()))?;
        let mut parts = Vec::with_capacity(request.body.len());
        for part in request.body {
            parts.push(match part {
                wit::http::Part::Bytes(bytes) => {
                    sends(accessor, bytes.len())?;
                    http::Part::Bytes(Bytes::from(bytes))
                }
                wit::http::Part::Body(body) => http::Part::Body(sent(accessor, body)?),
            });
        }
        let request = http::Request {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: parts,
            size: request.size,
        };
        let sent = call(accessor, |granted| {
            let http = granted.http(&grant)?;
            Ok(async move { http.send(request).await })
        });
        Ok(match sent.await? {
            Ok(response) => Ok(wit::http::Response {
                status: response.status,
                headers: response.headers,
                body: give(accessor, response.body)?,
            }),
            Err(error) => Err(error_out(&error)),
        })
    }
}

pub(super) fn put_options(options: wit::bucket::PutOptions) -> bucket::PutOptions {
    bucket::PutOptions {
        size: options.size,
        labels: options.labels,
        content_type: options.content_type,
        storage_class: options.storage_class,
        if_absent: options.if_absent,
        encryption: options
            .encryption
            .map(|with| bucket::Encryption { algorithm: with.algorithm, key_id: with.key_id }),
        retention: options.retention.map(|lock| bucket::Retention { mode: lock.mode, until: lock.until }),
    }
}

pub(super) fn object_info(info: bucket::ObjectInfo) -> wit::bucket::ObjectInfo {
    wit::bucket::ObjectInfo {
        size: info.size,
        etag: info.etag,
        labels: info.labels,
        storage_class: info.storage_class,
        archive: info.archive.as_ref().map(convert::archive_out),
        modified: info.modified,
    }
}

pub(super) fn keys(page: bucket::Page) -> wit::bucket::Page {
    let entry = |e: bucket::Entry| wit::bucket::Entry { key: e.key, size: e.size, modified: e.modified };
    wit::bucket::Page { entries: page.entries.into_iter().map(entry).collect(), next: page.next }
}

impl wit::bucket::HostWithStore<OperationState> for Host {
    async fn put(
        accessor: &Caller,
        grant: String,
        key: String,
        data: WitBody,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<u64> {
        let data = sent(accessor, data)?;
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.put(&key, data, put_options(options)).await })
        };
        Ok(outcome(call(accessor, work).await?))
    }

    async fn get(
        accessor: &Caller,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::bucket::Object> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.get(&key, range.map(convert::range_in)).await })
        };
        Ok(match call(accessor, work).await? {
            Ok(object) => {
                Ok(wit::bucket::Object { info: object_info(object.info), body: give(accessor, object.body)? })
            }
            Err(error) => Err(error_out(&error)),
        })
    }

    async fn head(accessor: &Caller, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.head(&key).await })
        };
        Ok(outcome(call(accessor, work).await?.map(object_info)))
    }

    async fn delete(accessor: &Caller, grant: String, key: String) -> HostCallResult<()> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.delete(&key).await })
        };
        Ok(outcome(call(accessor, work).await?))
    }

    async fn copy(
        accessor: &Caller,
        grant: String,
        source: String,
        target: String,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<()> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.copy(&source, &target, put_options(options)).await })
        };
        Ok(outcome(call(accessor, work).await?))
    }

    async fn restore(
        accessor: &Caller,
        grant: String,
        key: String,
        days: u32,
        tier: String,
    ) -> HostCallResult<wit::types::ArchiveState> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.restore(&key, days, &tier).await })
        };
        Ok(outcome(call(accessor, work).await?.map(|state| convert::archive_out(&state))))
    }

    async fn list_objects(
        accessor: &Caller,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.list_objects(&prefix, cursor.as_deref(), limit).await })
        };
        Ok(outcome(call(accessor, work).await?.map(keys)))
    }
}

pub(super) fn file_info(info: directory::FileInfo) -> wit::directory::FileInfo {
    wit::directory::FileInfo { size: info.size, modified: info.modified }
}

pub(super) fn files(page: directory::Page) -> wit::directory::Page {
    let entry = |e: directory::Entry| wit::directory::Entry {
        name: e.name,
        is_directory: e.is_directory,
        size: e.size,
        modified: e.modified,
    };
    wit::directory::Page { entries: page.entries.into_iter().map(entry).collect(), next: page.next }
}

impl wit::directory::HostWithStore<OperationState> for Host {
    async fn write(
        accessor: &Caller,
        grant: String,
        path: String,
        data: WitBody,
        options: wit::directory::WriteOptions,
    ) -> HostCallResult<u64> {
        let data = sent(accessor, data)?;
        let options = directory::WriteOptions { size: options.size, if_absent: options.if_absent };
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.write(&path, data, options).await })
        };
        Ok(outcome(call(accessor, work).await?))
    }

    async fn read(
        accessor: &Caller,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<wit::directory::File> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.read(&path, range.map(convert::range_in)).await })
        };
        Ok(match call(accessor, work).await? {
            Ok(file) => Ok(wit::directory::File { info: file_info(file.info), body: give(accessor, file.body)? }),
            Err(error) => Err(error_out(&error)),
        })
    }

    async fn stat(accessor: &Caller, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.stat(&path).await })
        };
        Ok(outcome(call(accessor, work).await?.map(file_info)))
    }

    async fn remove(accessor: &Caller, grant: String, path: String) -> HostCallResult<()> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.remove(&path).await })
        };
        Ok(outcome(call(accessor, work).await?))
    }

    async fn list_entries(
        accessor: &Caller,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.list_entries(&path, cursor.as_deref(), limit).await })
        };
        Ok(outcome(call(accessor, work).await?.map(files)))
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
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        self.called()?;
        Ok(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl wit::entropy::Host for OperationState {
    fn bytes(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        self.called()?;
        let mut bytes = vec![0; count.min(4096) as usize];
        getrandom::fill(&mut bytes)
            .map_err(|error| wasmtime::Error::msg(format!("cannot get random bytes: {error}")))?;
        Ok(bytes)
    }
}
