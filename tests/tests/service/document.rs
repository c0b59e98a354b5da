//! The OpenAPI document: committed, served, and true.

use std::path::Path;

use serde_json::Value;
use tidelock_tests::daemon::Daemon;
use tidelock_tests::program::Home;

const METHODS: [&str; 7] = ["get", "head", "put", "post", "delete", "patch", "options"];

fn document() -> Value {
    serde_json::from_slice(&Home::new().bytes(&["serve", "--openapi"])).expect("a JSON document")
}

#[test]
fn the_committed_document_is_what_the_program_offers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(
        committed == document(),
        "docs/openapi.json is not what the program offers: write it anew with `tidelock serve --openapi >docs/openapi.json`"
    );
    assert!(committed["openapi"].as_str().unwrap().starts_with("3.1"));
}

/// Every route answers, in a way that is its own: not as a path or a method that there is not. And what the document
/// does not name is not there.
#[test]
fn documented_paths_are_served_and_no_others() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let document = document();
    assert_eq!(daemon.server.get("/openapi.json").json(200), document);
    let paths = document["paths"].as_object().unwrap();
    for contract in [
        ("/v1/snapshots", "put"),
        ("/v1/snapshots", "get"),
        ("/v1/snapshots/{id}", "get"),
        ("/v1/snapshots/{id}", "head"),
        ("/v1/snapshots/{id}", "delete"),
        ("/v1/snapshots/{id}/update", "post"),
        ("/v1/snapshots/{id}/apply", "post"),
        ("/v1/adapters", "get"),
        ("/v1/adapters/{name}", "put"),
        ("/v1/adapters/{name}/rollback", "post"),
        ("/v1/adapters/{name}/history", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
    ] {
        assert!(document["paths"][contract.0][contract.1].is_object(), "{contract:?}");
    }
    for (path, operations) in paths {
        let real = path.replace("{id}", "nothing").replace("{name}", "local");
        for method in METHODS {
            let answer = daemon.server.send(&method.to_uppercase(), &real, &[], b"");
            let documented = operations.get(method).is_some();
            let no_such_method = answer.status == 405;
            // Where there is a GET, the HTTP library answers HEAD as well.
            let implied = method == "head" && operations.get("get").is_some();
            assert!(documented != no_such_method || implied, "{method} {path}: {}", answer.status);
            if documented && answer.status == 404 && method != "head" {
                let detail = answer.json(404)["detail"].as_str().unwrap().to_owned();
                assert!(!detail.contains("no such path"), "{method} {path}: {detail}");
            }
            // What is answered without failing has a status that the document names.
            if documented && answer.status < 400 {
                assert!(
                    operations[method]["responses"][answer.status.to_string()].is_object(),
                    "{method} {path}: {}",
                    answer.status
                );
            }
        }
    }
    daemon.stop();
}

/// What is said of answers is what they are.
#[test]
fn answers_have_the_documented_keys() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let document = document();
    let id = daemon.server.store(b"x");
    let stored = daemon.server.send("PUT", "/v1/snapshots", &[], b"y").json(201);
    let stat = daemon.server.get(&format!("/v1/snapshots/{id}/stat")).json(200);
    let list = daemon.server.get("/v1/snapshots").json(200);
    let adapters = daemon.server.get("/v1/adapters").json(200);
    let history = daemon.server.get("/v1/adapters/local/history").json(200);
    let problem = daemon.server.get("/nowhere").problem(404, "not-found");
    let removed = daemon.server.send("DELETE", &format!("/v1/snapshots/{id}"), &[], b"").json(200);
    for (schema, value) in [
        ("Stored", &stored),
        ("SnapshotStat", &stat),
        ("SnapshotPage", &list),
        ("Snapshot", &list["snapshots"][0]),
        ("Adapters", &adapters),
        ("AdapterInfo", &adapters["adapters"][0]),
        ("AdapterHistory", &history),
        ("Problem", &problem),
        ("Removed", &removed),
    ] {
        let described = &document["components"]["schemas"][schema];
        let properties = described["properties"].as_object().unwrap_or_else(|| panic!("{schema}: {described}"));
        for key in value.as_object().unwrap().keys() {
            assert!(properties.contains_key(key), "{schema} does not say `{key}`");
        }
        for required in described["required"].as_array().into_iter().flatten() {
            assert!(value.get(required.as_str().unwrap()).is_some(), "{schema}: {required} is not there: {value}");
        }
    }
    daemon.stop();
}
