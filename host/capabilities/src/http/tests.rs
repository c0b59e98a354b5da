//! The client against a server on loopback that sends exactly the scripted bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::grant::{HeaderCredential, HttpGrant, Proxies, Secret};
use tidelock_types::{Error, ErrorKind};

/// A server that answers every connection with these bytes once a whole request has come, and closes it.
struct Server {
    origin: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn answering(reply: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (Arc::clone(&requests), reply.into());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (seen, reply) = (Arc::clone(&seen), reply.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !is_whole(&request) {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                    let _ = socket.write_all(&reply).await;
                    if reply.is_empty() {
                        futures::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { origin, requests }
    }

    fn client(&self) -> HttpClient {
        self.client_with(|_| {})
    }

    fn client_with(&self, change: impl FnOnce(&mut HttpGrant)) -> HttpClient {
        let mut grant = HttpGrant::to([self.origin.as_str()]).unwrap();
        grant.connection.private_addresses = true;
        change(&mut grant);
        HttpClient::open(&grant).unwrap()
    }

    fn get(&self) -> Request {
        Request { method: "GET".into(), url: format!("{}/x", self.origin), ..Request::default() }
    }

    fn request(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}

async fn send(client: &HttpClient, request: Request) -> Result<(Response, bytes::Bytes)> {
    let mut response = client.send(request).await?;
    let body = std::mem::replace(&mut response.body, Body::from_bytes(""));
    Ok((response, body.collect(1 << 20).await?))
}

#[tokio::test]
async fn every_status_is_an_answer() {
    for status in [200, 302, 404, 429, 503] {
        let server = Server::answering(format!(
            "HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\nX-Latin: caf\u{e9}\r\ncontent-length: 2\r\n\r\nok"
        ))
        .await;
        let (response, body) = send(&server.client(), server.get()).await.unwrap();
        assert_eq!((response.status, &body[..]), (status, b"ok".as_slice()));
        assert!(response.headers.contains(&("location".into(), "http://127.0.0.1:1/".into())));
        assert!(response.headers.contains(&("x-latin".into(), "café".into())));
        assert_eq!(server.requests.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_truncated_reply_is_an_error() {
    let truncated = [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhello",
    ];
    for reply in truncated {
        let server = Server::answering(reply).await;
        let error = send(&server.client(), server.get()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{reply}: {error}");
    }
    let whole = Server::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(send(&whole.client(), whole.get()).await.unwrap().1, "hello");
}

#[tokio::test]
async fn a_reply_with_two_framings_is_refused() {
    for framing in [
        "transfer-encoding: gzip\r\ncontent-length: 10",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked\r\ntransfer-encoding: gzip",
        "transfer-encoding: chunked\r\ncontent-length: 10",
    ] {
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await;
        let error = send(&server.client(), server.get()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{framing}: {error}");
    }
}

#[tokio::test]
async fn a_reply_that_is_not_http_is_unavailable() {
    for reply in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 999999 X\r\n\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n"] {
        let server = Server::answering(reply).await;
        let error = send(&server.client(), server.get()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{reply}: {error}");
    }
    let mut gone = Server::answering("").await;
    gone.origin = "http://127.0.0.1:1".into();
    let error = send(&gone.client(), gone.get()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
}

#[tokio::test]
async fn many_or_large_headers_are_refused() {
    for (count, len) in [(1000, 1), (100, 2000), (1, 2 << 20)] {
        let value = "v".repeat(len);
        let headers: String = (0..count).map(|n| format!("h{n}: {value}\r\n")).collect();
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n")).await;
        let error = send(&server.client(), server.get()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn silence_is_unavailable_after_the_stall_timeout() {
    let short = |grant: &mut HttpGrant| {
        grant.connection.stall_timeout = Duration::from_millis(200);
        grant.connection.connect_timeout = Duration::from_millis(200);
    };
    let mute = Server::answering("").await;
    let error = send(&mute.client_with(short), mute.get()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");

    // A server that falls silent in the middle of a body.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let half = Server { origin: format!("http://{}", listener.local_addr().unwrap()), requests: Arc::default() };
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert!(socket.read_buf(&mut request).await.unwrap() > 0);
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        futures::future::pending::<()>().await;
        drop(socket);
    });
    let error = send(&half.client_with(short), half.get()).await.unwrap_err();
    assert!(error.to_string().contains("transferred almost no bytes"), "{error}");

    // A slower source is not a stall.
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let slow = futures::stream::iter(["a", "b"]).then(|text| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(bytes::Bytes::from_static(text.as_bytes()))
    });
    let body = vec![Part::Body(Body::new(slow, None))];
    let request = Request { method: "POST".into(), body, ..server.get() };
    assert_eq!(send(&server.client_with(short), request).await.unwrap().0.status, 200);
}

#[tokio::test]
async fn bodies_are_framed_by_the_host() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let unknown = || Body::new(futures::stream::iter([Ok("mid".into()), Ok("dle".into())]), None);
    let parts = || vec![Part::Bytes("<".into()), Part::Body(unknown()), Part::Bytes(">".into())];
    let post = |body, size| Request { method: "POST".into(), body, size, ..server.get() };

    send(&server.client(), post(parts(), Some(8))).await.unwrap();
    assert!(server.request().contains("content-length: 8\r\n") && server.request().ends_with("\r\n\r\n<middle>"));
    send(&server.client(), post(parts(), None)).await.unwrap();
    assert!(server.request().contains("transfer-encoding: chunked\r\n"));
    send(&server.client(), post(vec![Part::Bytes("all".into())], None)).await.unwrap();
    assert!(server.request().contains("content-length: 3\r\n"));

    let before = server.requests.lock().unwrap().len();
    let late = || {
        let chunks = [Ok("all".into()), Err(Error::corrupt("found out late"))];
        vec![Part::Body(Body::new(futures::stream::iter(chunks), None))]
    };
    let never = || vec![Part::Body(Body::new(futures::stream::iter([Err(Error::corrupt("nothing"))]), Some(0)))];
    let all = || vec![Part::Bytes("all".into())];
    for (body, size) in [
        (parts(), Some(9)),
        (parts(), Some(7)),
        (all(), Some(4)),
        (vec![], Some(1)),
        (late(), Some(3)),
        (never(), None),
    ] {
        assert!(send(&server.client(), post(body, size)).await.is_err());
    }
    let broken = Body::new(futures::stream::iter([Ok("x".into()), Err(Error::corrupt("the source broke"))]), None);
    let error = send(&server.client(), post(vec![Part::Body(broken)], None)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (&ErrorKind::Corrupt, "the source broke"));
    assert_eq!(server.requests.lock().unwrap().len(), before, "no broken request arrived whole");
}

#[tokio::test]
async fn credentials_go_out_and_never_come_back() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\nauthorization: Bearer hush\r\nx-echo: got Bearer hush here\r\nx-bare: hush\r\nx-ok: 1\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let client = server.client_with(|grant| {
        grant.credentials =
            Some(HeaderCredential { header: "Authorization".into(), secret: Secret::new("Bearer hush") });
    });
    let (response, _) = send(&client, server.get()).await.unwrap();
    assert!(server.request().contains("authorization: Bearer hush\r\n"));
    let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-ok", "content-length"]);
    let mine = Request { headers: vec![("AUTHORIZATION".into(), "x".into())], ..server.get() };
    assert_eq!(*send(&client, mine).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!format!("{client:?}").contains("hush"));
}

#[tokio::test]
async fn malformed_requests_are_invalid_and_send_nothing() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let header = |name: &str, value: &str| Request { headers: vec![(name.into(), value.into())], ..server.get() };
    let wrong = [
        header("host", "other"),
        header("Content-Length", "5"),
        header("transfer-encoding", "chunked"),
        header("connection", "upgrade"),
        header("x", "a\r\ny: b"),
        header("x", "a\nb"),
        header("x\r\ny", "a"),
        header("", "a"),
        Request { method: "CONNECT".into(), ..server.get() },
        Request { method: "get".into(), ..server.get() },
        Request { url: "nonsense".into(), ..server.get() },
        Request { url: server.origin.replace("http://", "http://user:pw@"), ..server.get() },
    ];
    for request in wrong {
        let shown = format!("{request:?}");
        let error = send(&server.client(), request).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{shown}: {error}");
    }
    let many = Request { headers: vec![("x".into(), "y".into()); 1000], ..server.get() };
    for (request, expected) in
        [(many, "limit: headers 256"), (header("x", &"y".repeat(100_000)), "limit: header bytes 64 KiB")]
    {
        let error = send(&server.client(), request).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (&ErrorKind::Limit, expected));
    }
    assert!(server.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_granted_origins_and_public_addresses() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = server.origin.rsplit(':').next().unwrap();
    for url in ["http://127.0.0.1:1/", "https://example.com/", &format!("https://127.0.0.1:{port}/"), "ftp://x/"] {
        let error = send(&server.client(), Request { url: url.to_owned(), ..server.get() }).await.unwrap_err();
        let expected = if url.starts_with("ftp") { ErrorKind::Invalid } else { ErrorKind::Denied };
        assert_eq!(*error.kind(), expected, "{url}: {error}");
    }
    // Granted, but not public: as a literal, in disguise, and by name.
    for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"] {
        let origin = format!("http://{host}:{port}");
        let client = HttpClient::open(&HttpGrant::to([origin.as_str()]).unwrap()).unwrap();
        let error = send(&client, Request { url: origin, ..server.get() }).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied, "{host}: {error}");
    }
    assert!(server.requests.lock().unwrap().is_empty());
    // By name, with permission.
    let origin = format!("http://localhost:{port}");
    let client = server.client_with(|grant| grant.origins = vec![origin.parse().unwrap()]);
    assert_eq!(send(&client, Request { url: origin, ..server.get() }).await.unwrap().0.status, 200);
}

#[tokio::test]
async fn a_proxy_gets_whole_urls_and_nothing_for_names_of_private_addresses() {
    let proxy = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let grant = |origin: &str, no_proxy: &str| {
        let mut grant = HttpGrant::to([origin]).unwrap();
        grant.connection.proxies = Proxies { no_proxy: no_proxy.into(), ..Proxies::all(&proxy.origin) };
        HttpClient::open(&grant).unwrap()
    };
    let get = |origin: &str| Request { method: "GET".into(), url: format!("{origin}/x"), ..Request::default() };
    // A name that only the proxy can resolve.
    let origin = "http://name.invalid";
    assert_eq!(send(&grant(origin, ""), get(origin)).await.unwrap().0.status, 200);
    assert!(proxy.request().starts_with("GET http://name.invalid/x HTTP/1.1\r\n"), "{}", proxy.request());
    for origin in ["http://localhost:1", "http://127.0.0.1:1", "http://169.254.169.254"] {
        let error = send(&grant(origin, ""), get(origin)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied, "{origin}: {error}");
    }
    let error = send(&grant(origin, "other.example, .invalid"), get(origin)).await.unwrap_err();
    assert!(error.to_string().contains("does not resolve"), "{error}");
    assert_eq!(proxy.requests.lock().unwrap().len(), 1);
}
