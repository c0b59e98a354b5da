//! The program and buckets as they are in the world: hostile, behind proxies, certified by private authorities.

use std::time::Duration;

use tidelock_tests::between::{Proxy, authority, tls};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::odd::{Odd, Then, on, refuse};
use tidelock_tests::program::{Home, ProgramOutput, Running};

/// A folder with one backend, `cloud`, with an endpoint and further keys of its grant.
fn home(endpoint: &str, keys: &str) -> Home {
    let mut home = Home::with(&format!(
        "[backends.cloud]\nadapter = \"s3\"\nlimits = {{ idle = \"15s\" }}\n\
         [backends.cloud.grants.bucket.objects]\nendpoint = \"{endpoint}\"\nbucket = \"b\"\npath_style = true\n\
         credentials = {{ env = \"CLOUD\" }}\n{keys}\n"
    ));
    home.env("CLOUD_ACCESS_KEY_ID", "AK");
    home.env("CLOUD_SECRET_ACCESS_KEY", "hush-hush");
    for name in ["https_proxy", "http_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        home.env(name, "");
    }
    home
}

/// Runs the program to its end; gives also the most memory that it had, in KiB.
fn measured(home: &Home, arguments: &[&str]) -> (ProgramOutput, u64) {
    let mut running = Running::start(home.command(arguments));
    let status = format!("/proc/{}/status", running.pid());
    let mut most = 0;
    while running.runs() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    (running.finish(), most)
}

/// A reply of 1 GiB of white space, to every kind of request, as an answer and as a refusal.
#[test]
fn a_server_that_floods_does_not_fill_the_memory() {
    let calm = {
        let server = Odd::start(vec![]);
        let home = home(&server.endpoint, "");
        let file = home.file("image", noise(20 * MIB, 1));
        let (stored, peak) = measured(&home, &["store", &file]);
        stored.success(&["store"]);
        peak
    };
    let flood = |status| Then::Flood { status, bytes: 1 << 30 };
    for (operation, size, arguments) in [
        ("Put", 1000, &["store", "image"][..]),
        ("Begin", 20 * MIB, &["store", "image"]),
        ("Part", 20 * MIB, &["store", "image"]),
        ("Complete", 20 * MIB, &["store", "image"]),
        ("List", 0, &["import", "cloud"]),
    ] {
        for status in [200, 403, 500] {
            let server = Odd::start(vec![on(operation, usize::MAX, flood(status))]);
            let home = home(&server.endpoint, "");
            home.file("image", noise(size, 1));
            let (ended, peak) = measured(&home, arguments);
            assert!(ended.status.code() == Some(1), "{operation} {status}: {}", ended.stderr);
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
            // Parts in flight, and a little.
            assert!(peak > 0 && peak < calm + (64 << 10), "{operation} {status}: {peak} KiB, and {calm} KiB in peace");
            assert!(server.count(operation) <= 16, "{operation} {status}: {}", server.count(operation));
        }
    }
    // A refused read.
    for status in [404, 500] {
        let server = Odd::start(vec![]);
        let home = home(&server.endpoint, "");
        let id = home.line(&["store", &home.file("image", b"x")]);
        server.rule(on("Get", usize::MAX, flood(status)));
        let (ended, peak) = measured(&home, &["retrieve", &id]);
        assert_ne!(ended.status.code(), Some(0), "{status}");
        assert!(peak < calm + (64 << 10), "{status}: {peak} KiB, and {calm} KiB in peace");
    }
}

/// Without a size, parts grow with the stream, and not with the memory.
#[test]
fn a_long_stream_is_stored_in_bounded_memory() {
    let server = Odd::start(vec![]);
    let home = home(&server.endpoint, "largest_part = \"5 MiB\"");
    let mut running = Running::start(home.command(&["store", "-"]));
    let piece = noise(MIB, 3);
    for _ in 0..900 {
        running.feed(&piece).unwrap();
    }
    let text = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let peak = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    running.finish().success(&["store", "-"]);
    assert!(peak.unwrap() < 300 << 10, "{peak:?} KiB");
    assert_eq!(server.objects().values().next().unwrap().len(), 900 * MIB);
}

