//! The adapter `ipfs` on real Kubo nodes: each operation, and interoperability with IPFS's own tools.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{ConnectionSettings, HttpGrant};
use tidelock::config::Config;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ErrorKind, ObjectId, SettingValue, StoreHint};
use tidelock::{Body, ByteRange, Host, NoSecrets};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;
use xtask::backends::{Kubo, kubo};

use crate::support::{component, read, round_trip, store};

/// Two nodes that all tests share, which know each other alone; none, said aloud, where they cannot be had. Who wants to
/// stop one starts his own.
pub fn shared(test: &str) -> Option<&'static (Kubo, Kubo)> {
    static NODES: LazyLock<(Kubo, Kubo)> = LazyLock::new(|| Kubo::pair().expect("Kubo starts"));
    can(test).then(|| &*NODES)
}

/// Returns whether nodes can be had.
pub fn can(test: &str) -> bool {
    let why_not = kubo::why_not();
    if let Some(why) = &why_not {
        xtask::skip::skip(test, why);
    }
    why_not.is_none()
}

/// An adapter that asks these, with further settings.
pub async fn adapter(rpc: &str, gateway: Option<&str>, settings: &[(&str, SettingValue)]) -> Arc<Adapter> {
    // Each test loads it many times: it is compiled once.
    static ENGINE: LazyLock<Arc<Sandbox>> = LazyLock::new(|| {
        let cache = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
        Sandbox::new(EngineOptions { operations: 64, cache, ..Default::default() }).unwrap()
    });
    let mut capabilities = Capabilities::none();
    let mut all = vec![("rpc", text(rpc))];
    capabilities.grant_http("rpc", &grant(rpc)).unwrap();
    if let Some(gateway) = gateway {
        capabilities.grant_http("gateway", &grant(gateway)).unwrap();
        all.push(("gateway", text(gateway)));
    }
    all.extend(settings.iter().cloned());
    let settings = all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let (limits, trust) = (Limits::default(), Default::default());
    let spec = BackendSpec { name: "peers".into(), capabilities, settings, limits, trust };
    Arc::new(Adapter::load(&ENGINE, &spec, component("ipfs")).await.unwrap())
}

fn grant(url: &str) -> HttpGrant {
    HttpGrant { connection: ConnectionSettings::new(true), ..HttpGrant::to([url]).unwrap() }
}

pub fn text(value: &str) -> SettingValue {
    SettingValue::Text(value.into())
}

pub fn hint(key: &str, size: Option<u64>) -> StoreHint {
    StoreHint { key: key.into(), size, labels: Vec::new() }
}

pub fn id(text: &str) -> ObjectId {
    ObjectId::new(text).unwrap()
}

/// All bytes of an object, or of a part of it.
pub async fn get(adapter: &Arc<Adapter>, id: &ObjectId, range: Option<(usize, usize)>) -> tidelock::Result<Vec<u8>> {
    let range = range.map(|(start, end)| ByteRange { start: start as u64, end: Some(end as u64) });
    Ok(adapter.retrieve(id, range).await?.collect(1 << 30).await?.to_vec())
}

