//! Clients without the token: they do not block clients with it.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;

use rustix::net::{AddressFamily, SocketType, bind, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidelock_tests::daemon::{Daemon, Server, Stream, read};
use tidelock_tests::program::{Home, PATIENCE, until};

pub const TOKEN: &str = "0123456789abcdef-token";

pub fn serve(service: &str) -> (Home, Daemon) {
    let home = Home::with(&format!(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"tidelock-data/objects\" }}\n\
         [service]\n{service}\n",
    ));
    let file = home.file("token", format!("{TOKEN}\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::with(&home, &["--listen", "127.0.0.1:0", "--token-file", "token"], Some(TOKEN));
    (home, daemon)
}

/// Returns whether a connection was closed by the other side.
fn ended(stream: &mut Box<dyn Stream>) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok()
}

#[test]
fn idle_strangers_do_not_block_clients() {
    let (_home, daemon) = serve("connections = 8");
    let server = &daemon.server;
    let id = server.store(b"x");
    let stranger = Server { address: server.address.clone(), token: None };
    // Some say nothing, some half a head, and some a whole head with a body that they never send: these are refused at once.
    let head = stranger.head("PUT", "/v1/snapshots", &[("content-length", "1000000")]);
    let mut crowd: Vec<Box<dyn Stream>> = Vec::new();
    for number in 0..450 {
        let mut stream = stranger.connect();
        let _ = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(&head.as_bytes()[..20]),
            _ => stream.write_all(head.as_bytes()),
        };
        crowd.push(stream);
    }
    // Descriptors too are for the others: of those that said something, the first were cut off for the last, long before
    // their ten seconds are over. The 150 that have said nothing may stay until then.
    let open = || {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        let open = text.lines().find_map(|line| line.strip_prefix("tidelock_connections ")).unwrap();
        open.parse::<u32>().unwrap()
    };
    let came = std::time::Instant::now();
    until("the first are gone", || open() <= 410 || came.elapsed().as_secs() > 5);
    assert!((200..=410).contains(&open()), "{} connections", open());
    for _ in 0..3 {
        assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"x");
        assert_eq!(server.get("/healthz").status, 200);
    }
    assert!(ended(&mut crowd[0]));
    assert!(ended(&mut crowd[448]), "nobody stays for ever");
    assert_eq!(server.get(&format!("/v1/snapshots/{id}")).body, b"x");
    drop(crowd);
    daemon.stop();
}

/// A connection of another address of this machine.
fn connect_from(address: [u8; 4], server: &Server) -> TcpStream {
    let to: SocketAddrV4 = server.address.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(address.into(), 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// So many connections that send this.
fn flood(server: &Server, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let connect = |_| {
        let mut stream = connect_from([127, 0, 0, 1], server);
        stream.write_all(says).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Its head is in two parts, and a flood of others comes between them.
#[test]
fn a_client_with_the_token_that_is_slow_is_served_in_a_flood_from_elsewhere() {
    let (_home, daemon) = serve("");
    let server = &daemon.server;
    let head = server.head("GET", "/v1/snapshots", &[("connection", "close")]);
    let (first, second) = head.as_bytes().split_at(20);
    let mut slow = connect_from([127, 0, 0, 2], server);
    slow.write_all(first).unwrap();
    // What comes later is of one address, and cuts itself off.
    let mut crowd = flood(server, 700, b"GET /v1/");
    until("the flood meets its bound", || {
        crowd[0].set_nonblocking(true).unwrap();
        matches!(crowd[0].read(&mut [0]), Ok(0))
    });
    slow.write_all(second).unwrap();
    assert_eq!(read(&mut slow, false).status, 200);
    drop(crowd);
    daemon.stop();
}

/// It asks late, as one far away does: others of its own address came meanwhile, and said nothing.
#[test]
fn a_client_with_the_token_that_asks_late_is_served_in_a_flood() {
    let (_home, daemon) = serve("");
    let server = &daemon.server;
    let mut late = connect_from([127, 0, 0, 1], server);
    // A daemon may have few descriptors, and has fewer places for the silent then.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) / 8;
    let crowd = flood(server, usize::try_from(most).unwrap_or(usize::MAX).clamp(128, 800) - 10, b"");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let head = server.head("GET", "/v1/snapshots", &[("connection", "close")]);
    late.write_all(head.as_bytes()).unwrap();
    assert_eq!(read(&mut late, false).status, 200);
    drop(crowd);
    daemon.stop();
}

#[test]
fn clients_wait_for_a_place_and_get_an_error_without_one() {
    let (_home, daemon) = serve("connections = 1\nidle = \"2s\"");
    let server = &daemon.server;
    let mut first = server.connect();
    first.write_all(server.head("PUT", "/v1/snapshots", &[("content-length", "2000000")]).as_bytes()).unwrap();
    first.write_all(&[7; 1000]).unwrap();
    // It is the only one: strangers are answered, and clients with the token wait, or get an error.
    let stranger = Server { address: server.address.clone(), token: None };
    until("the first has the place", || stranger.get("/healthz").status == 200);
    let problem = server.get("/v1/snapshots").status;
    assert!([200, 429].contains(&problem), "{problem}");
    drop(first);
    until("there is a place again", || server.get("/v1/snapshots").status == 200);
    daemon.stop();
}

#[test]
fn a_body_of_nothing_has_to_be_meant() {
    let (_home, daemon) = serve("");
    let server = &daemon.server;
    let send = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let mut stream = server.connect();
        stream.write_all(server.head("PUT", path, headers).as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        read(&mut *stream, false)
    };
    let chunked = [("transfer-encoding", "chunked")];
    send("/v1/snapshots?name=vm", &chunked, b"0\r\n\r\n").problem(400, "invalid");
    send("/v1/snapshots?name=vm", &[], b"").problem(400, "invalid");
    assert_eq!(server.get("/v1/snapshots").json(200)["snapshots"].as_array().unwrap().len(), 0);
    send("/v1/snapshots?allow-empty", &chunked, b"0\r\n\r\n").json(201);
    send("/v1/snapshots", &[("content-length", "0")], b"").json(201);
    daemon.stop();
}
