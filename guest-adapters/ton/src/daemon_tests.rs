//! What a daemon reports about a bag is accepted only if the id proves it.

use proptest::prelude::*;

use super::*;

const ID: &str = "fdce766a62d2299420794298bb7515284a9ba40e52a6dcfa16d5559f7acf4be1";
/// The hash of the one leaf of that bag.
const ROOT: &str = "9e3c4c2eb6a5bd8a2a30eec1a1a2a5df8e3a5f3ed0b9b9f4df8cc9f7a5b3e3a1";

fn settings() -> Settings {
    Settings {
        daemon_endpoint: "http://127.0.0.1:1".into(),
        shared_path: "/srv/bags".into(),
        download_timeout: 1,
        rpc_endpoint: None,
        wallet_address: None,
        contract_address: None,
    }
}

/// What a daemon would say of a bag that it has.
fn details(bag: &Bag, root: &Hash, path: &str) -> Details {
    Details {
        info_loaded: true,
        header_loaded: true,
        completed: true,
        downloaded: bag.size,
        size: bag.size,
        description: bag.description.clone(),
        dir_name: bag.dir.clone(),
        files: vec![File { name: bag.name.clone(), size: bag.size }],
        piece_size: bag.piece_size,
        merkle_hash: BagId(*root).hex(),
        path: path.into(),
        peers: Vec::new(),
    }
}

#[test]
fn an_answer_of_the_daemon_is_read() {
    let text = format!(
        r#"{{"bag_id":"{ID}","description":"","downloaded":18,"size":18,"header_size":57,"peers":[],"download_speed":0,
        "files_count":1,"dir_name":"","completed":true,"header_loaded":true,"info_loaded":true,"active":true,
        "seeding":true,"bag_pieces_num":1,"has_pieces_mask":"AQ==","files":[{{"index":0,"name":"hello.txt","size":18}}],
        "piece_size":131072,"bag_size":75,"merkle_hash":"{ROOT}","path":"/srv/bags/stored"}}"#
    );
    let details: Details = serde_json::from_str(&text).unwrap();
    assert!(details.known() && details.completed && details.peers.is_empty());
    assert_eq!(details.files[0].name, "hello.txt");
}

#[test]
fn a_bag_is_where_the_daemon_says_or_nowhere() {
    let (bag, root) = (Bag::of_file("k1", 9, None), [3; 32]);
    let id = bag.id(&root).unwrap();
    let verified = |path: &str| details(&bag, &root, path).verified(id, &settings()).unwrap();
    assert_eq!(verified("/srv/bags/stored").path.as_deref(), Some("stored/k1"));
    assert_eq!(verified("/srv/bags").path.as_deref(), Some("k1"));
    assert!(!details(&bag, &root, "/srv/bags/stored").fetched(id));
    assert!(details(&bag, &root, &format!("/srv/bags/fetched/{}", id.hex())).fetched(id));
    for elsewhere in ["/srv", "/etc", "/srv/bags/../..", "relative", ""] {
        assert_eq!(verified(elsewhere).path, None, "{elsewhere}");
    }
    let out = Bag { dir: "../".into(), ..bag };
    let id = out.id(&root).unwrap();
    assert_eq!(details(&out, &root, "/srv/bags/stored").verified(id, &settings()).unwrap().path, None);
}

#[test]
fn more_files_than_one_are_no_object() {
    let (bag, root) = (Bag::of_file("k1", 9, None), [3; 32]);
    let mut details = details(&bag, &root, "/srv/bags");
    details.files.push(File { name: "another".into(), size: 1 });
    assert!(matches!(details.verified(bag.id(&root).unwrap(), &settings()), Err(Error::Unsupported(_))));
}

proptest! {
    /// Every change to a daemon's report is refused.
    #[test]
    fn a_lie_is_corrupt(name in "[a-z]{1,9}", size in 1_u64..1 << 40, what in 0..6) {
        let (bag, root) = (Bag::of_file(&name, size, None), [3; 32]);
        let id = bag.id(&root).unwrap();
        let mut said = details(&bag, &root, "/srv/bags");
        prop_assert!(said.verified(id, &settings()).is_ok());
        match what {
            0 => said.files[0].size -= 1,
            1 => said.files[0].name.push('x'),
            2 => said.dir_name.push('x'),
            3 => said.description.push('x'),
            4 => said.piece_size *= 2,
            _ => said.merkle_hash.replace_range(..1, "f"),
        }
        prop_assert!(matches!(said.verified(id, &settings()), Err(Error::Corrupt(_))));
    }
}