#[test]
fn a_private_authority_is_named_or_hinted_at() {
    let server = Odd::start(vec![]);
    let endpoint = format!("https://localhost:{}", tls(server.endpoint.trim_start_matches("http://")));
    let bytes = noise(1000, 4);
    let store = |home: &Home| home.run(&["store", &home.file("image", &bytes)]);

    let unknown = store(&home(&endpoint, "")).refused(1, &["store"]);
    assert!(unknown.contains("hint") && unknown.contains("ca_file") && unknown.contains("SSL_CERT_FILE"), "{unknown}");
    let named = home(&endpoint, &format!("ca_file = {:?}", authority()));
    store(&named).success(&["store"]);
    let mut environment = home(&endpoint, "");
    environment.env("SSL_CERT_FILE", authority().to_str().unwrap());
    store(&environment).success(&["store"]);
    assert_same(&environment.bytes(&["retrieve", &environment.line(&["id", "image"])]), &bytes, "over TLS");

    environment.env("SSL_CERT_FILE", "/nonexistent/ca.pem");
    // It is reported even where a folder of certificates would do.
    environment.env("SSL_CERT_DIR", authority().parent().unwrap().to_str().unwrap());
    let missing = environment.run(&["retrieve", &environment.line(&["id", "image"])]).refused(2, &["retrieve"]);
    assert!(missing.contains("/nonexistent/ca.pem") && missing.contains("hint"), "{missing}");
    for wrong in ["/nonexistent/ca.pem", "tidelock.toml"] {
        let said = store(&home(&endpoint, &format!("ca_file = \"{wrong}\""))).stderr;
        assert!(said.contains("ca_file") && said.contains(wrong), "{said}");
    }
}

#[test]
fn a_proxy_is_used_where_one_is_named() {
    let server = Odd::start(vec![]);
    let port = tls(server.endpoint.trim_start_matches("http://"));
    // A name that does not resolve here: only the proxy can reach it. The certificate is for another name, so TLS ends
    // there.
    let ca = format!("ca_file = {:?}", authority());
    let store = |home: &Home| home.run(&["store", &home.file("image", b"x")]);

    // In the grant: tunnelled for https, forwarded for http; loopback too, since it was asked for.
    for endpoint in [format!("https://localhost:{port}"), server.endpoint.clone()] {
        let proxy = Proxy::start();
        let home = home(&endpoint, &format!("{ca}\nproxy = \"http://127.0.0.1:{}\"", proxy.port));
        store(&home).success(&["store"]);
        let heads = proxy.heads();
        let expected = if endpoint.starts_with("https") {
            format!("CONNECT localhost:{port} ")
        } else {
            // Whichever request comes first on the connection.
            format!(" {endpoint}/b/")
        };
        assert!(heads.iter().any(|head| head.contains(&expected)), "{heads:?}");
        assert!(!heads.concat().contains("hush-hush"));
    }

    // In the environment: not for this machine, and with user and password, which are not shown.
    let proxy = Proxy::start();
    let url = format!("http://user:secret-word@127.0.0.1:{}", proxy.port);
    let mut local = home(&format!("https://localhost:{port}"), &ca);
    local.env("HTTPS_PROXY", &url);
    store(&local).success(&["store"]);
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());
    let mut far = home(&format!("https://bucket.invalid:{port}"), &ca);
    far.env("HTTPS_PROXY", &url);
    far.env("RUST_LOG", "trace");
    let said = store(&far).refused(1, &["store"]);
    let heads = proxy.heads();
    assert!(heads[0].starts_with(&format!("CONNECT bucket.invalid:{port} ")), "{heads:?}");
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic dxnlcjpzzwnyzxqtd29yza=="), "{heads:?}");
    assert!(!said.contains("secret-word") && said.contains("hint"), "{said}");
    // Neither with an exception for the host nor if the grant says so.
    let seen = proxy.heads().len();
    far.env("NO_PROXY", ".invalid");
    store(&far).refused(1, &["store"]);
    let mut direct = home(&format!("https://bucket.invalid:{port}"), &format!("{ca}\nproxy = \"none\""));
    direct.env("HTTPS_PROXY", &url);
    store(&direct).refused(1, &["store"]);
    assert_eq!(proxy.heads().len(), seen);
    // A proxy that is away, and one that is none, without their passwords.
    far.env("NO_PROXY", "");
    for wrong in ["http://user:secret-word@127.0.0.1:1", "socks5://user:secret-word@127.0.0.1:1"] {
        far.env("HTTPS_PROXY", wrong);
        let said = store(&far).stderr;
        assert!(!said.contains("secret-word") && !said.is_empty(), "{said}");
    }
}

