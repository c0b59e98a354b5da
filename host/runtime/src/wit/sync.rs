//! The capabilities for guests of synchronous functions (`wit/sync.wit`): the same as those of the asynchronous ones, over
//! bodies that the host holds ([`crate::body_handle`]).
//!
//! A function that takes time is awaited on the guest's own stack, which is suspended meanwhile: no thread waits. The calls
//! are in `granted.rs`, the same for both kinds of guests. Reading a body counts as a host call; it counts as progress by
//! the bytes that it moves and not by being made, as reading a stream does.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::tidelock::storage as wit;
use super::call::{Caller, HostCallResult};
use super::convert::error_out;
use super::granted;
use crate::body_handle::{BodyHandle, Origin};
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use tidelock_capabilities::http;
use tidelock_types::{Body, Error};

impl Caller for &mut OperationState {
    type Body = Resource<BodyHandle>;

    fn with<R>(&mut self, f: impl FnOnce(&mut OperationState) -> R) -> R {
        f(self)
    }

    /// The host holds the body: nothing is needed of the guest.
    fn take(&mut self, body: Resource<BodyHandle>) -> wasmtime::Result<(Body, GuestParts)> {
        Ok((self.take_body(body)?.into_body(), GuestParts::default()))
    }

    fn give(&mut self, body: Body, _: GuestParts) -> wasmtime::Result<Resource<BodyHandle>> {
        self.hold(body, Origin::Reply)
    }
}

async fn send_request(
    state: &mut OperationState,
    grant: String,
    request: wit::http_sync::Request,
    body: Vec<http::Part>,
) -> HostCallResult<wit::http_sync::Response> {
    let wit::http_sync::Request { method, url, headers, size } = request;
    let request = http::Request { method, url, headers, body, size };
    let response = granted::send(state, grant, request, GuestParts::default()).await?;
    Ok(response.map(|(status, headers, body)| wit::http_sync::Response { status, headers, body }))
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

impl wit::http_sync::Host for OperationState {
    async fn send(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
    ) -> HostCallResult<wit::http_sync::Response> {
        send_request(self, grant, request, Vec::new()).await
    }

    async fn send_body(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
        data: Resource<BodyHandle>,
    ) -> HostCallResult<wit::http_sync::Response> {
        let (data, _) = granted::sent(&mut &mut *self, data)?;
        send_request(self, grant, request, vec![http::Part::Body(data)]).await
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
        granted::put(self, grant, key, data, options).await
    }

    async fn get(
        &mut self,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::bucket::ObjectInfo, Resource<BodyHandle>)> {
        granted::get(self, grant, key, range).await
    }

    async fn head(&mut self, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        granted::head(self, grant, key).await
    }

    async fn delete(&mut self, grant: String, key: String) -> HostCallResult<()> {
        granted::delete(self, grant, key).await
    }

    async fn list_objects(
        &mut self,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        granted::list_objects(self, grant, prefix, cursor, limit).await
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
        granted::write(self, grant, path, data, options).await
    }

    async fn read(
        &mut self,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::directory::FileInfo, Resource<BodyHandle>)> {
        granted::read(self, grant, path, range).await
    }

    async fn stat(&mut self, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        granted::stat(self, grant, path).await
    }

    async fn remove(&mut self, grant: String, path: String) -> HostCallResult<()> {
        granted::remove(self, grant, path).await
    }

    async fn list_entries(
        &mut self,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        granted::list_entries(self, grant, path, cursor, limit).await
    }
}
