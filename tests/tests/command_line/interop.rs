//! Interoperability: other clients read our objects, and their objects are imported.
//!
//! boto3 for buckets and the archive, the tools of libnfs for exports, plain files for folders. `stat` shows the
//! backend's name of an object; an object of another program is named to `import`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tidelock_tests::data::{KIB, MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;
use tidelock_tests::{cold, server};
use xtask::backends::moto::{self, Keys};
use xtask::backends::{Ganesha, ganesha};

/// Sizes around those of pages and of the parts of uploads.
const SIZES: [usize; 6] = [0, 1, 4 * KIB, MIB - 1, 9 * MIB + 5, 21 * MIB];

/// boto3 on a bucket.
struct Boto {
    client: String,
    bucket: &'static str,
}

impl Boto {
    fn new(endpoint: &str, region: &str, keys: (&str, &str), bucket: &'static str) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let client = format!(
            "boto3.client('s3', endpoint_url={}, region_name={}, aws_access_key_id={}, aws_secret_access_key={}, \
             config=Config(s3={{'addressing_style': 'path'}}))",
            text(endpoint),
            text(region),
            text(keys.0),
            text(keys.1)
        );
        Self { client, bucket }
    }

    /// Runs a few lines of Python that know `s3`, `bucket`, `key` and `path`; gives what they print.
    #[track_caller]
    fn run(&self, code: &str, key: &str, path: &Path) -> String {
        let code = format!(
            "import boto3; from botocore.config import Config; s3 = {}; bucket, key, path = sys.argv[1:4]; {code}",
            self.client
        );
        let python = moto::install().expect("moto's packages, boto3 among them");
        let mut command = Command::new(&python.program);
        command.args(python.arguments(&code)).args([self.bucket, key]).arg(path);
        let done = command.output().expect("Python runs");
        assert!(done.status.success(), "{code}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

#[track_caller]
fn object_of(home: &Home, id: &str) -> String {
    home.json(&["stat", id])["placements"][0]["object"].as_str().unwrap().to_owned()
}

/// `store --raw` and `update --raw`, read by other programs.
fn is_read_by_others(home: &Home, read: impl Fn(&str) -> Vec<u8>) {
    for size in SIZES {
        let bytes = noise(size, size as u64);
        let id = home.line(&["store", &home.file("image", &bytes), "--raw"]);
        assert_same(&read(&object_of(home, &id)), &bytes, "stored");
        let next = changed(&bytes, 3);
        let next_id = home.line(&["update", &id, &home.file("image", &next), "--raw", "--name", &format!("v{size}")]);
        assert_same(&read(&object_of(home, &next_id)), &next, "as a change, and whole all the same");
        assert_eq!(home.json(&["stat", &next_id])["placements"][0]["encoding"], "raw");
    }
}

/// Objects of other programs, under names that no host gives.
fn is_brought_in(home: &Home, backend: &str, write: impl Fn(&str, &Path)) {
    for size in SIZES {
        let (bytes, name) = (noise(size, 7 + size as u64), format!("From elsewhere/image {size}.img"));
        let path = home.file("foreign", &bytes);
        write(&name, Path::new(&path));
        let id = home.line(&["import", backend, &name]);
        assert_eq!(id, home.line(&["id", &path]));
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, &name);
        if size > 0 {
            assert_same(&home.bytes(&["retrieve", &id, "--range", "..1"]), &bytes[..1], &name);
        }
        // The image of no bytes is there already, and has one more place now.
        let places = home.json(&["stat", &id])["placements"].as_array().unwrap().clone();
        assert!(places.iter().any(|place| place["object"] == name && place["state"] == "live"), "{places:?}");
    }
    let listed = home.json(&["import", backend]);
    assert_eq!(listed["imported"], 0, "nobody is made ours unasked: {listed}");
}

#[test]
fn boto3_and_a_bucket() {
    let server = server::shared();
    let home = server::home(server, "interop");
    let keys = (server.access_key.as_str(), server.secret_key.as_str());
    let boto = Boto::new(&server.endpoint, &server.region, keys, server::BUCKET);
    is_read_by_others(&home, |object| {
        boto.run("s3.download_file(bucket, key, path)", &format!("interop/{object}"), &home.path("read"));
        home.read("read")
    });
    let upload = "from boto3.s3.transfer import TransferConfig; s3.upload_file(path, bucket, key, \
                  ExtraArgs={'Metadata': {'whose': 'boto'}}, Config=TransferConfig(multipart_threshold=8<<20, \
                  multipart_chunksize=5<<20))";
    is_brought_in(&home, "cloud", |name, path| drop(boto.run(upload, &format!("interop/{name}"), path)));
}

/// Base and name are metadata that anybody can read.
#[test]
fn lineage_is_plain_metadata() {
    let server = server::shared();
    let home = server::home(server, "metadata");
    let keys = (server.access_key.as_str(), server.secret_key.as_str());
    let boto = Boto::new(&server.endpoint, &server.region, keys, server::BUCKET);
    let base = home.line_with(&["store", "-"], b"base");
    let id = home.line_with(&["update", &base, "-", "--name", "web 50 % ü"], b"change");
    let key = format!("metadata/{}", object_of(&home, &id));
    let said = boto.run(
        "import json; print(json.dumps(s3.head_object(Bucket=bucket, Key=key)['Metadata']))",
        &key,
        Path::new(""),
    );
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let expected = json!({
        "tidelock-base": object_of(&home, &base),
        "tidelock-base-snapshot": base,
        "tidelock-name": "web 50 %25 %C3%BC",
    });
    assert_eq!(said, expected);
}

/// The program as it is used with Amazon: the bucket in the host's name, another region than the first, temporary keys with
/// their token, encryption with a named key, a lock; and what boto3 then finds.
#[test]
fn as_amazon_is_used() {
    let server = cold::shared();
    let key = "arn:aws:kms:eu-central-1:123456789012:key/k1";
    let table = format!(
        "[backends.vault]\nadapter = \"s3\"\n\
         settings = {{ layout = \"fan-out\", sse = \"aws:kms\", sse-kms-key = \"{key}\", retention-days = 2 }}\n\
         grants.bucket.objects = {{ endpoint = \"http://s3.localhost:{}\", region = \"eu-central-1\", bucket = \"{}\", \
         prefix = \"as-amazon/\", credentials = {{ env = \"VAULT\" }} }}\n",
        server.port,
        moto::LOCKED_BUCKET
    );
    let mut home = Home::with(&table);
    cold::credentials(&mut home, &server.temporary_keys);
    let (old, new) = (noise(MIB + 1, 1), noise(11 * MIB, 2));
    let base = home.line_with(&["store", "-"], &old);
    let id = home.line(&["update", &base, &home.file("image", &new), "--raw"]);
    assert_same(&home.bytes(&["retrieve", &base]), &old, "the first");
    assert_same(&home.bytes(&["retrieve", &id, "--range", "5000000..9000000"]), &new[5_000_000..9_000_000], "a range");

    let Keys { access_key, secret_key, .. } = &server.keys;
    let boto = Boto::new(&server.endpoint, moto::REGION, (access_key, secret_key), moto::LOCKED_BUCKET);
    let object = object_of(&home, &base);
    assert_eq!(object.split('/').count(), 2, "fanned out: {object}");
    let head = "h = s3.head_object(Bucket=bucket, Key=key); print(h['ServerSideEncryption'], h['SSEKMSKeyId'], \
                h['ObjectLockMode'], (h['ObjectLockRetainUntilDate'] - h['LastModified']).total_seconds() / 86400 > 1.9)";
    let said = boto.run(head, &format!("as-amazon/{object}"), Path::new(""));
    assert_eq!(said, format!("aws:kms {key} GOVERNANCE True"));
    boto.run(
        "s3.download_file(bucket, key, path)",
        &format!("as-amazon/{}", object_of(&home, &id)),
        &home.path("read"),
    );
    assert_same(&home.read("read"), &new, "of many parts");

    // Without the token the keys are nobody's.
    home.env("VAULT_SESSION_TOKEN", "another");
    let outcome = home.run_with(&["store", "-", "--json"], b"x");
    assert_eq!(
        (outcome.status.code(), &outcome.json()["error"]["kind"]),
        (Some(1), &json!("denied")),
        "{}",
        outcome.stderr
    );
}

#[test]
fn boto3_and_an_archive() {
    let server = cold::start();
    let Keys { access_key, secret_key, .. } = &server.keys;
    let boto = Boto::new(&server.endpoint, moto::REGION, (access_key, secret_key), moto::BUCKET);
    let home = cold::home(&server, "interop", "");
    let thaw = "s3.restore_object(Bucket=bucket, Key=key, RestoreRequest={'Days': 1}); \
                [s3.head_object(Bucket=bucket, Key=key) for _ in range(2)]; s3.download_file(bucket, key, path)";
    is_read_by_others(&home, |object| {
        let key = format!("interop/{object}");
        let class = boto.run("print(s3.head_object(Bucket=bucket, Key=key)['StorageClass'])", &key, Path::new(""));
        assert_eq!(class, "GLACIER");
        boto.run(thaw, &key, &home.path("read"));
        home.read("read")
    });
    let upload = |class: &str| format!("s3.upload_file(path, bucket, key, ExtraArgs={{'StorageClass': '{class}'}})");
    let warm = cold::home(&server, "interop-warm", "");
    is_brought_in(&warm, "vault", |name, path| {
        boto.run(&upload("GLACIER_IR"), &format!("interop-warm/{name}"), path);
    });

    // A cold one has to be thawed first, by whomever.
    let bytes = noise(MIB, 5);
    let path = home.file("foreign", &bytes);
    boto.run(&upload("DEEP_ARCHIVE"), "interop/cold.img", Path::new(&path));
    let said = home.refused(3, &["import", "vault", "cold.img"]);
    assert!(said.contains("1 of 1 object in cold storage"), "{said}");
    home.refused(3, &["import", "vault", "cold.img", "--restore"]);
    let id = home.line(&["import", "vault", "cold.img"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "restored and brought in");
}

#[test]
fn libnfs_and_an_export() {
    if let Some(why) = ganesha::why_not() {
        return xtask::skip::skip("interop: libnfs_and_an_export", &why);
    }
    let server = Ganesha::start().expect("NFS-Ganesha starts");
    let grant =
        format!("grants.directory.objects = {{ nfs = \"{}\", mount_port = {} }}", server.url(), server.mount_port);
    let home = Home::with(&format!("[backends.share]\nadapter = \"nfs\"\n{grant}\n"));
    let run = |tool: &str, arguments: &[String]| {
        let done = server.tool(tool).unwrap().args(arguments).output().expect("libnfs runs");
        assert!(done.status.success(), "{tool}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    is_read_by_others(&home, |object| {
        let copy = home.path("read");
        // It replaces nothing.
        let _ = fs::remove_file(&copy);
        run("nfs-cp", &[server.libnfs_url(object), copy.display().to_string()]);
        let bytes = fs::read(copy).unwrap();
        assert_same(&run("nfs-cat", &[server.libnfs_url(object)]), &bytes, "two tools");
        bytes
    });
    // The tools make no folders.
    fs::create_dir(server.export().join("From elsewhere")).unwrap();
    is_brought_in(&home, "share", |name, path| {
        run("nfs-cp", &[path.display().to_string(), server.libnfs_url(name)]);
    });
}

#[test]
fn anything_and_a_folder() {
    let home = Home::new();
    let folder = home.path("tidelock-data/objects");
    is_read_by_others(&home, |object| fs::read(folder.join(object)).unwrap());
    fs::create_dir(folder.join("From elsewhere")).unwrap();
    is_brought_in(&home, "local", |name, path| {
        fs::copy(path, folder.join(name)).unwrap();
    });
}