/// The whole way of an import, past keys of others, with a service that needs patience.
#[test]
fn an_import_finds_what_is_between_the_keys_of_others() {
    let server = Odd::start(vec![
        on("List", 1, refuse(503, "SlowDown", "slow")),
        on("Get", 1, refuse(500, "InternalError", "broken")),
    ]);
    for n in 0..2_500 {
        server.put(&format!("a/./{n:05}"), "x");
    }
    let first = home(&server.endpoint, "");
    let ids: Vec<String> = (0..3).map(|n| first.line(&["store", &first.file("image", noise(1000, n))])).collect();
    let second = home(&server.endpoint, "");
    let imported = second.json(&["import", "cloud"]);
    assert_eq!(imported["imported"], 3, "{imported}");
    for id in ids {
        assert_eq!(second.bytes(&["retrieve", &id]).len(), 1000);
    }
}

/// Pages that are small on the wire and large in memory.
#[test]
fn a_page_of_many_small_elements_does_not_fill_the_memory() {
    let peak = |body: String, uploads: bool| {
        let operation = if uploads { "ListUploads" } else { "List" };
        let answer = Then::Answer { status: 200, headers: String::new(), body };
        let server = Odd::start(vec![]);
        let home = home(&server.endpoint, "");
        home.line(&["store", &home.file("image", b"x")]);
        server.rule(on(operation, usize::MAX, answer));
        let (ended, peak) = measured(&home, if uploads { &["gc"] } else { &["import", "cloud"] });
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        (ended.status.success(), peak)
    };
    let (_, calm) = peak("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".into(), false);
    let fill = |unit: &str| unit.repeat((4 * MIB - 1000) / unit.len());
    for inner in [
        fill("<Contents/>"),
        fill("<CommonPrefixes/>"),
        fill("<Upload/>"),
        fill("<x/>"),
        format!("<Contents><Key>a</Key><Size>1</Size>{}</Contents>", fill("<ChecksumAlgorithm/>")),
        format!("<x {}/>", fill("a='' ")),
    ] {
        for (uploads, name) in [(false, "ListBucketResult"), (true, "ListMultipartUploadsResult")] {
            let page = format!("<{name}><IsTruncated>false</IsTruncated>{inner}</{name}>");
            let (succeeded, peak) = peak(page, uploads);
            assert!(!succeeded && peak < calm + (24 << 10), "{} {peak} KiB, and {calm} KiB in peace", &inner[..30]);
        }
    }
}

/// What is held for a listing is charged before it is asked for, so an operation that may hold little has short pages.
#[test]
fn a_listing_is_held_for_by_its_operation() {
    let server = Odd::start(vec![]);
    let host = |held: &str| {
        let home = home(&server.endpoint, "");
        let config = std::fs::read_to_string(home.path("tidelock.toml")).unwrap();
        let config = config.replace("idle = \"15s\"", &format!("idle = \"15s\", held_bytes = \"{held}\""));
        std::fs::write(home.path("tidelock.toml"), config).unwrap();
        home
    };
    let ids: Vec<String> = {
        let home = host("128 MiB");
        (0..3).map(|n| home.line(&["store", &home.file("image", noise(1000, n))])).collect()
    };
    let pages = |home: &Home| {
        let seen = server.requests().len();
        let imported = home.json(&["import", "cloud"]);
        assert_eq!(imported["imported"], ids.len(), "{imported}");
        let asked = server.requests().split_off(seen).into_iter().filter(|request| request.operation() == "List");
        // Whether it serves, an adapter asks with the shortest page.
        asked.map(|request| request.target).filter(|target| !target.contains("max-keys=1&")).collect::<Vec<_>>()
    };
    let long = pages(&host("128 MiB"));
    assert!(!long.is_empty() && long.iter().all(|target| target.contains("max-keys=1000")), "{long:?}");
    let short = pages(&host("8 MiB"));
    assert!(!short.is_empty() && short.iter().all(|target| target.contains("max-keys=240&")), "{short:?}");
    // Nor is one asked for, or anything else, for which there is no room.
    let seen = server.requests().len();
    let said = host("512 KiB").run(&["import", "cloud"]).stderr;
    assert!(said.contains("held bytes 512 KiB"), "{said}");
    assert_eq!(server.requests().len(), seen);
}
