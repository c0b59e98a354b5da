//! Accepted and rejected manifests, and their effect.

use proptest::prelude::*;

use super::*;
use tidelock_types::SettingSpec;

const WHOLE: &str = r#"
name = "pinning"
version = "1.2.0-rc.1"
summary = "Pins objects."
interface = "tidelock:storage@0.1.0"

[asks.http.api]
origins = ["https://api.example", "https://*.gateway.example:8443"]
why = "to pin"

[asks.directory.cache]
optional = true

[asks.bucket.objects]

[limits]
memory = "16 MiB"
table_elements = 2000
cpu = "5s"
calls_in_flight = 8

[settings.layout]
kind = "text"
summary = "how"
[settings.days]
kind = "integer"
required = true
"#;

/// An empty component: magic, version 13, layer 1.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

fn parse(text: &str) -> Result<Manifest> {
    Manifest::parse(text.as_bytes())
}

fn whole() -> Manifest {
    parse(WHOLE).unwrap()
}

#[test]
fn everything_is_read() {
    let manifest = whole();
    let asked = manifest.asked();
    assert!(asked.has("bucket", "objects") && asked.has("directory", "cache") && asked.has("http", "api"));
    assert!(!asked.has("bucket", "cache") && !asked.has("shell", "objects"));
    let grants = manifest.grants();
    let of = |kind, name, optional, why| RequestedGrant { kind, name, optional, why };
    let expected =
        [of("http", "api", false, "to pin"), of("bucket", "objects", false, ""), of("directory", "cache", true, "")];
    assert_eq!(grants, expected);
    assert_eq!(manifest.asks.http["api"].origins[1].to_string(), "https://*.gateway.example:8443");
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(json["asks"]["http"]["api"]["origins"][0], "https://api.example");
    assert_eq!((&json["limits"]["memory"], &json["limits"]["cpu"]), (&(16 << 20).into(), &5.0.into()));
}

#[test]
fn limits_are_lowered_and_never_raised() {
    let operator = Limits { memory: 8 << 20, calls_in_flight: 64, cpu: Duration::from_secs(5), ..Limits::default() };
    let limits = whole().limits(&operator);
    assert_eq!((limits.memory, limits.calls_in_flight, limits.cpu), (8 << 20, 8, Duration::from_secs(5)));
    assert_eq!((limits.table_elements, limits.deadline), (2000, operator.deadline));
    let silent = Manifest { limits: Needs::default(), ..whole() };
    assert_eq!(silent.limits(&operator), operator);
}

