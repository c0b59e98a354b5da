//! A server whose misbehaviour is selected by the path.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server on loopback. It ends with its runtime.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub origin: String,
    /// PORT.
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    // It fails when the client has had enough.
                    let _ = serve(socket, &seen).await;
                });
            }
        });
        Self { origin: format!("http://127.0.0.1:{port}"), port, heads }
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(mut socket: TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head.clone());
    let (route, query) = path.split_once('?').unwrap_or((&path, ""));
    answer(&mut socket, route.rsplit('/').next().unwrap_or_default(), query, &head).await
}

const LARGE: usize = 10 << 20;

async fn answer(socket: &mut TcpStream, what: &str, query: &str, head: &str) -> io::Result<()> {
    let ok = "HTTP/1.1 200 OK\r\n";
    match what {
        "redirect" => {
            put(socket, &format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n")).await
        }
        "sink" => {
            let mut sunk = vec![0; 64 << 10];
            while socket.read(&mut sunk).await? > 0 {}
            Ok(())
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            put(socket, &format!("{ok}connection: close\r\ncontent-length: 0\r\n\r\n")).await
        }
        "trickle" => {
            put(socket, &format!("{ok}content-length: 1000000\r\n\r\n")).await?;
            again(socket, "x", Duration::from_millis(50)).await
        }
        "endless" => {
            put(socket, &format!("{ok}\r\n")).await?;
            again(socket, &"x".repeat(64 << 10), Duration::ZERO).await
        }
        "endless-headers" => {
            put(socket, ok).await?;
            again(socket, "x-more: and more\r\n", Duration::ZERO).await
        }
        "huge-header" => put(socket, &format!("{ok}x: {}\r\n\r\n", "x".repeat(LARGE))).await,
        "large-headers" => {
            let headers: String = (0..100).map(|n| format!("x-{n}: {}\r\n", "x".repeat(1000))).collect();
            put(socket, &format!("{ok}{headers}content-length: 0\r\n\r\n")).await
        }
        "huge-status" => put(socket, &format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(LARGE))).await,
        "huge-chunk" => {
            put(socket, &format!("{ok}transfer-encoding: chunked\r\n\r\n")).await?;
            put(socket, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(LARGE))).await
        }
        "bad-chunk" => put(socket, &format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n")).await,
        "wrong-length" => put(socket, &format!("{ok}content-length: 100\r\n\r\nhello")).await,
        "two-lengths" => put(socket, &format!("{ok}content-length: 5\r\ncontent-length: 6\r\n\r\nhello!")).await,
        "reset" => {
            put(socket, &format!("{ok}content-length: 100\r\n\r\nhello")).await?;
            socket.set_zero_linger()
        }
        "garbage" => put(socket, "\u{0}\u{1}\u{2}SSH-2.0-OpenSSH\r\n\r\n").await,
        "silence" => forever().await,
        "continues" => again(socket, "HTTP/1.1 100 Continue\r\n\r\n", Duration::from_millis(1)).await,
        "loris" => again(socket, "H", Duration::from_millis(50)).await,
        "echo" | "echo-headers" => {
            let line = |name: &str| head.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap_or_default();
            let credential = line("authorization: ").split_once(": ").map(|(_, value)| value).unwrap_or_default();
            let bare = credential.rsplit(' ').next().unwrap_or_default();
            let echoed = format!("authorization: {credential}\r\nx-echo: you sent {credential}\r\nx-bare: {bare}\r\n");
            put(socket, &format!("{ok}{echoed}content-length: 2\r\n\r\nok")).await
        }
        "refuse" => {
            let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
            let length = body.len();
            put(socket, &format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\n\r\n{body}")).await
        }
        _ => put(socket, &format!("{ok}content-length: 2\r\n\r\nok")).await,
    }
}

async fn put(socket: &mut TcpStream, text: &str) -> io::Result<()> {
    socket.write_all(text.as_bytes()).await
}

/// The same again and again, until the client goes.
async fn again(socket: &mut TcpStream, text: &str, every: Duration) -> io::Result<()> {
    loop {
        put(socket, text).await?;
        if !every.is_zero() {
            tokio::time::sleep(every).await;
        }
    }
}

fn forever<T>() -> impl Future<Output = T> {
    std::future::pending()
}
