//! Servers that send what no server should.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

use super::fake::{Fake, GETATTR, LOOKUP, READDIR, SIZE, Say, attributes, call, found, listing};
use super::proxy::{READ, WRITE};
use super::*;

/// Longer than any test: what ends, ends by itself.
const EVER: Duration = Duration::from_secs(3600);

/// What is made of a call's number.
type Lie = Box<dyn Fn([u8; 4]) -> Vec<u8> + Send>;

/// Answers the first call of each connection with what is made of the call's number, and then hangs up.
fn liar(answer: impl Fn([u8; 4]) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            if let Some(call) = call(&mut client) {
                let _ = client.write_all(&answer(call[..4].try_into().unwrap()));
            }
        }
    });
    port
}

fn record(body: &[u8]) -> Vec<u8> {
    [&(0x8000_0000 | body.len() as u32).to_be_bytes()[..], body].concat()
}

/// An accepted call's reply with this answer.
fn accepted(xid: [u8; 4], words: &[u32]) -> Vec<u8> {
    let head = [1u32, 0, 0, 0, 0];
    let words = head.iter().chain(words).flat_map(|word| word.to_be_bytes());
    record(&xid.into_iter().chain(words).collect::<Vec<u8>>())
}

async fn said(answer: impl Fn([u8; 4]) -> Vec<u8> + Send + 'static) -> Error {
    let port = liar(answer);
    let grant = NfsGrant::parse(&format!("nfs://127.0.0.1:{port}/e"), Some(port)).unwrap();
    NfsDirectory::open(NfsGrant { stall_timeout: EVER, ..grant }).stat("f").await.unwrap_err()
}