/// What Kubo's own command line prints, with bytes in a file as its last argument if there are some.
fn ipfs(node: &Kubo, arguments: &[&str], bytes: Option<&[u8]>) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = node.ipfs();
    command.args(arguments);
    if let Some(bytes) = bytes {
        fs::write(file.path(), bytes).unwrap();
        command.arg(file.path());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "ipfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}

/// Sizes around each edge of a file's tree, in trees of up to five levels; each stored, compared with what Kubo makes of
/// the same bytes, read with Kubo on the other node, and read back in whole and in parts.
#[tokio::test]
async fn every_size_is_what_kubo_makes_of_it() {
    let Some((first, second)) = shared("ipfs: every_size_is_what_kubo_makes_of_it") else { return };
    let usual = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 5 * MIB + 7];
    let edges = [0, 1, 3, 10, 28, 82].map(|leaves: usize| leaves * 4096);
    let small = edges.into_iter().flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]);
    let cases = usual.iter().map(|&size| (1 << 20, 1024, size)).chain(small.map(|size| (4096, 3, size)));
    for (number, (chunk, links, size)) in cases.enumerate() {
        let settings = [("chunk-size", SettingValue::Integer(chunk)), ("max-links", SettingValue::Integer(links))];
        let ipfs_of = |gateway| adapter(&first.rpc, gateway, &settings);
        let (by_rpc, by_gateway) = (ipfs_of(None).await, ipfs_of(Some(first.gateway.as_str())).await);
        let bytes = noise(size, number as u64);
        let known = number.is_multiple_of(2).then_some(size as u64);
        let key = format!("size-{chunk}-{size}");
        let stored = by_rpc.store(Body::from_bytes(bytes.clone()), hint(&key, known)).await.unwrap();
        assert_eq!(stored.size, size as u64);
        assert!(by_rpc.bytes_through_guest() < 100_000, "{} bytes were carried", by_rpc.bytes_through_guest());
        // That the daemon agreed is known: the adapter would have refused it. Its command line is asked now and then.
        if number.is_multiple_of(4) {
            let (chunker, width) = (format!("--chunker=size-{chunk}"), format!("--max-file-links={links}"));
            let kubos = ["add", "-Q", "--only-hash", "--cid-version=1", "--raw-leaves", &chunker, &width];
            assert_eq!(line(&ipfs(first, &kubos, Some(&bytes))), stored.id.as_str(), "{size} in pieces of {chunk}");
            // Kubo does not give the block of nothing to its peers, or not always.
            if size > 0 {
                let elsewhere = ipfs(second, &["cat", "--timeout=60s", stored.id.as_str()], None);
                assert_same(&elsewhere, &bytes, "`ipfs cat` on the other node");
            }
            let there = adapter(&second.rpc, None, &settings).await;
            assert_same(&get(&there, &stored.id, None).await.unwrap(), &bytes, "through the other node");
        }
        for adapter in [&by_rpc, &by_gateway] {
            assert_same(&get(adapter, &stored.id, None).await.unwrap(), &bytes, "whole");
            for (start, end) in [
                (0, size / 2),
                (size / 3, size),
                (size, size),
                (size / 2, size / 2 + 1),
                (size.saturating_sub(1), size + 9),
            ] {
                let found = get(adapter, &stored.id, Some((start, end))).await.unwrap();
                assert_same(&found, &bytes[start.min(size)..end.min(size)], &format!("{start}..{end} of {size}"));
            }
            let beyond = get(adapter, &stored.id, Some((size + 1, size + 2))).await.unwrap_err();
            assert_eq!(*beyond.kind(), ErrorKind::Invalid);
            let stat = adapter.stat(&stored.id).await.unwrap();
            assert_eq!((stat.size, stat.base), (size as u64, None));
        }
    }
}

/// The same zeros over and over, as images have them: a CAR has them once.
#[tokio::test]
async fn blocks_that_repeat_are_read_each_time() {
    let Some((first, second)) = shared("ipfs: blocks_that_repeat_are_read_each_time") else { return };
    let settings = [("chunk-size", SettingValue::Integer(4096)), ("max-links", SettingValue::Integer(5))];
    let writer = adapter(&first.rpc, None, &settings).await;
    let pieces: Vec<Vec<u8>> = (0..20).map(|seed| noise(4096, seed)).collect();
    let mut bytes = vec![0; 40 * 4096];
    for at in 0..300usize {
        bytes.extend_from_slice(&pieces[(at * at + at / 7) % 20]);
    }
    bytes.extend(vec![0; 50 * 4096 + 5]);
    let stored = writer.store(Body::from_bytes(bytes.clone()), hint("repeats", None)).await.unwrap();
    for (rpc, gateway) in [(&first.rpc, None), (&first.rpc, Some(first.gateway.as_str())), (&second.rpc, None)] {
        let reader = adapter(rpc, gateway, &[]).await;
        assert_same(&get(&reader, &stored.id, None).await.unwrap(), &bytes, "whole");
        let range = (10_000, bytes.len() - 10_000);
        assert_same(&get(&reader, &stored.id, Some(range)).await.unwrap(), &bytes[range.0..range.1], "a part");
    }
}

