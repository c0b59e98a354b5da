//! The capabilities for guests of synchronous functions (`wit/sync.wit`): the same as those of the asynchronous ones, over
//! bodies that the host holds ([`crate::body_handle`]).
//!
//! A function that takes time is awaited on the guest's own stack, which is put aside meanwhile: no thread waits.
//! Limits are those of `capabilities.rs`, counted in the same places. Reading a body counts as a host call; it counts as a
//! sign of life by the bytes that it moves and not by being made, as reading a stream does.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::tidelock::storage as wit;
use super::body::outcome;
use super::call::{HostCallResult, call_sync};
use super::capabilities::{file_info, files, keys, object_info, put_options};
use super::convert::{self, error_out};
use crate::body_handle::{BodyHandle, Origin};
use crate::state::OperationState;
use crate::stream::counted;
use tidelock_capabilities::{Capabilities, directory, http};
use tidelock_types::{Body, Error};

impl OperationState {
    /// A body that leaves through a capability.
    fn sent(&mut self, data: Resource<BodyHandle>) -> wasmtime::Result<Body> {
        let usage = self.usage.clone();
        Ok(counted(self.take_body(data)?.into_body(), move |bytes| usage.sends(bytes)))
    }
}

impl wit::bodies::Host for OperationState {}

impl wit::bodies::HostBody for OperationState {
    async fn read(&mut self, this: Resource<BodyHandle>, max: u32) -> HostCallResult<Vec<u8>> {
        self.called()?;
        if max == 0 {
            return Ok(Err(error_out(&Error::invalid("a read must be of at least one byte"))));
        }
        let (bytes, origin) = match self.bodies(&this)?.read(max as usize).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(Ok(Vec::new())),
            Err(error) => return Ok(Err(error_out(&error))),
        };
        self.crossed(bytes.len());
        if origin == Origin::Reply {
            self.usage.reads(bytes.len())?;
        }
        Ok(Ok(bytes.to_vec()))
    }

    fn size(&mut self, this: Resource<BodyHandle>) -> wasmtime::Result<Option<u64>> {
        self.called()?;
        Ok(self.bodies(&this)?.size())
    }

    fn of_bytes(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<BodyHandle>> {
        self.called()?;
        self.crossed(data.len());
        self.hold(Body::from_bytes(Bytes::from(data)), Origin::Guest)
    }

    fn concat(&mut self, parts: Vec<Resource<BodyHandle>>) -> wasmtime::Result<Resource<BodyHandle>> {
        self.called()?;
        let parts = parts.into_iter().map(|part| self.take_body(part)).collect::<wasmtime::Result<_>>()?;
        self.hold_again(BodyHandle::concat(parts))
    }

    fn drop(&mut self, this: Resource<BodyHandle>) -> wasmtime::Result<()> {
        self.take_body(this).map(drop)
    }
}

impl OperationState {
    async fn send_plain(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
        body: Vec<http::Part>,
    ) -> HostCallResult<wit::http_sync::Response> {
        let head: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.usage.sends(head.saturating_add(request.url.len()))?;
        let wit::http_sync::Request { method, url, headers, size } = request;
        let request = http::Request { method, url, headers, body, size };
        let work = |granted: Capabilities| {
            let http = granted.http(&grant)?;
            Ok(async move { http.send(request).await })
        };
        Ok(match call_sync(self, work).await? {
            Ok(response) => Ok(wit::http_sync::Response {
                status: response.status,
                headers: response.headers,
                body: self.hold(response.body, Origin::Reply)?,
            }),
            Err(error) => Err(error_out(&error)),
        })
    }
}

impl wit::http_sync::Host for OperationState {
    async fn send(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
    ) -> HostCallResult<wit::http_sync::Response> {
        self.send_plain(grant, request, Vec::new()).await
    }

    async fn send_body(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
        data: Resource<BodyHandle>,
    ) -> HostCallResult<wit::http_sync::Response> {
        let data = self.sent(data)?;
        self.send_plain(grant, request, vec![http::Part::Body(data)]).await
    }
}

impl wit::bucket_sync::Host for OperationState {
    async fn put(
        &mut self,
        grant: String,
        key: String,
        data: Resource<BodyHandle>,
        options: wit::bucket::PutOptions,
    ) -> HostCallResult<u64> {
        let data = self.sent(data)?;
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.put(&key, data, put_options(options)).await })
        };
        Ok(outcome(call_sync(self, work).await?))
    }

    async fn get(
        &mut self,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::bucket::ObjectInfo, Resource<BodyHandle>)> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.get(&key, range.map(convert::range_in)).await })
        };
        Ok(match call_sync(self, work).await? {
            Ok(object) => Ok((object_info(object.info), self.hold(object.body, Origin::Reply)?)),
            Err(error) => Err(error_out(&error)),
        })
    }

    async fn head(&mut self, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.head(&key).await })
        };
        Ok(outcome(call_sync(self, work).await?.map(object_info)))
    }

    async fn delete(&mut self, grant: String, key: String) -> HostCallResult<()> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.delete(&key).await })
        };
        Ok(outcome(call_sync(self, work).await?))
    }

    async fn list_objects(
        &mut self,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        let work = |granted: Capabilities| {
            let bucket = granted.bucket(&grant)?;
            Ok(async move { bucket.list_objects(&prefix, cursor.as_deref(), limit).await })
        };
        Ok(outcome(call_sync(self, work).await?.map(keys)))
    }
}

impl wit::directory_sync::Host for OperationState {
    async fn write(
        &mut self,
        grant: String,
        path: String,
        data: Resource<BodyHandle>,
        options: wit::directory::WriteOptions,
    ) -> HostCallResult<u64> {
        let data = self.sent(data)?;
        let options = directory::WriteOptions { size: options.size, if_absent: options.if_absent };
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.write(&path, data, options).await })
        };
        Ok(outcome(call_sync(self, work).await?))
    }

    async fn read(
        &mut self,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::directory::FileInfo, Resource<BodyHandle>)> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.read(&path, range.map(convert::range_in)).await })
        };
        Ok(match call_sync(self, work).await? {
            Ok(file) => Ok((file_info(file.info), self.hold(file.body, Origin::Reply)?)),
            Err(error) => Err(error_out(&error)),
        })
    }

    async fn stat(&mut self, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.stat(&path).await })
        };
        Ok(outcome(call_sync(self, work).await?.map(file_info)))
    }

    async fn remove(&mut self, grant: String, path: String) -> HostCallResult<()> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.remove(&path).await })
        };
        Ok(outcome(call_sync(self, work).await?))
    }

    async fn list_entries(
        &mut self,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        let work = |granted: Capabilities| {
            let directory = granted.directory(&grant)?;
            Ok(async move { directory.list_entries(&path, cursor.as_deref(), limit).await })
        };
        Ok(outcome(call_sync(self, work).await?.map(files)))
    }
}
