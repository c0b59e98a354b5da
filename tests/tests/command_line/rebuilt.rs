//! A catalogue that was lost and rebuilt by imports: what it cannot know of what is still to be done comes from a route.

use std::fs;

use serde_json::{Value, json};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

fn config(more: &str) -> String {
    let backend = |name: &str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    ["one", "two"].map(backend).concat() + more
}

fn lose_the_catalogue(home: &Home) {
    for entry in fs::read_dir(home.path("tidelock-data")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("catalogue.") {
            match entry.path().is_dir() {
                true => fs::remove_dir_all(entry.path()).unwrap(),
                false => fs::remove_file(entry.path()).unwrap(),
            }
        }
    }
}

fn wanted(home: &Home, id: &str) -> Value {
    home.json(&["stat", id])["copies"].clone()
}

#[test]
fn copies_that_the_route_wants_are_made_after_an_import() {
    let routes =
        "[routes.default]\nbackends = [\"one\", \"two\"]\ncopies = 2\nack = 1\n[routes.one]\nbackends = [\"one\"]\n";
    for (route, copies) in [(&[][..], 2), (&["--route", "one"], 1)] {
        let home = Home::with(&config(routes));
        let bytes = noise(MIB, 1);
        let id = home.line_with(&["store", "-"], &bytes);
        lose_the_catalogue(&home);
        home.json(&[&["import", "one"], route].concat());
        home.json(&["import", "two"]);
        assert_eq!(wanted(&home, &id), json!(copies));
        let ran = home.json(&["jobs", "run"]);
        assert_eq!((&ran["done"], &ran["failed"]), (&json!(copies - 1), &json!(0)), "{ran}");
        assert_eq!(home.objects_below("two").len(), copies - 1, "{route:?}");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "after the import");
        // What somebody has said is not changed by a later import.
        home.json(&["import", "one", "--route", "default"]);
        assert_eq!(wanted(&home, &id), json!(copies));
    }
    let home = Home::with(&config(routes));
    let said = home.refused(2, &["import", "one", "--route", "none"]);
    assert!(said.contains("no route `none`"), "{said}");
}

#[test]
fn what_is_on_this_machine_alone_is_pushed_after_an_import() {
    let route = "[routes.default]\nbackends = [\"one\"]\nack = \"local\"\n[hot]\ncapacity = \"1 GiB\"\n";
    for order in [["one", "hot"], ["hot", "one"]] {
        let home = Home::with(&config(route));
        let (pushed, bytes) = (noise(MIB, 2), noise(2 * MIB, 3));
        let first = home.line_with(&["store", "-"], &pushed);
        home.json(&["jobs", "run"]);
        let id = home.line_with(&["store", "-"], &bytes);
        lose_the_catalogue(&home);
        order.iter().for_each(|backend| drop(home.json(&["import", backend])));
        let jobs = home.json(&["jobs"])["jobs"].as_array().unwrap().clone();
        let of = |job: &Value| (job["kind"].clone(), job["snapshot"].clone());
        assert_eq!(jobs.iter().map(of).collect::<Vec<_>>(), [(json!("push"), json!(id))], "{order:?}");
        let ran = home.json(&["jobs", "run"]);
        assert_eq!((&ran["done"], &ran["failed"]), (&json!(1), &json!(0)), "{ran}");
        assert_eq!(home.objects_below("one").len(), 2, "{order:?}");
        fs::remove_dir_all(home.path("tidelock-data/hot")).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the backend");
        assert_same(&home.bytes(&["retrieve", &first]), &pushed, "from the backend");
    }
}