#[tokio::test]
async fn an_object_of_one_node_is_read_at_another() {
    let Some((first, second)) = shared("ipfs: an_object_of_one_node_is_read_at_another") else { return };
    for (number, gateway) in [None, Some(second.gateway.as_str())].into_iter().enumerate() {
        let bytes = noise(9 * MIB + 5, 70 + number as u64);
        let here = adapter(&first.rpc, None, &[]).await;
        let stored = here.store(Body::from_bytes(bytes.clone()), hint("elsewhere", None)).await.unwrap();
        let there = adapter(&second.rpc, gateway, &[]).await;
        let part = (3 * MIB - 1, 5 * MIB + 1);
        assert_same(&get(&there, &stored.id, Some(part)).await.unwrap(), &bytes[part.0..part.1], "a part");
        assert_same(&get(&there, &stored.id, None).await.unwrap(), &bytes, "whole");
        // To read is not to keep.
        assert_eq!(*there.stat(&stored.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn an_object_of_ipfs_add_is_read() {
    let Some((first, _)) = shared("ipfs: an_object_of_ipfs_add_is_read") else { return };
    let readers = [adapter(&first.rpc, None, &[]).await, adapter(&first.rpc, Some(first.gateway.as_str()), &[]).await];
    let bytes = noise(3 * MIB + 77, 5);
    for (options, bytes) in [
        (&[][..], &bytes[..]),
        (&["--cid-version=0"], &bytes[..100]),
        (&["--cid-version=0"], b""),
        (&["--cid-version=1"], &bytes[..]),
        (&["--cid-version=1", "--raw-leaves=false"], &bytes[..]),
        (&["--trickle"], &bytes[..]),
        (&["--cid-version=1", "--trickle", "--chunker=size-5000"], &bytes[..]),
        (&["--chunker=rabin-4096-8192-16384"], &bytes[..]),
        (&["--inline", "--cid-version=1"], b"held by its own name"),
        (&["--cid-version=1", "--preserve-mtime", "--preserve-mode"], &bytes[..]),
    ] {
        let cid = line(&ipfs(first, &[&["add", "-Q"], options].concat(), Some(bytes)));
        for reader in &readers {
            let what = format!("{cid}, `ipfs add {}`", options.join(" "));
            assert_same(&get(reader, &id(&cid), None).await.unwrap(), bytes, &what);
            let (start, end) = (bytes.len() / 4, bytes.len() / 2);
            assert_same(&get(reader, &id(&cid), Some((start, end))).await.unwrap(), &bytes[start..end], &what);
            assert_eq!(reader.stat(&id(&cid)).await.unwrap().size, bytes.len() as u64, "{what}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let cid = line(&ipfs(first, &["add", "-Q", "-r", folder.path().to_str().unwrap()], None));
    for reader in &readers {
        let error = get(reader, &id(&cid), None).await.unwrap_err();
        assert!(*error.kind() == ErrorKind::Invalid && error.to_string().contains("directory"), "{error}");
        assert_eq!(*reader.stat(&id(&cid)).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn lineage_is_kept_in_ipfs() {
    let Some((first, second)) = shared("ipfs: lineage_is_kept_in_ipfs") else { return };
    let ipfs_here = adapter(&first.rpc, None, &[("namespace", text("lineage"))]).await;
    let (old, new) = (noise(2 * MIB, 11), noise(MIB + 1, 12));
    let base = ipfs_here.store(Body::from_bytes(old.clone()), hint("base", None)).await.unwrap();
    let change = |key: &'static str, base: ObjectId, bytes: Vec<u8>| {
        let adapter = ipfs_here.clone();
        async move { adapter.incremental_update(&base, Body::from_bytes(bytes), hint(key, None)).await }
    };
    let delta = change("delta", base.id.clone(), new.clone()).await.unwrap();
    let further = change("further", delta.id.clone(), Vec::new()).await.unwrap();
    // Equal bytes against the same base: another change all the same.
    let again = change("again", base.id.clone(), new.clone()).await.unwrap();
    assert_ne!(again.id, delta.id);
    assert_eq!((delta.size, further.size), (MIB as u64 + 1, 0));
    // Another host, which has the daemon only.
    let other = adapter(&first.rpc, Some(first.gateway.as_str()), &[("namespace", text("lineage"))]).await;
    for (id, base, size) in
        [(&delta.id, Some(&base.id), new.len()), (&further.id, Some(&delta.id), 0), (&base.id, None, old.len())]
    {
        let stat = other.stat(id).await.unwrap();
        assert_eq!((stat.base.as_ref(), stat.size), (base, size as u64));
    }
    for reader in [&other, &ipfs_here] {
        assert_same(&get(reader, &delta.id, None).await.unwrap(), &new, "the bytes of the change");
        assert_same(&get(reader, &delta.id, Some((5, MIB))).await.unwrap(), &new[5..MIB], "a part of them");
        assert_same(&get(reader, &further.id, None).await.unwrap(), b"", "an empty change");
    }
    // Other tools follow the links, on the other node too.
    let elsewhere = ipfs(second, &["cat", "--timeout=60s", &format!("{}/delta", delta.id)], None);
    assert_same(&elsewhere, &new, "`ipfs cat NODE/delta`");
    let listed = other.list_objects(None, 10).await.unwrap();
    let mut ids: Vec<_> = listed.entries.iter().map(|entry| (entry.id.clone(), entry.size)).collect();
    ids.sort();
    let mut expected = vec![
        (base.id.clone(), old.len() as u64),
        (delta.id.clone(), new.len() as u64),
        (further.id.clone(), 0),
        (again.id.clone(), new.len() as u64),
    ];
    expected.sort();
    assert_eq!((ids, listed.next), (expected, None));
    assert_eq!(line(&ipfs(first, &["files", "ls", "/"], None)), "", "nothing is left aside");

    let absent = id("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy");
    let error = change("orphan", absent, noise(10, 1)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");

    // Without its base's pin a change is whole, also when what nothing pins has been collected.
    other.remove(&base.id).await.unwrap();
    other.remove(&again.id).await.unwrap();
    assert_eq!(*other.stat(&base.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.stat(&delta.id).await.unwrap().base, Some(base.id.clone()));
}

#[tokio::test]
async fn a_removed_object_is_gone_and_its_shared_blocks_are_not() {
    if !can("ipfs: a_removed_object_is_gone_and_its_shared_blocks_are_not") {
        return;
    }
    let node = Kubo::start().unwrap();
    let short = [("timeout", SettingValue::Integer(1))];
    let ipfs_here = adapter(&node.rpc, None, &short).await;
    let bytes = noise(3 * MIB, 21);
    let longer = [&bytes[..], &noise(MIB, 22)].concat();
    let stored = async |key: &str, bytes: &[u8]| {
        ipfs_here.store(Body::from_bytes(bytes.to_vec()), hint(key, None)).await.unwrap().id
    };
    let (one, same, more) = (stored("one", &bytes).await, stored("same", &bytes).await, stored("more", &longer).await);
    assert_eq!(one, same, "equal bytes are one object");
    let update = Body::from_bytes(bytes.clone());
    let change = ipfs_here.incremental_update(&more, update, hint("change", None)).await.unwrap().id;
    for _ in 0..2 {
        ipfs_here.remove(&one).await.unwrap();
    }
    ipfs_here.remove(&more).await.unwrap();
    for gone in [&one, &more] {
        assert_eq!(*ipfs_here.stat(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    ipfs(&node, &["repo", "gc"], None);
    // The change has its base's blocks, and its own.
    assert_same(&get(&ipfs_here, &change, None).await.unwrap(), &bytes, "the change after a collection");
    assert_same(&get(&ipfs_here, &more, None).await.unwrap(), &longer, "its base");
    ipfs_here.remove(&change).await.unwrap();
    ipfs(&node, &["repo", "gc"], None);
    for gone in [&change, &one, &more] {
        let error = get(&ipfs_here, gone, None).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert!(ipfs_here.list_objects(None, 10).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn the_inventory_lists_what_is_ours_page_by_page() {
    let Some((first, _)) = shared("ipfs: the_inventory_lists_what_is_ours_page_by_page") else { return };
    let mine = adapter(&first.rpc, None, &[("namespace", text("mine"))]).await;
    let others = adapter(&first.rpc, None, &[("namespace", text("mine-not"))]).await;
    ipfs(first, &["add", "-Q", "--pin-name=something of mine/else"], Some(b"pinned by hand"));
    let mut expected = Vec::new();
    for number in 0..7usize {
        let bytes = noise(1000 + number * MIB / 3, 100 + number as u64);
        others.store(Body::from_bytes(noise(50, 200 + number as u64)), hint("x", None)).await.unwrap();
        let stored = mine.store(Body::from_bytes(bytes), hint(&format!("n-{number}"), None)).await.unwrap();
        expected.push((stored.id, stored.size));
    }
    let changed = mine.incremental_update(&expected[0].0, Body::from_bytes("change"), hint("c", None)).await.unwrap();
    expected.push((changed.id, changed.size));
    others.incremental_update(&expected[0].0, Body::from_bytes("change"), hint("d", None)).await.unwrap();
    expected.sort();
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = mine.list_objects(cursor, 3).await.unwrap();
        assert!(page.entries.len() <= 3);
        found.extend(page.entries.into_iter().map(|entry| (entry.id, entry.size)));
        (cursor, pages) = (page.next, pages + 1);
        if cursor.is_none() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, expected);
    assert!(pages >= 3);
}

fn table(node: &Kubo, more: &str) -> String {
    let Kubo { rpc, gateway, .. } = node;
    format!(
        "[backends.peers]\nadapter = \"ipfs\"\nsettings = {{ rpc = \"{rpc}\"{more} }}\n\
         grants.http.rpc = {{ origins = [\"{rpc}\"], private_addresses = true }}\n\
         grants.http.gateway = {{ origins = [\"{gateway}\"], private_addresses = true }}\n"
    )
}

#[tokio::test]
async fn a_host_keeps_snapshots_in_it() {
    let Some((first, _)) = shared("ipfs: a_host_keeps_snapshots_in_it") else { return };
    let dir = tempfile::tempdir().unwrap();
    let gateway = format!(", gateway = \"{}\", namespace = \"host\"", first.gateway);
    let text = format!("data_dir = \"data\"\n{}", table(first, &gateway));
    let host = Host::start(&Config::parse(&text, dir.path()).unwrap(), &NoSecrets).await.unwrap();
    let old = noise(9 * MIB + 5, 31);
    let base = round_trip(&host, &old).await;
    let new = store(&host, &changed(&old, 2)).await.unwrap();
    let range = host.retrieve(base.id, Some("4095..9000000".parse().unwrap())).await.unwrap();
    assert_same(&range.body.collect(1 << 30).await.unwrap(), &old[4095..9_000_000], "a range");

    // A stream is stored before it is known to be there already: the object of both is one, and stays.
    let stream =
        || tidelock::Source::Stream(tidelock::snapshot::StreamSource::new(&b"seen twice"[..], "it".to_owned()));
    let once = host.store(stream(), Default::default()).await.unwrap();
    let twice = host.store(stream(), Default::default()).await.unwrap();
    assert_eq!((once.id, &once.placements[0].object), (twice.id, &twice.placements[0].object));
    assert_same(&read(&host, once.id).await.unwrap(), b"seen twice", "stored twice");
    assert!(first.ask(&format!("pin/ls?arg={}", once.placements[0].object)).is_ok(), "and still pinned");

    host.remove(once.id).await.unwrap();
    assert!(first.ask(&format!("pin/ls?arg={}", once.placements[0].object)).is_err());
    assert_same(&read(&host, new.id).await.unwrap(), &changed(&old, 2), "beside what was removed");
    let collected = host.gc(std::time::Duration::ZERO).await.unwrap();
    assert_eq!((collected.leftovers, collected.objects), (0, 0));
}

#[test]
fn the_program_stores_in_it_and_reports_when_it_is_down() {
    if !can("ipfs: the_program_stores_in_it_and_reports_when_it_is_down") {
        return;
    }
    let (mut first, second) = Kubo::pair().unwrap();
    let home = Home::with(&table(&first, ""));
    let bytes = noise(20 * MIB + 1, 41);
    let image = home.file("image", &bytes);
    let stored = home.json(&["store", &image, "--raw"]);
    let id = stored["id"].as_str().unwrap();
    let cid = stored["placements"][0]["object"].as_str().unwrap();
    assert_same(&ipfs(&second, &["cat", "--timeout=60s", cid], None), &bytes, "`ipfs cat` on the other node");
    let next = home.line_with(&["update", id, "-"], &changed(&bytes, 2));
    assert_eq!(home.json(&["stat", &next])["base"], id);
    assert_same(&home.bytes(&["retrieve", id, "--range", "4095..9000000"]), &bytes[4095..9_000_000], "a range");
    home.json(&["verify", "--deep"]);
    first.kill();
    let said = home.refused(1, &["retrieve", id]);
    assert!(said.contains("peers"), "{said}");
    first.restart().unwrap();
    assert_same(&home.bytes(&["retrieve", id]), &bytes, "after the outage");
    home.run(&["rm", id]).success(&["rm"]);
    assert_same(&home.bytes(&["retrieve", &next]), &changed(&bytes, 2), "the change of what was removed");
}
