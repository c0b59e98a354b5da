//! What stores that wait for this machine alone may have here: each backend a share of it, and all processes one bound.

use std::fs;

use tidelock_tests::data::{MIB, noise};
use tidelock_tests::program::{Home, Running, until};

/// The folder `good` on the default route and the folder `away`, which is not there, on another one.
fn home(hot: &str) -> Home {
    let home = Home::with(&format!(
        "[backends.good]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"good\" }}\n\
         [backends.away]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"away\" }}\n\
         [routes.default]\nbackends = [\"good\"]\nack = \"local\"\n\
         [routes.far]\nbackends = [\"away\"]\nack = \"local\"\n[hot]\n{hot}\n"
    ));
    home.file("away", "no folder");
    home
}

/// Begins to store images on the route that is away, each in a process of its own.
fn begun(home: &Home, images: &[Vec<u8>]) -> Vec<Running> {
    let begin = |(number, bytes): (usize, &Vec<u8>)| {
        let file = home.file(&format!("image{number}"), bytes);
        Running::start(home.command(&["store", &file, "--route", "far", "-v"]))
    };
    images.iter().enumerate().map(begin).collect()
}

fn is_acknowledged(store: &Running) -> bool {
    store.printed().contains("tl1")
}

/// Waits until each store is acknowledged or past a bound, and returns how many are.
fn settled(mut stores: Vec<Running>) -> usize {
    let past = |said: &str| said.contains("too much is at risk") || said.contains("the hot tier cannot take the image");
    until("all of them know", || {
        stores.iter_mut().all(|store| is_acknowledged(store) || past(&store.said()) || !store.runs())
    });
    let acknowledged = stores.iter().filter(|store| is_acknowledged(store)).count();
    stores.into_iter().for_each(Running::kill);
    acknowledged
}

#[test]
fn what_one_backend_does_not_take_leaves_the_other_routes_room() {
    let home = home("capacity = \"64 MiB\"\nat_risk = \"8 MiB\"");
    home.json(&["store", &home.file("image", noise(3 * MIB, 1)), "--route", "far"]);
    assert_eq!(settled(begun(&home, &[noise(3 * MIB, 2)])), 0, "it would hold more than it leaves free");
    let stored = home.json(&["store", &home.file("other", noise(2 * MIB + MIB / 2, 3))]);
    assert_eq!(stored["placements"][0]["backend"], "hot", "{stored}");
    home.run(&["jobs", "run"]);
    let stat = home.json(&["stat", stored["id"].as_str().unwrap()]);
    assert!(stat["placements"].as_array().unwrap().iter().any(|place| place["backend"] == "good"), "{stat}");
    // What no share of this machine can hold goes to the backend at once.
    let large = home.json(&["store", &home.file("large", noise(5 * MIB, 4))]);
    assert_eq!(large["placements"][0]["backend"], "good", "{large}");
}

#[test]
fn a_backend_that_all_routes_wait_for_may_hold_all_that_is_at_risk() {
    let home = home("capacity = \"64 MiB\"\nat_risk = \"4 MiB\"");
    let config = String::from_utf8(home.read("tidelock.toml")).unwrap();
    home.file("tidelock.toml", config.replace("[\"good\"]", "[\"away\", \"good\"]"));
    for seed in 0..4 {
        let stored = home.json(&["store", &home.file("image", noise(MIB, seed)), "--route", "far"]);
        assert_eq!(stored["placements"][0]["backend"], "hot", "{stored}");
    }
}

#[test]
fn what_is_at_risk_is_bounded_for_all_processes_together() {
    let home = home("capacity = \"64 MiB\"\nat_risk = \"10 MiB\"");
    let images: Vec<_> = (0..4).map(|seed| noise(4 * MIB, 10 + seed)).collect();
    assert_eq!(settled(begun(&home, &images)), 1);
    // What those that were killed had reserved is free.
    let config = String::from_utf8(home.read("tidelock.toml")).unwrap();
    home.file("tidelock.toml", config.replace("10 MiB", "18 MiB"));
    home.json(&["store", &home.file("image", noise(4 * MIB, 20)), "--route", "far"]);
}

#[test]
fn the_capacity_of_the_hot_tier_holds_for_all_processes_together() {
    let home = home("capacity = \"20 MiB\"\nat_risk = \"20 MiB\"");
    let images: Vec<_> = (0..5).map(|seed| noise(9 * MIB, 30 + seed)).collect();
    fs::remove_file(home.path("away")).unwrap();
    let stores = begun(&home, &images);
    let most = settled(stores);
    let taken: u64 = home.objects_below("tidelock-data/hot").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(most > 0 && taken <= 20 * MIB as u64, "{most} stores, {taken} bytes");
}
