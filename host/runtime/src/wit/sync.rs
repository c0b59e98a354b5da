//! The capabilities for guests of synchronous functions (`wit/sync.wit`): the same as those of the asynchronous ones, over
//! bodies that the host holds ([`crate::body_handle`]).
//!
//! A function that takes time is awaited on the guest's own stack, which is put aside meanwhile: no thread waits.
//! What a call does is in `granted.rs`, for guests of both kinds, so limits are counted in the same places. Reading a body
//! counts as a host call; it counts as progress by the bytes that it moves and not by being made, as reading a stream does.

use std::future::Future;

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::tidelock::storage as wit;
use super::body::outcome;
use super::call::{HostCallResult, call_sync};
use super::convert::error_out;
use super::granted;
use crate::body_handle::{BodyHandle, Origin};
use crate::operation::state::OperationState;
use crate::stream::counted;
use tidelock_capabilities::{Capabilities, http};
use tidelock_types::{Body, Error, Result};

impl OperationState {
    /// A body that leaves through a capability.
    fn sent(&mut self, data: Resource<BodyHandle>) -> wasmtime::Result<Body> {
        let usage = self.usage.clone();
        Ok(counted(self.take_body(data)?.into_body(), move |bytes| usage.sends(bytes)))
    }

    /// Makes a call whose answer has no body.
    async fn answered<T, F: Future<Output = Result<T>>>(
        &mut self,
        holds: u64,
        work: impl FnOnce(Capabilities) -> F,
    ) -> HostCallResult<T> {
        Ok(outcome(call_sync(self, holds, |granted| Ok(work(granted))).await?))
    }

    /// Makes a call whose answer has a body.
    async fn answered_with_body<T, F: Future<Output = Result<(T, Body)>>>(
        &mut self,
        (argument, holds): (u64, u64),
        work: impl FnOnce(Capabilities) -> F,
    ) -> HostCallResult<(T, Resource<BodyHandle>)> {
        Ok(match self.answered(argument, work).await? {
            Ok((info, body)) => {
                let body = self.opened(body, holds)?;
                Ok((info, self.hold(body, Origin::Reply)?))
            }
            Err(error) => Err(error),
        })
    }

    async fn send_request(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
        body: Vec<http::Part>,
    ) -> HostCallResult<wit::http_sync::Response> {
        let wit::http_sync::Request { method, url, headers, size } = request;
        let head = granted::head_bytes(&url, &headers);
        self.usage.sends(head)?;
        let holds = granted::request_holds(head, &body);
        let request = http::Request { method, url, headers, body, size };
        Ok(match self.answered(holds, |granted| granted::send(granted, grant, request)).await? {
            Ok(http::Response { status, headers, body }) => {
                let body = self.opened(body, granted::REPLY_HOLDS)?;
                Ok(wit::http_sync::Response { status, headers, body: self.hold(body, Origin::Reply)? })
            }
            Err(error) => Err(error),
        })
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

impl wit::http_sync::Host for OperationState {
    async fn send(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
    ) -> HostCallResult<wit::http_sync::Response> {
        self.send_request(grant, request, Vec::new()).await
    }

    async fn send_body(
        &mut self,
        grant: String,
        request: wit::http_sync::Request,
        data: Resource<BodyHandle>,
    ) -> HostCallResult<wit::http_sync::Response> {
        let data = self.sent(data)?;
        self.send_request(grant, request, vec![http::Part::Body(data)]).await
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
        let holds = granted::put_holds(&key, &data, &options);
        self.answered(holds, |granted| granted::put(granted, grant, key, data, options)).await
    }

    async fn get(
        &mut self,
        grant: String,
        key: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::bucket::ObjectInfo, Resource<BodyHandle>)> {
        self.answered_with_body((granted::bucket_holds(&[&key]), granted::REPLY_HOLDS), |granted| {
            granted::get(granted, grant, key, range)
        })
        .await
    }

    async fn head(&mut self, grant: String, key: String) -> HostCallResult<wit::bucket::ObjectInfo> {
        self.answered(granted::bucket_holds(&[&key]), |granted| granted::head(granted, grant, key)).await
    }

    async fn delete(&mut self, grant: String, key: String) -> HostCallResult<()> {
        self.answered(granted::bucket_holds(&[&key]), |granted| granted::delete(granted, grant, key)).await
    }

    async fn list_objects(
        &mut self,
        grant: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::bucket::Page> {
        let (limit, holds) = granted::listing(&self.environment.limits, limit, &prefix, cursor.as_deref());
        self.answered(holds, |granted| granted::list_objects(granted, grant, prefix, cursor, limit)).await
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
        let holds = granted::write_holds(&path, &data, &options);
        self.answered(holds, |granted| granted::write(granted, grant, path, data, options)).await
    }

    async fn read(
        &mut self,
        grant: String,
        path: String,
        range: Option<wit::types::ByteRange>,
    ) -> HostCallResult<(wit::directory::FileInfo, Resource<BodyHandle>)> {
        self.answered_with_body((granted::texts(&[&path]), granted::READ_HOLDS), |granted| {
            granted::read(granted, grant, path, range)
        })
        .await
    }

    async fn stat(&mut self, grant: String, path: String) -> HostCallResult<wit::directory::FileInfo> {
        self.answered(granted::texts(&[&path]), |granted| granted::stat(granted, grant, path)).await
    }

    async fn remove(&mut self, grant: String, path: String) -> HostCallResult<()> {
        self.answered(granted::texts(&[&path]), |granted| granted::remove(granted, grant, path)).await
    }

    async fn list_entries(
        &mut self,
        grant: String,
        path: String,
        cursor: Option<String>,
        limit: u32,
    ) -> HostCallResult<wit::directory::Page> {
        self.answered(granted::texts(&[&path, cursor.as_deref().unwrap_or_default()]), |granted| {
            granted::list_entries(granted, grant, path, cursor, limit)
        })
        .await
    }
}
