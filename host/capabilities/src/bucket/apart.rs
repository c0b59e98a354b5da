//! Reading long documents apart from the threads that everything else runs on.
//!
//! The SDK makes objects of a document in the future of its request, at once. A page of 1,000 keys takes 3 ms of a release
//! build, and the worst one that the bounds let through (4 MiB, full of attributes) 300 ms, in which a
//! thread of the runtime would do nothing else. So such a request is driven as usual until its reply is there, and from
//! then on by a blocking job of the operation that wants it.

use std::future::Future;
use std::sync::Arc;

use aws_sdk_s3::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use tidelock_types::{Account, job};

/// What one of the SDK's requests comes to.
type Answer<T, E> = std::result::Result<T, SdkError<E, HttpResponse>>;

tokio::task_local! {
    /// Told when the reply of the request that is being driven has come.
    static ARRIVED: Arc<Notify>;
}

/// Called when the reply of a request is in memory as a whole: from here on it may be driven elsewhere.
pub(super) async fn arrived() {
    if let Ok(arrived) = ARRIVED.try_with(Arc::clone) {
        arrived.notify_one();
        tokio::task::yield_now().await;
    }
}

/// Drives a request, the last part of it as a blocking job of this account.
pub(super) async fn read_apart<T, E, F>(account: Arc<dyn Account>, request: F) -> Answer<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Answer<T, E>> + Send + 'static,
{
    let arrived = Arc::new(Notify::new());
    let mut request = Box::pin(ARRIVED.scope(arrived.clone(), request));
    tokio::select! {
        biased;
        answer = &mut request => return answer,
        () = arrived.notified() => {}
    }
    let runtime = Handle::current();
    match job(&account, move |_| Ok(runtime.block_on(request))).await {
        Ok(answer) => answer,
        // Of the kind that is not sent again.
        Err(error) => Err(SdkError::dispatch_failure(ConnectorError::user(error.into()))),
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use tidelock_types::Unlimited;

    use super::*;

    async fn request(reply_is_long: bool) -> Answer<(ThreadId, ThreadId), ()> {
        let sent = thread::current().id();
        tokio::task::yield_now().await;
        if reply_is_long {
            arrived().await;
        }
        Ok((sent, thread::current().id()))
    }

    #[tokio::test]
    async fn a_reply_is_read_on_another_thread_and_its_request_sent_on_this_one() {
        let here = thread::current().id();
        let account: Arc<dyn Account> = Arc::new(Unlimited::default());
        let (sent, read) = read_apart(account.clone(), request(true)).await.unwrap();
        assert!(sent == here && read != here);
        // What is short, or nobody wants apart, stays where it is.
        assert_eq!(read_apart(account, request(false)).await.unwrap(), (here, here));
        assert_eq!(request(true).await.unwrap(), (here, here));
    }
}
