//! A proxy before a JSON API over HTTP: passes everything on, or answers instead, or changes the
//! reply. It handles each request separately and keeps no state.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a request is answered with.
pub enum Answer {
    /// What the server says.
    Its,
    /// What the server says, with every occurrence of one text replaced by another.
    Changed(String, String),
    /// This status, these further lines of the head, this body; the server never hears of it.
    Own(u16, &'static str, &'static str),
}

/// Decides by the first line of a request, as in `POST /api/v1/create HTTP/1.1`.
pub type RollbackThreshold = dyn Fn(&str) -> Answer + Send + Sync;

/// Starts one in front of a port of 127.0.0.1; its endpoint. It ends with its runtime.
pub async fn before(port: u16, rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let rule: Arc<RollbackThreshold> = Arc::new(rule);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let rule = rule.clone();
            tokio::spawn(async move { drop(serve(client, port, &*rule).await) });
        }
    });
    endpoint
}

async fn serve(mut client: TcpStream, port: u16, rule: &RollbackThreshold) -> io::Result<()> {
    let (head, body) = message(&mut client).await?;
    let first = head.lines().next().unwrap_or_default().to_owned();
    let (status, lines, body) = match rule(&first) {
        Answer::Own(status, lines, body) => (format!("{status} Own"), lines.to_owned(), body.to_owned()),
        Answer::Its => pass(port, &head, &body).await?,
        Answer::Changed(from, to) => {
            let (status, lines, body) = pass(port, &head, &body).await?;
            (status, lines, body.replace(&from, &to))
        }
    };
    let length = body.len();
    let reply = format!("HTTP/1.1 {status}\r\n{lines}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    client.write_all(reply.as_bytes()).await
}

/// The server's status, the lines of its head that matter, and its body.
async fn pass(port: u16, head: &str, body: &str) -> io::Result<(String, String, String)> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = head.replace("HTTP/1.1\r\n", "HTTP/1.0\r\n");
    server.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut reply = String::new();
    server.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split_once(' ').and_then(|(_, rest)| rest.lines().next()).unwrap_or_default();
    Ok((status.to_owned(), "content-type: application/json\r\n".to_owned(), body.to_owned()))
}

/// Head and body of a request that says how long it is.
async fn message(stream: &mut TcpStream) -> io::Result<(String, String)> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.map_or(0, |text| text.trim().parse().unwrap_or(0)) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
