//! What is looked at before a copy goes because of another one: before the hot tier makes room, after a rebase, and when a snapshot
//! is removed of which others need an object. What cannot be looked at keeps the copy where it is.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::odd::{Odd, Request, Then, when};
use tidelock_tests::program::Home;

use super::hot::{hot_files, state};

/// Folders of these names, and what else the configuration has.
fn folders(names: &[&str], more: &str) -> Home {
    let folder = |name: &&str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    Home::with(&(names.iter().map(folder).collect::<String>() + more))
}

const PACKS: &str = "[routes.default]\nbackends = [\"first\"]\nencoding = \"pages\"\n";

fn placements(home: &Home, id: &str) -> Vec<Value> {
    home.json(&["stat", id])["placements"].as_array().unwrap().clone()
}

/// The objects of a snapshot on a backend, as paths in its folder, in the order in which they were stored.
fn objects(home: &Home, id: &str, backend: &str) -> Vec<PathBuf> {
    let there = placements(home, id).into_iter().filter(|one| one["backend"] == backend);
    there.map(|one| home.path(backend).join(one["object"].as_str().unwrap())).collect()
}

fn rot(path: &Path, at: usize) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"rotten rotten", at as u64).unwrap();
}

/// Overwrites one page, and stores the result as a change of the base.
fn change(home: &Home, base: &str, bytes: &mut [u8], page: usize, options: &[&str]) -> String {
    bytes[page * 4096..][..4096].copy_from_slice(&noise(4096, page as u64));
    home.file("image", &*bytes);
    home.line(&[&["update", base, "image"], options].concat())
}

/// Stores other images until a hot tier of 8 MiB has no room for what was there before.
fn crowd_out(home: &Home, options: &[&str]) {
    for seed in 100..104 {
        home.line_with(&[&["store", "-"], options].concat(), &noise(3 * MIB, seed));
    }
}

const HOT: &str = "[hot]\ncapacity = \"8 MiB\"\n";

/// What goes on the backend: the object, its end, its label, some of its bits.
#[test]
fn no_hot_copy_goes_for_an_object_that_is_not_sound() {
    for damage in ["gone", "short", "bits"] {
        let home = folders(
            &["first", "second"],
            &format!("{HOT}[routes.default]\nbackends = [\"first\"]\n[routes.b]\nbackends = [\"second\"]\n"),
        );
        let bytes = noise(3 * MIB, 1);
        let id = home.line_with(&["store", "-"], &bytes);
        let object = objects(&home, &id, "first").remove(0);
        match damage {
            "gone" => fs::remove_file(&object).unwrap(),
            "short" => fs::File::options().write(true).open(&object).unwrap().set_len(100).unwrap(),
            _ => rot(&object, MIB),
        }
        crowd_out(&home, &["--route", "b"]);
        assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"), "{damage}");
        assert_eq!(state(&home, &id, "first").as_deref(), Some("bad"), "{damage}: what was found is recorded");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, damage);
        // Once it is repaired, which reads it back, the hot copy may go.
        home.json(&["jobs", "run"]);
        crowd_out(&home, &["--route", "b"]);
        home.line_with(&["store", "-", "--route", "b"], &noise(6 * MIB, 2));
        assert_eq!(state(&home, &id, "hot"), None, "{damage}");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, damage);
    }
}

/// The same for a change whose base is damaged on the backend: it could not be read without the hot tier.
#[test]
fn no_hot_copy_goes_for_a_pack_whose_base_is_not_sound() {
    for gone in [true, false] {
        let home = folders(&["first", "second"], &format!("{HOT}{PACKS}[routes.b]\nbackends = [\"second\"]\n"));
        let mut bytes = noise(3 * MIB, 3);
        let base = home.line_with(&["store", "-"], &bytes);
        let id = change(&home, &base, &mut bytes, 5, &[]);
        let object = objects(&home, &base, "first").remove(0);
        if gone {
            fs::remove_file(&object).unwrap()
        } else {
            rot(&object, MIB)
        }
        crowd_out(&home, &["--route", "b"]);
        assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"), "gone: {gone}");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the hot tier");
    }
}

