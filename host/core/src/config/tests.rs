//! Accepted and rejected configurations, and the error texts.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const CONTRACT: &str = r#"
data_dir = "data"

[backends.local]
adapter = "fs"
tier = "hot"
grants.directory.objects = { path = "objects" }

[backends.share]
adapter = "adapters/nfs.wasm"
grants.directory.objects = { nfs = "nfs://127.0.0.1:2049/export", mount_port = 20048 }

[backends.cloud]
adapter = "s3"
digest = "sha256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"
signed_by = ["release", "nightly"]
settings = { layout = "flat", parts = 0x10, "odd key" = true }
grants.bucket.objects = { endpoint = "http://127.0.0.1:8333", region = "eu-west-1", bucket = "vm", prefix = "agents/", path_style = true, credentials = { env = "CLOUD" }, conditional_writes = false, largest_part = "576 MiB", proxy = "none", ca_file = "ca.pem" }
grants.http.api = { proxy = "http://proxy.example:3128", origins = ["https://api.example", "HTTP://127.0.0.1:5001/"], private_addresses = true, credentials = { header = "Authorization", file = "token" } }
limits = { memory = "64 MiB", deadline = "10m", idle = "30s", cpu = "250ms", in_flight = 64 }
cost = { storage_gb_month = 0.023, egress_gb = 1 }

[routes.default]
backends = ["cloud", "local"]
copies = 2
ack = 2

[trust]
require_manifest = true
[trust.keys]
release = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
nightly = "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="

[service]
listen = "127.0.0.1:7070"
token_file = "token"
"#;

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("/etc/tidelock"))
}

