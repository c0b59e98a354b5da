//! What stands between a host and a server in the world: TLS with a certificate of a private authority, and a proxy.
//!
//! Both listen on loopback until the process ends. The certificates are in `fixtures/tls`; they are used nowhere else.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", "tls", name].iter().collect()
}

/// The certificate of the authority that [`tls`] is certified by.
pub fn authority() -> PathBuf {
    fixture("ca.pem")
}

/// A runtime that serves until the process ends.
fn serve(future: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future);
    });
}

/// Serves what listens at an address over TLS, as `localhost` and `127.0.0.1`. Returns its port.
pub fn tls(behind: &str) -> u16 {
    let certificates = CertificateDer::pem_file_iter(fixture("server.pem")).expect("a certificate");
    let certificates = certificates.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a certificate and its key");
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), behind.to_owned());
    let (port, ready) = std::sync::mpsc::channel();
    serve(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of loopback");
        port.send(listener.local_addr().expect("it has an address").port()).expect("the test waits");
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let mut outer = acceptor.accept(socket).await?;
                let mut inner = TcpStream::connect(behind).await?;
                copy_bidirectional(&mut outer, &mut inner).await
            });
        }
    });
    ready.recv().expect("it listens")
}

/// A proxy that tunnels (CONNECT) and forwards (`GET http://…`).
pub struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one. It connects to loopback only, whatever name is asked for.
    pub fn start() -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (port, ready) = std::sync::mpsc::channel();
        let seen = heads.clone();
        serve(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of loopback");
            port.send(listener.local_addr().expect("it has an address").port()).expect("the test waits");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(relay(socket, seen.clone()));
            }
        });
        Self { port: ready.recv().expect("it listens"), heads }
    }

    /// The heads of the first requests of all connections.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn relay(mut client: TcpStream, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let authority = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let port = authority.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(80);
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        server.write_all(&bytes[end..]).await?;
    } else {
        server.write_all(&bytes).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