fn is_read(request: &Request) -> bool {
    request.operation() == "Get" && request.key.contains("snap-")
}

/// A backend that gives no more bytes delays a store by a deadline, and then keeps the hot copy.
#[test]
fn a_backend_that_gives_nothing_delays_an_eviction_by_a_deadline() {
    let server = Odd::start(vec![]);
    let mut home = folders(
        &["second"],
        &format!(
            "{HOT}[backends.cloud]\nadapter = \"s3\"\nlimits = {{ idle = \"10m\" }}\n[backends.cloud.grants.bucket.objects]\nendpoint = \"{}\"\n\
             bucket = \"b\"\npath_style = true\ncredentials = {{ env = \"CLOUD\" }}\n\
             [routes.default]\nbackends = [\"cloud\"]\n[routes.b]\nbackends = [\"second\"]\n",
            server.endpoint
        ),
    );
    home.env("CLOUD_ACCESS_KEY_ID", "AK");
    home.env("CLOUD_SECRET_ACCESS_KEY", "hush-hush");
    let bytes = noise(3 * MIB, 4);
    let id = home.line_with(&["store", "-"], &bytes);
    home.line_with(&["store", "-", "--route", "b"], &noise(3 * MIB, 5));
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    let begun = Instant::now();
    home.line_with(&["store", "-", "--route", "b"], &noise(3 * MIB, 6));
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(60), "{took:?}");
    assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"));
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the hot tier");
}

/// A chain of three, of which the one in the middle is rebased: its old object stays for the last one.
fn rebased(home: &Home) -> ([String; 3], [Vec<u8>; 3]) {
    let first = noise(3 * MIB, 7);
    let w = home.line_with(&["store", "-"], &first);
    let mut second = first.clone();
    let x = change(home, &w, &mut second, 100, &[]);
    let mut third = second.clone();
    let y = change(home, &x, &mut third, 200, &[]);
    home.json(&["rebase", &x]);
    assert_eq!(objects(home, &x, "first").len(), 2);
    ([w, x, y], [first, second, third])
}

