//! Cold storage over HTTP: requests that start a restore, their results, and reads that do not.

use serde_json::json;
use tidelock_tests::cold;
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::until;

#[test]
fn a_cold_image_is_restored_and_read() {
    let home = cold::home(cold::shared(), "daemon", "storage-class = \"DEEP_ARCHIVE\"");
    let daemon = Daemon::start(&home);
    let server = &daemon.server;
    let bytes = noise(3 * MIB + 1, 9);
    let path = format!("/v1/snapshots/{}", server.store(&bytes));
    let head = server.send("HEAD", &path, &[], &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some(bytes.len().to_string().as_str())));
    server.get(&format!("{path}/stat")).json(200);

    // Had anybody asked before, it would be readable by now.
    let part = server.send("GET", &path, &[("range", "bytes=0-0")], &[]);
    let problem = part.problem(409, "archived");
    assert_eq!(problem["archive"], json!({ "state": "restoring", "estimate_seconds": 43_200, "until": null }));
    assert_eq!((&problem["backend"], part.header("retry-after")), (&json!("vault"), Some("43200")));
    until("the restore", || server.get(&path).status == 200);
    assert_same(&server.get(&path).body, &bytes, "restored");
    daemon.stop();
}