#[tokio::test]
async fn no_lie_about_calls_is_believed_or_waited_for() {
    const HUGE: u32 = u32::MAX;
    let lies: Vec<(&str, Lie)> = vec![
        ("nothing", Box::new(|_| Vec::new())),
        ("half a mark", Box::new(|_| vec![0x80, 0])),
        ("a record of 2 GiB", Box::new(|_| vec![0xff; 4096])),
        ("a record that is cut", Box::new(|xid| record(&[&xid[..], &[0; 100]].concat())[..50].to_vec())),
        ("fragments without end", Box::new(|_| vec![0; 1 << 20])),
        ("an empty record", Box::new(|_| record(&[]))),
        ("a reply to another call", Box::new(|xid| accepted(xid.map(|byte| !byte), &[0]))),
        ("a call", Box::new(|xid| record(&[&xid[..], &[0; 40]].concat()))),
        ("no handle", Box::new(|xid| accepted(xid, &[0]))),
        ("an empty handle", Box::new(|xid| accepted(xid, &[0, 0]))),
        ("a handle of 4 GiB", Box::new(|xid| accepted(xid, &[0, HUGE, 1, 2]))),
        ("a handle of 65 bytes", Box::new(|xid| accepted(xid, &[&[0, 65][..], &[7; 17]].concat()))),
        (
            "a verifier of 4 GiB",
            Box::new(|xid| record(&[&xid[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]].concat())),
        ),
        ("a status of no version", Box::new(|xid| accepted(xid, &[4711]))),
        ("text", Box::new(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        // As the mount protocol's it is right; as NFS's it is no answer to FSINFO.
        ("a handle for everything", Box::new(|xid| accepted(xid, &[0, 4, 1]))),
    ];
    for (lie, answer) in lies {
        let error = said(answer).await;
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{lie}: {error}");
    }
    let refused = said(|xid| record(&[&xid[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5]].concat())).await;
    assert_eq!(*refused.kind(), ErrorKind::Denied, "{refused}");
    let other =
        said(|xid| record(&[&xid[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].concat())).await;
    assert_eq!(*other.kind(), ErrorKind::Unsupported, "{other}");
}

/// The other tests here say something of the client only if it gets along with this server where that tells the truth.
#[tokio::test]
async fn the_truth_is_believed() {
    let fake = Fake::start(|_| Say::Truth);
    let directory = fake.open();
    assert_eq!(read(&directory, "f", None).await.unwrap(), [0, 0, 0, 7].repeat(SIZE as usize / 4));
    assert_eq!(write(&directory, "new", pattern(SIZE as usize)).await.unwrap(), u64::from(SIZE));
    let page = directory.list_entries("", None, 10).await.unwrap();
    assert_eq!(shown(&page.entries), [file("f", SIZE.into())]);
    assert_eq!(fake.connections(), 2, "one to mount, one to use");
}

#[tokio::test]
async fn no_lie_about_reading_is_believed() {
    let cases: [(&str, &[u32]); 6] = [
        ("nothing, and more to come", &[0, 0, 0, 0, 0]),
        ("nothing, and the end", &[0, 0, 0, 1, 0]),
        ("more than was asked for", &[0, 0, SIZE + 4, 0, SIZE + 4, 1, 2, 3]),
        ("a count that is not that of the bytes", &[0, 0, 8, 0, 4, 1]),
        ("4 GiB", &[0, 0, u32::MAX, 0, u32::MAX]),
        ("neither true nor false", &[0, 7, 0, 0, 0]),
    ];
    for (lie, words) in cases {
        let fake = Fake::saying(READ, words);
        let error = read(&fake.open(), "f", None).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{lie}: {error}");
        assert_eq!(fake.seen(READ), 1, "{lie}");
    }
    // One that is right about the count and sends more than it: the rest is not read.
    let much = [&[0, 0, SIZE + 4, 1, SIZE + 4], &[7; 26][..]].concat();
    assert!(read(&Fake::saying(READ, &much).open(), "f", None).await.is_err());
}

/// Whatever is behind a result would be kept in memory with the bytes that are slices of the record.
#[tokio::test]
async fn no_reply_has_anything_behind_its_result() {
    let read_of = |tail: usize| [&[0, 0, SIZE, 1, SIZE], &vec![7; SIZE as usize / 4 + tail][..]].concat();
    assert!(read(&Fake::saying(READ, &read_of(0)).open(), "f", None).await.is_ok());
    for tail in [1, 100, 1000, (1 << 18) - 100] {
        let fake = Fake::saying(READ, &read_of(tail));
        let error = read(&fake.open(), "f", None).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{tail}: {error}");
        assert_eq!(fake.seen(READ), 1, "{tail}");
    }
    for tail in [1, 1 << 17] {
        let long = [&listing(&[b"f"], 5, true)[..], &vec![0; tail]].concat();
        let error = Fake::saying(READDIR, &long).open().list_entries("", None, 10).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{tail}: {error}");
        let long = [&[0, 0, 0, SIZE, 2, 9, 9], &vec![0; tail][..]].concat();
        let error = write(&Fake::saying(WRITE, &long).open(), "new", pattern(SIZE as usize)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{tail}: {error}");
    }
    // Where what follows is not looked at, there is room for little.
    let long = [&found(1, SIZE.into())[..], &[0; 1024]].concat();
    let error = Fake::saying(LOOKUP, &long).open().stat("f").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A server that takes nothing: what is taken from the source is what is held, and that is what the directory says.
#[tokio::test]
async fn what_a_write_holds_is_what_it_says() {
    const CHUNK: u64 = 64 << 10;
    let fake = Fake::start(|asked| match asked.procedure {
        WRITE => Say::Nothing,
        _ => Say::Truth,
    });
    let directory = fake.open();
    let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let endless = futures::stream::repeat_with(move || {
        counted.fetch_add(CHUNK, std::sync::atomic::Ordering::SeqCst);
        Ok(pattern(CHUNK as usize))
    });
    let writer = directory.clone();
    let writing =
        tokio::spawn(async move { writer.write("new", Body::new(endless, None), WriteOptions::default()).await });
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = taken.load(std::sync::atomic::Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    writing.abort();
    let says = directory.write_holds(None);
    // One chunk is looked at ahead.
    assert!((says..=says + CHUNK).contains(&before), "{before} bytes were taken, and it says {says}");
    assert_eq!(directory.write_holds(Some(10)), 10);
}

/// Two replies at the largest: what is held for a listing is bounded by what is asked for, not by what is sent.
#[tokio::test]
async fn no_listing_is_longer_than_was_asked_for() {
    let names: Vec<Vec<u8>> = (0..4000).map(|n| format!("{n:04}").into_bytes()).collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let page = Fake::saying(READDIR, &listing(&names, 5, true)).open().list_entries("", None, 10).await.unwrap();
    assert_eq!(page.entries.len(), 10);
    let twice = [&names[..], &names].concat();
    let directory = Fake::saying(READDIR, &listing(&twice, 5, true)).open();
    let error = directory.list_entries("", None, 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let longest = 4 * listing(&twice, 5, true).len() as u64;
    assert!((128 << 10..longest * 4).contains(&directory.listing_holds(10)), "{}", directory.listing_holds(10));
}

#[tokio::test]
async fn the_largest_file_there_can_be_does_no_harm() {
    let fake = Fake::start(|asked| match asked.procedure {
        LOOKUP => Say::Words(found(1, u64::MAX)),
        READ => Say::Words(vec![0, 0, 0, 1, 0]),
        _ => Say::Truth,
    });
    let directory = fake.open();
    assert_eq!(directory.stat("f").await.unwrap().size, u64::MAX);
    for start in [0, 1, u64::MAX - 1] {
        let error = read(&directory, "f", Some(ByteRange { start, end: None })).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn no_lie_about_writing_is_believed() {
    let data = || pattern(SIZE as usize);
    let cases: [(&str, &[u32]); 3] = [
        ("more than was sent", &[0, 0, 0, SIZE + 1, 2, 9, 9]),
        ("nothing", &[0, 0, 0, 0, 2, 9, 9]),
        ("no verifier", &[0, 0, 0, SIZE, 2]),
    ];
    for (lie, words) in cases {
        let fake = Fake::saying(WRITE, words);
        let error = write(&fake.open(), "new", data()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{lie}: {error}");
        assert_eq!(fake.seen(WRITE), 1, "{lie}");
    }
    let fake = Fake::saying(GETATTR, &[&[0], &attributes(1, 99)[..]].concat());
    let error = write(&fake.open(), "new", data()).await.unwrap_err();
    assert!(error.to_string().contains("99 of 100 bytes"), "{error}");
}

#[tokio::test]
async fn no_listing_goes_on_for_ever() {
    // A cookie that leads back to one before it, and each time a name with it.
    let fake = Fake::start(|asked| match asked.procedure {
        READDIR => Say::Words(listing(&[b"f"], asked.count % 3 + 1, false)),
        _ => Say::Truth,
    });
    let error = fake.open().list_entries("", None, 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("is endless") && fake.seen(READDIR) < 20, "{error}");
    // Names that are none: a way out, the directory itself, nothing, and one that is not UTF-8.
    let names: [&[u8]; 7] = [b"../x", b"..", b".", b"", b"\xff\xfe", b"a\0b", b"f"];
    let page = Fake::saying(READDIR, &listing(&names, 5, true)).open().list_entries("", None, 10).await.unwrap();
    assert_eq!(shown(&page.entries), [file("f", SIZE.into())]);
    assert!(
        Fake::saying(READDIR, &listing(&[&[b'a'; 5000]], 5, true)).open().list_entries("", None, 10).await.is_err()
    );
}

#[tokio::test]
async fn what_is_always_stale_or_busy_or_cut_is_given_up() {
    const STALE: u32 = 70;
    const BUSY: u32 = 10008;
    for status in [STALE, BUSY] {
        let fake = Fake::saying(LOOKUP, &[status, 0]);
        let error = fake.open().stat("f").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(fake.seen(LOOKUP) < 20, "{}", fake.seen(LOOKUP));
    }
    // It answers others all the time, so that it is there, and never this one.
    let fake = Fake::start(|asked| match asked.procedure {
        LOOKUP if asked.names("new") => Say::Cut,
        _ => Say::Truth,
    });
    let directory = NfsDirectory::open(NfsGrant { patience: Duration::from_millis(200), ..fake.grant() });
    let other = async {
        loop {
            let _ = directory.stat("f").await;
        }
    };
    tokio::select! {
        _ = other => unreachable!(),
        result = directory.stat("new") => assert_eq!(*result.unwrap_err().kind(), ErrorKind::Unavailable),
    }
}

/// One after the other, the last of them would wait as many times as long.
#[tokio::test]
async fn whoever_waits_for_a_server_that_hangs_waits_once() {
    const FSINFO: u32 = 19;
    let fake = Fake::start(|asked| if asked.procedure == FSINFO { Say::Nothing } else { Say::Truth });
    let directory = NfsDirectory::open(NfsGrant { stall_timeout: Duration::from_millis(300), ..fake.grant() });
    let all = futures::future::join_all((0..32).map(|_| directory.stat("f"))).await;
    assert!(all.into_iter().all(|result| *result.unwrap_err().kind() == ErrorKind::Unavailable));
    assert!(fake.connections() <= 2, "one to mount, one that hangs; not {}", fake.connections());
}

#[tokio::test]
async fn only_what_was_quiet_for_longer_than_the_lease_is_collected() {
    const REMOVE: u32 = 12;
    /// The server's clock, in seconds.
    const NOW: u32 = 10_000;
    let changed = |mut words: Vec<u32>, when: u32| {
        // The last attribute: seconds, and billionths of one.
        let at = words.len() - 2;
        words[at] = when;
        Say::Words(words)
    };
    let fake = Fake::start(move |asked| match asked.procedure {
        READDIR => Say::Words(listing(&[b"dead", b"living"], 5, true)),
        GETATTR => changed([&[0], &attributes(1, 0)[..]].concat(), NOW),
        LOOKUP if asked.names("dead") => changed([&[0, 4, 1, 1], &attributes(1, 0)[..]].concat(), NOW - 901),
        LOOKUP if asked.names("living") => changed([&[0, 4, 1, 1], &attributes(1, 0)[..]].concat(), NOW - 900),
        _ => Say::Truth,
    });
    assert_eq!(fake.open().gc().await.unwrap(), 1);
    assert_eq!(fake.seen(REMOVE), 2, "the dead one, and the one that showed the time");
}

#[tokio::test]
async fn who_gives_up_while_a_file_is_made_leaves_none() {
    const CREATE: u32 = 8;
    const REMOVE: u32 = 12;
    let fake = Fake::start(|asked| if asked.procedure == CREATE { Say::Nothing } else { Say::Truth });
    let directory = fake.open();
    let mut writing = Box::pin(write(&directory, "new", "x"));
    while fake.seen(CREATE) == 0 {
        assert!(futures::poll!(&mut writing).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(writing);
    while fake.seen(REMOVE) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_export_that_was_made_anew_is_mounted_again() {
    const STALE: u32 = 70;
    let fake = Fake::start(|asked| match (asked.procedure, asked.count) {
        // Of the file, and of the export itself.
        (LOOKUP | READDIR, 1) | (GETATTR, 1 | 2) => Say::Words(vec![STALE, 0]),
        _ => Say::Truth,
    });
    let directory = fake.open();
    assert_eq!(directory.stat("f").await.unwrap().size, u64::from(SIZE));
    assert_eq!(fake.connections(), 4, "mounted, used, mounted, used");
    assert_eq!(directory.list_entries("", None, 10).await.unwrap().entries.len(), 1);
    assert_eq!(fake.connections(), 6);
}

/// A reader that pauses while what was read ahead for it connects again keeps nobody else away.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_holds_nothing_that_all_share() {
    const PIECE: u32 = 1 << 20;
    const FSINFO: u32 = 19;
    let fake = Fake::start(|asked| match (asked.procedure, asked.count) {
        (LOOKUP, _) => Say::Words(found(1, 8 * u64::from(PIECE))),
        // The first piece comes, and the next ones meet a server that goes away and is slow to come back.
        (READ, 2) => Say::Cut,
        (READ, _) => Say::Words([&[0, 0, PIECE, 0, PIECE], &vec![7; PIECE as usize / 4][..]].concat()),
        (FSINFO, 2..) => {
            std::thread::sleep(Duration::from_millis(600));
            Say::Truth
        }
        _ => Say::Truth,
    });
    let directory = fake.open();
    let mut body = directory.read("f", None).await.unwrap().body;
    body.next().await.unwrap().unwrap();
    let connecting = async {
        while fake.seen(FSINFO) < 2 {
            assert!(tokio::time::timeout(Duration::from_millis(5), body.next()).await.is_err(), "nothing came");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), connecting).await.unwrap();
    // From here on, nobody polls the body.
    let other = tokio::time::timeout(Duration::from_secs(60), directory.stat("f")).await;
    assert!(other.is_ok_and(|found| found.is_ok()), "it waits for the reader");
    assert_eq!(body.collect(100 << 20).await.unwrap().len(), 7 << 20, "and the reader gets the rest");
}