/// What a rebase has made is looked at before the old object goes for it, however much later that is.
#[test]
fn a_rebased_pack_goes_only_for_a_full_one_that_is_sound() {
    let home = folders(&["first"], PACKS);
    let ([_, x, y], [_, bytes, _]) = rebased(&home);
    let [old, full] = [0, 1].map(|number: usize| objects(&home, &x, "first").remove(number));
    fs::rename(&full, home.path("away")).unwrap();
    home.json(&["rm", &y]);
    assert!(old.exists(), "it is the only one");
    assert_same(&home.bytes(&["retrieve", &x]), &bytes, "from the old one");
    // It is there again, and has another byte: to be there is not enough, and a rebase that finds it reads it.
    fs::rename(home.path("away"), &full).unwrap();
    rot(&full, 2 * MIB);
    home.run(&["verify"]);
    home.run(&["rebase", &x]);
    assert!(old.exists(), "the other one is damaged");
    assert_same(&home.bytes(&["retrieve", &x]), &bytes, "from the old one");
    // Repaired, it is enough, and what was kept so long goes.
    home.run(&["jobs", "run", "--all"]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!((old.exists(), objects(&home, &x, "first").len()), (false, 1));
    assert_same(&home.bytes(&["retrieve", &x]), &bytes, "from the new one");
}

/// Of a snapshot that is removed, the object stays that others need, and another one of it goes, which has the same pages: not if
/// these are damaged in the one that stays.
#[test]
fn what_completes_a_damaged_object_that_others_need_stays() {
    for damaged in [true, false] {
        let home = folders(&["first"], PACKS);
        let ([w, x, y], [_, _, bytes]) = rebased(&home);
        let [old, full] = [0, 1].map(|number: usize| objects(&home, &x, "first").remove(number));
        if damaged {
            let size = fs::metadata(&old).unwrap().len() as usize;
            rot(&old, size / 2);
        }
        home.json(&["rm", &x]);
        assert_eq!((old.exists(), full.exists()), (true, damaged));
        assert_same(&home.bytes(&["retrieve", &y]), &bytes, "what takes pages from it");
        home.json(&["rm", &y]);
        home.json(&["rm", &w]);
        home.json(&["gc", "--older-than", "1ms"]);
        assert_eq!(home.objects_below("first").len(), 0, "damaged: {damaged}");
    }
}

/// What is kept for hot packs that are yet to be pushed is not let go of by what else took pages from it: neither by its removal, nor
/// when it is rebased.
#[test]
fn what_a_hot_pack_needs_stays_whatever_else_has_needed_it() {
    for how in ["rm", "rebase"] {
        let home = folders(
            &["first"],
            &format!(
                "[hot]\ncapacity = \"64 MiB\"\n{PACKS}[routes.local]\nbackends = [\"first\"]\nencoding = \"pages\"\nack = \"local\"\n"
            ),
        );
        let first = noise(4 * MIB, 8);
        home.file("image", &first);
        let w = home.line(&["store", "image"]);
        let hot = hot_files(&home).remove(0);
        let x = change(&home, &w, &mut first.clone(), 100, &[]);
        let mut last = first.clone();
        let z = change(&home, &w, &mut last, 200, &["--route", "local"]);
        assert_eq!(state(&home, &z, "first"), None, "it is to be pushed");
        let base = objects(&home, &w, "first").remove(0);
        home.json(&["rm", &w]);
        home.json(&[how, &x]);
        assert!(base.exists(), "{how}");
        rot(&hot, 3 * MIB);
        home.run(&["jobs", "run", "--all"]);
        assert_eq!(state(&home, &z, "first").as_deref(), Some("live"), "{how}: it is pushed");
        assert_same(&home.bytes(&["retrieve", &z]), &last, how);
        // Then it is kept for nobody.
        if how == "rebase" {
            home.json(&["rm", &x]);
        }
        home.json(&["rm", &z]);
        home.json(&["gc", "--older-than", "1ms"]);
        assert_eq!(home.objects_below("first").len(), 0, "{how}");
    }
}

/// A removed base is damaged on the backend where others need it: its copy on another backend stays until it is repaired from that.
#[test]
fn what_a_needed_object_is_repaired_from_stays() {
    for repaired in [true, false] {
        let more = "[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\nencoding = \"pages\"\n\
                    [routes.b]\nbackends = [\"second\"]\nencoding = \"pages\"\n";
        let home = folders(&["first", "second"], more);
        let mut bytes = noise(3 * MIB, 9);
        let w = home.line_with(&["store", "-"], &bytes);
        let y = change(&home, &w, &mut bytes, 100, &["--route", "b"]);
        let [here, there] = ["first", "second"].map(|backend| objects(&home, &w, backend).remove(0));
        rot(&there, MIB);
        home.run(&["verify", "--deep"]);
        home.json(&["rm", &w]);
        assert!(here.exists(), "the other one is repaired from it");
        if repaired {
            home.run(&["jobs", "run", "--all"]);
            home.json(&["gc", "--older-than", "1ms"]);
            assert!(!here.exists(), "nothing is repaired from it any more");
            assert_same(&home.bytes(&["retrieve", &y]), &bytes, "repaired");
            home.json(&["verify", "--deep"]);
        }
        home.json(&["rm", &y]);
        home.json(&["gc", "--older-than", "1ms"]);
        assert_eq!((home.objects_below("first").len(), home.objects_below("second").len()), (0, 0));
    }
}