#[test]
fn everything_is_read() {
    let config = parse(CONTRACT).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/tidelock/data"));
    let local = &config.backends["local"];
    assert_eq!(local.adapter, AdapterSource::BuiltIn("fs".into()));
    assert_eq!(local.tier, Tier::Hot);
    assert_eq!(local.limits, LimitOverrides::default());
    assert_eq!(local.grants.directory["objects"], DirectoryGrant::Path("/etc/tidelock/objects".into()));
    let share = &config.backends["share"];
    assert_eq!(share.adapter, AdapterSource::File("/etc/tidelock/adapters/nfs.wasm".into()));
    assert_eq!(share.tier, Tier::Warm);
    let nfs = DirectoryGrant::Nfs { url: "nfs://127.0.0.1:2049/export".into(), mount_port: Some(20048) };
    assert_eq!(share.grants.directory["objects"], nfs);
    let cloud = &config.backends["cloud"];
    assert_eq!(cloud.digest.unwrap()[..6], [0, 0x11, 0x22, 0x33, 0x44, 0x55]);
    assert_eq!(cloud.signed_by, ["release", "nightly"]);
    assert!(config.trust.require_manifest);
    assert_eq!(config.trust.keys["release"].to_string(), "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    assert_eq!(cloud.settings["layout"], SettingValue::Text("flat".into()));
    assert_eq!(cloud.settings["parts"], SettingValue::Integer(16));
    assert_eq!(cloud.settings["odd key"], SettingValue::Boolean(true));
    let bucket = BucketGrant {
        endpoint: Some("http://127.0.0.1:8333".into()),
        region: "eu-west-1".into(),
        bucket: "vm".into(),
        prefix: "agents/".into(),
        prefix_without_slash: false,
        path_style: true,
        credentials: Some(CredentialRef::Env("CLOUD".into())),
        conditional_writes: Some(false),
        checksums: None,
        largest_part: Some(576 << 20),
        private_addresses: true,
        proxy: Proxy::Direct,
        ca_file: Some("/etc/tidelock/ca.pem".into()),
    };
    assert_eq!(cloud.grants.bucket["objects"], bucket);
    let http = HttpGrant {
        origins: vec!["https://api.example".into(), "http://127.0.0.1:5001".into()],
        private_addresses: true,
        credentials: Some(HttpCredentials {
            header: "authorization".into(),
            value: CredentialRef::File("/etc/tidelock/token".into()),
        }),
        proxy: Proxy::Url("http://proxy.example:3128".into()),
        ca_file: None,
    };
    assert_eq!(cloud.grants.http["api"], http);
    let limits = LimitOverrides {
        memory: Some(64 << 20),
        deadline: Some(Duration::from_secs(600)),
        idle: Some(Duration::from_secs(30)),
        cpu: Some(Duration::from_millis(250)),
        in_flight: Some(64),
        ..LimitOverrides::default()
    };
    assert_eq!(cloud.limits, limits);
    assert_eq!(cloud.cost, Cost { storage_gb_month: Some(0.023), egress_gb: Some(1.0) });
    let route = &config.routes["default"];
    assert_eq!((route.backends.concat(), route.copies, route.ack), ("cloudlocal".into(), 2, Ack::Copies(2)));
    assert_eq!(config.service.listen, Listen::Tcp("127.0.0.1:7070".parse().unwrap()));
    assert_eq!(config.service.token_file.as_deref(), Some(Path::new("/etc/tidelock/token")));
}

#[test]
fn absolute_paths_stay() {
    let config = parse("data_dir = '/var/lib/x'\n[backends.a]\nadapter = '/opt/a.wasm'").unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/x"));
    assert_eq!(config.backends["a"].adapter, AdapterSource::File("/opt/a.wasm".into()));
}

#[test]
fn the_only_backend_is_the_default_route() {
    let config = parse("[backends.only]\nadapter = 'fs'\n[routes.other]\nbackends = ['only']").unwrap();
    assert_eq!(config.routes["default"].backends, ["only"]);
    assert_eq!(config.routes["default"].ack, Ack::Remote);
    let error = parse("[backends.a]\nadapter = 'fs'\n[backends.b]\nadapter = 'fs'").unwrap_err();
    assert_eq!(error.to_string(), "line 1, column 2: `backends` has 2 entries, but [routes.default] is missing");
    assert!(error.advice().unwrap().ends_with(r#"[routes.default] and, below, backends = ["a", "b"]"#));
}

/// Each wrong text with the error that it gets.
#[test]
fn errors_say_where_and_what() {
    let one = "[backends.a]\nadapter = 'fs'\n";
    for (text, expected) in [
        ("", "line 1, column 1: the configuration lacks `backends`"),
        ("backends = {}", "line 1, column 12: `backends` must hold at least one backend"),
        ("data_dri = 'x'", "line 1, column 1: unknown key `data_dri`; did you mean `data_dir`?"),
        ("zzz = 'x'", "line 1, column 1: unknown key `zzz`"),
        ("data_dir = 3", "line 1, column 12: `data_dir` must be a string, not an integer"),
        ("data_dir = ''", "line 1, column 12: `data_dir` must be a path"),
        ("[backends.a]\nteir = 'hot'", "line 2, column 1: unknown key `backends.a.teir`; did you mean `tier`?"),
        ("[backends.a]\ntier = 'hot'", "line 1, column 11: `backends.a` lacks `adapter`"),
        ("[backends.A]\nadapter = 'fs'", "line 1, column 11: `backends.A` is not a valid name"),
        ("[backends.\"ä b\"]\nadapter = 'fs'", "line 1, column 11: `backends.\"ä b\"` is not a valid name"),
        ("[backends.a]\nadapter = 'no good'", "line 2, column 11: `backends.a.adapter` is wrong: is not a valid name"),
        (
            "[backends.a]\nadapter = 'fs'\ntier = 'tepid'",
            "line 3, column 8: `backends.a.tier` must be \"hot\", \"warm\" or \"cold\"",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ndigest = 'sha256:12'",
            "line 3, column 10: `backends.a.digest` is wrong: it is not a SHA-256 digest",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nsigned_by = [3]",
            "line 3, column 14: `backends.a.signed_by[0]` must be a string, not an integer",
        ),
        ("[backends.a]\nadapter = 'fs'\nsigned_by = []", "line 3, column 13: `backends.a.signed_by` must not be empty"),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { memory = '5 parsecs' }",
            "line 3, column 21: `backends.a.limits.memory` is wrong: `5 parsecs` is not a size",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { memory = -1 }",
            "line 3, column 21: `backends.a.limits.memory` must not be negative",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { idle = 30 }",
            "line 3, column 19: `backends.a.limits.idle` must be a string, not an integer",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { idle = '0s' }",
            "line 3, column 19: `backends.a.limits.idle` must be longer than zero",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { in_flight = 0 }",
            "line 3, column 24: `backends.a.limits.in_flight` must be from 1 to 1048576",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nswap = { canary = { share = 0, duration = '1s' } }",
            "line 3, column 29: `backends.a.swap.canary.share` must be from 0.0001 to 1",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nswap = { canary = { share = 0.5 } }",
            "line 3, column 10: `backends.a.swap.canary` lacks `duration`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nlimits = { memroy = 1 }",
            "line 3, column 12: unknown key `backends.a.limits.memroy`; did you mean `memory`?",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ncost = { egress_gb = -1 }",
            "line 3, column 22: `backends.a.cost.egress_gb` must be a number that is not negative",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ncost = { egress_gb = inf }",
            "line 3, column 22: `backends.a.cost.egress_gb` must be a number that is not negative",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nsettings = { x = 1.5 }",
            "line 3, column 18: `backends.a.settings.x` must be a string, an integer, `true` or `false`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\nsettings = { x = 99999999999999999999 }",
            "line 3, column 18: `backends.a.settings.x` does not fit 64 bits",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.directory.o = { path = 'x', nfs = 'y' }",
            "line 3, column 22: `backends.a.grants.directory.o` must have either `path`, or `nfs` and optionally `mount_port`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.directory.o = { nfs = 'http://x/y' }",
            "line 3, column 30: `backends.a.grants.directory.o.nfs` is wrong: it is not an NFS URL",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { region = 'x' }",
            "line 3, column 15: `backends.a.grants.bucket.o` lacks `bucket`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { bucket = 'a/b' }",
            "line 3, column 30: `backends.a.grants.bucket.o.bucket` must be the bucket's name only",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { bucket = 'b', path_style = 'yes' }",
            "line 3, column 48: `backends.a.grants.bucket.o.path_style` must be `true` or `false`, not a string",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { bucket = 'b', endpoint = 'http://me:secret@x' }",
            "line 3, column 46: `backends.a.grants.bucket.o.endpoint` is wrong: it contains a user name or password",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { bucket = 'b', credentials = { env = 'a', file = 'b' } }",
            "line 3, column 49: `backends.a.grants.bucket.o.credentials` must have either `env` or `file`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.bucket.o = { bucket = 'b', credentials = { secret = 'a' } }",
            "line 3, column 51: unknown key `backends.a.grants.bucket.o.credentials.secret`",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.http.o = { origins = ['https://x/y'] }",
            "line 3, column 30: `backends.a.grants.http.o.origins[0]` is wrong: it has a path",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.http.o = { origins = ['ftp://x'] }",
            "line 3, column 30: `backends.a.grants.http.o.origins[0]` is wrong: it is not an http or https URL",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.http.o = { origins = ['https://x'], credentials = { header = 'a b', env = 'X' } }",
            "line 3, column 69: `backends.a.grants.http.o.credentials.header` is wrong: it is not the name of a header",
        ),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.htpt.o = {}",
            "line 3, column 8: unknown key `backends.a.grants.htpt`; did you mean `http`?",
        ),
        (
            &format!("{one}[routes.default]\nbackends = ['b']"),
            "line 4, column 13: `routes.default.backends[0]` names `b`, which is not a backend",
        ),
        (
            &format!("{one}[routes.default]\nbackends = ['a', 'a']"),
            "line 4, column 18: `routes.default.backends[1]` names `a` twice",
        ),
        (
            &format!("{one}[routes.default]\nbackends = []"),
            "line 4, column 12: `routes.default.backends` must not be empty",
        ),
        (&format!("{one}[routes.default]\ncopies = 1"), "line 3, column 9: `routes.default` lacks `backends`"),
        (
            &format!("{one}[routes.default]\nbackends = ['a']\ncopies = 2"),
            "line 5, column 10: `routes.default.copies` must be 1",
        ),
        (
            &format!("{one}[routes.default]\nbackends = ['a']\nack = 2"),
            "line 5, column 7: `routes.default.ack` must be 1",
        ),
        (
            &format!("{one}[routes.default]\nbackends = ['a']\nack = 'local'"),
            "line 5, column 7: `routes.default.ack` cannot be \"local\": there is no local tier",
        ),
        (&format!("{one}[jobs]\nparallel = 0"), "line 4, column 12: `jobs.parallel` must be from 1 to 64"),
        (
            &format!("{one}[scrub]\nbytes_per_day = 0"),
            "line 4, column 17: `scrub.bytes_per_day` must be more than zero",
        ),
        (
            &format!("{one}[rebase]\nbytes_per_day = 0"),
            "line 4, column 17: `rebase.bytes_per_day` must be more than zero",
        ),
        (&format!("{one}[rebase]\nchain = 65"), "line 4, column 9: `rebase.chain` must be from 1 to 64"),
        (
            "[backends.a]\nadapter = 'fs'\ngrants.directory.objects = { path = 'x' }\n[backends.b]\nadapter = 'fs'\n\
             grants.directory.objects = { path = './x/' }\n[routes.default]\nbackends = ['a', 'b']\ncopies = 2",
            "line 7, column 1: `routes.default` has 2 copies, but `a` and `b` store into the same place",
        ),
        (
            &format!("{one}[routes.default]\nbackends = ['a']\nack = 'soon'"),
            "line 5, column 7: `routes.default.ack` must be \"local\", \"remote\" or a number of copies",
        ),
        (
            &format!("{one}[service]\nlisten = 'nowhere'"),
            "line 4, column 10: `service.listen` is neither `unix:PATH` nor an address and a port",
        ),
        (
            &format!("{one}[service]\nlisten = '127.0.0.1:1'"),
            "line 4, column 10: `service.listen` is an address that every user of this machine can reach, and needs a `token_file`",
        ),
        (
            &format!("{one}[service]\nlisten = 'unix:'"),
            "line 4, column 10: `service.listen` lacks the path of the socket",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "for:\n{text}");
        assert_eq!(error.kind().name(), "invalid");
    }
}

#[test]
fn errors_of_the_notation_say_where() {
    for (text, place) in
        [("a = ", "line 1, column 5"), ("\n\n[x", "line 3, column 3"), ("a=1\na=2", "line 2, column 1")]
    {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(place), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn quotes_in_errors_cannot_drive_the_terminal() {
    let one = "[backends.a]\nadapter = 'fs'\n";
    for wrong in [
        "signed_by = [\"x\\n\\u001b[2J\"]",
        "limits = { memory = \"1\\n\\u001b[2J\" }",
        "[routes.default]\nbackends = [\"b\\n\\u001b[2J\"]",
    ] {
        let error = parse(&format!("{one}{wrong}")).unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && error.contains("[2J"), "{error:?}");
    }
}

#[test]
fn deep_nesting_is_answered() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("data_dir = {}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(parse(&text).is_err());
    }
    assert!(parse(&format!("{}a = 1", "a.".repeat(100_000))).is_err());
    assert!(parse(&format!("[{}a]", "a.".repeat(100_000))).is_err());
}

#[test]
fn the_first_unknown_key_of_the_text_is_named() {
    let error = parse("zebra = 1\nalpha = 2").unwrap_err();
    assert!(error.to_string().contains("`zebra`"), "{error}");
    assert_eq!(
        error.advice(),
        Some(
            "use one of the keys `data_dir`, `adapters_dir`, `backends`, `routes`, `hot`, `trust`, `service`, `jobs`, `scrub`, `encryption`, `rebase`"
        )
    );
}

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        let _ = parse(&text);
    }

    /// Nearly right texts reach further than arbitrary ones.
    #[test]
    fn damaged_texts_are_answered(at: prop::sample::Index, cut in 0usize..40, put in "[\\[\\]{}=.,'\"#\n\\\\a-z0-9ä -]{0,8}") {
        let chars: Vec<char> = CONTRACT.chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
        if let Err(error) = parse(&text) {
            prop_assert!(error.to_string().starts_with("line "), "{}", error);
        }
    }
}