#[test]
fn errors_name_the_wrong_field() {
    let head = "name = 'a'\nversion = '1'\ninterface = 'tidelock:storage@0.1.0'\n";
    assert!(parse(head).is_ok());
    for (text, says) in [
        (String::new(), "missing field `name`"),
        ("name = 'a'\nname = 'b'".into(), "line 2"),
        (format!("{head}shell = true"), "line 4, column 1: unknown field `shell`"),
        (format!("{head}[asks.shell.x]"), "unknown field `shell`"),
        (format!("{head}[asks.http.api]"), "missing field `origins`"),
        (format!("{head}[asks.http.api]\norigins = []"), "asks.http.api.origins"),
        (format!("{head}[asks.http.api]\norigins = ['https://*.com']"), "is too broad"),
        (format!("{head}[asks.http.api]\norigins = ['https://a.example/path']"), "is not an origin"),
        (format!("{head}[asks.bucket.\"../x\"]"), "asks.bucket.../x"),
        (format!("{head}[asks.bucket.x]\nwhy = \"a\\nb\""), "one line"),
        (format!("{head}[limits]\nmemory = 0"), "limits.memory"),
        (format!("{head}[limits]\nmemory = -1"), "line 5"),
        (format!("{head}[limits]\nmemory = 'much'"), "not a size"),
        (format!("{head}[limits]\ncpu = 5"), "such as \"10s\""),
        (format!("{head}[settings.x]\nkind = 'float'"), "unknown variant `float`"),
        (head.replace("'a'", "'A b'"), "`name`"),
        (head.replace("'1'", "''"), "`version`"),
        (format!("{head}summary = '{}'", "x".repeat(501)), "summary"),
        (format!("{head}#{}", "x".repeat(MAX_MANIFEST_BYTES)), "more than"),
        ((0..65).fold(head.to_owned(), |text, n| text + &format!("[asks.bucket.b{n}]\n")), "more than 64"),
    ] {
        let error = parse(&text).expect_err(&text);
        assert!(error.to_string().contains(says), "{error}\nfor:\n{text}");
        assert_eq!(error.kind().name(), "invalid");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(Manifest::parse(&[0xff, 0xfe]).is_err());
}

#[test]
fn deep_nesting_is_answered() {
    let _ = parse(&format!("asks = {}{}", "[".repeat(30_000), "]".repeat(30_000)));
    let _ = parse(&format!("{}a = 1", "a.".repeat(30_000)));
}

#[test]
fn only_this_interface_is_served() {
    let of = |interface: &str| Manifest { interface: interface.into(), ..whole() }.check_interface();
    assert!(of("tidelock:storage@0.1.0").is_ok() && of("tidelock:storage@0.1.9").is_ok());
    for other in ["tidelock:storage@0.2.0", "tidelock:storage@1.1.0", "tidelock:storage@0.1", "wasi:http@0.1.0"] {
        assert!(of(other).unwrap_err().to_string().contains(other), "{other}");
    }
}

#[test]
fn the_description_matches_the_manifest() {
    let setting =
        |name: &str, kind, required| SettingSpec { name: name.into(), kind, required, summary: String::new() };
    let said = |settings: &[SettingSpec]| Description {
        name: "pinning".into(),
        version: "1.2.0-rc.1".into(),
        settings: settings.to_vec(),
        ..Description::default()
    };
    let both = [setting("days", SettingKind::Integer, true), setting("layout", SettingKind::Text, false)];
    whole().agrees_with(&said(&both)).unwrap();
    let refused = |said: &Description| whole().agrees_with(said).unwrap_err().to_string();
    assert!(refused(&Description { name: "other".into(), ..said(&both) }).contains("`pinning`"));
    assert!(refused(&Description { version: "2".into(), ..said(&both) }).contains("version"));
    assert!(refused(&said(&both[..1])).contains("layout"));
    let more = [&both[..], &[setting("secret", SettingKind::Text, false)]].concat();
    assert!(refused(&said(&more)).contains("secret"));
    let other = [setting("days", SettingKind::Text, true), both[1].clone()];
    assert!(refused(&said(&other)).contains("days"));
    // Settings that are declared nowhere are not compared.
    Manifest { settings: None, ..whole() }.agrees_with(&said(&more)).unwrap();
}

#[test]
fn a_component_carries_one_at_its_top_level() {
    assert_eq!(find_manifest(EMPTY).unwrap(), None);
    let one = embed_manifest(EMPTY, WHOLE.as_bytes()).unwrap();
    assert_eq!(Manifest::of_component(&one).unwrap(), Some(whole()));
    // Put in again, it takes the place of the first.
    assert_eq!(embed_manifest(&one, WHOLE.as_bytes()).unwrap(), one);
    let two = [&one[..], &one[EMPTY.len()..]].concat();
    assert!(find_manifest(&two).unwrap_err().to_string().contains("more than one"));
    assert!(embed_manifest(EMPTY, b"nonsense").is_err());
    // In a component within the component, it is not the outer one's: section 4 is a nested component.
    let mut outer = EMPTY.to_vec();
    outer.push(4);
    let (low, high) = ((one.len() & 0x7f | 0x80) as u8, (one.len() >> 7) as u8);
    outer.extend([low, high].iter().chain(&one));
    assert_eq!(find_manifest(&outer).unwrap(), None);
    let both = embed_manifest(&outer, WHOLE.replace("pinning", "outer").as_bytes()).unwrap();
    assert_eq!(Manifest::of_component(&both).unwrap().unwrap().name, "outer");
    assert!(find_manifest(b"\0asm\x01\0\0\0").unwrap_err().to_string().contains("core module"));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = Manifest::parse(&bytes);
        let _ = find_manifest(&bytes);
        let _ = find_manifest(&[EMPTY, &bytes].concat());
    }

    /// Nearly valid texts reach further than arbitrary ones; a parsed manifest can be embedded and reads back unchanged.
    #[test]
    fn damaged_manifests_are_answered(at: prop::sample::Index, cut in 0usize..40, put in "[\\[\\]{}=.,'\"#\n\\\\a-z0-9ä -]{0,8}") {
        let chars: Vec<char> = WHOLE.chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
        if let Ok(manifest) = parse(&text) {
            let component = embed_manifest(EMPTY, text.as_bytes()).unwrap();
            prop_assert_eq!(Manifest::of_component(&component).unwrap(), Some(manifest));
        }
    }

    /// A damaged component is an error or another manifest, never a panic and never an endless search.
    #[test]
    fn damaged_components_are_answered(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut component = embed_manifest(EMPTY, WHOLE.as_bytes()).unwrap();
        let at = at.index(component.len());
        component[at] = byte;
        let _ = Manifest::of_component(&component);
        let cut = cut.index(component.len());
        let _ = find_manifest(&component[..cut]);
    }

    /// Granting more never gives the adapter more than it asks for.
    #[test]
    fn limits_stay_below_both(asked: u64, allowed: u64) {
        let manifest = Manifest { limits: Needs { memory: Some(asked), ..Needs::default() }, ..whole() };
        let limits = manifest.limits(&Limits { memory: allowed, ..Limits::default() });
        prop_assert!(limits.memory <= asked && limits.memory <= allowed);
    }
}
