//! Granted names that resolve to forbidden addresses, and names that change between two lookups.
//!
//! The test resolves the names, through the resolver that an embedder can inject. The one address here
//! that counts as public, `2000::1`, is unused: a connection to it fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::egress::Names;
use tidelock::capabilities::grant::{BucketGrant, DirectoryGrant, HttpGrant};
use tidelock::capabilities::http::HttpClient;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox, Trust};
use tidelock::types::{SettingValue, StoreHint};
use tidelock::{Body, Error, ErrorKind, Result};
use tidelock_tests::program::guest;

use crate::arena::{Arena, Ask, Attack, CUE};

pub fn attacks() -> Vec<Attack> {
    let own = |name, ask, ends| Attack { ask: Ask::Own(ask), ..Attack::store(name, "nothing", "", ends) };
    let denied = ("denied", "is not a public address");
    vec![
        own("a_name_for_a_metadata_address", |arena| Box::pin(asks(arena, &["169.254.169.254"], false)), denied),
        own("a_name_for_loopback", |arena| Box::pin(asks(arena, &["127.0.0.1"], false)), denied),
        own("a_name_for_a_private_address", |arena| Box::pin(asks(arena, &["10.1.2.3"], false)), denied),
        own("a_name_for_loopback_in_disguise", |arena| Box::pin(asks(arena, &["::ffff:127.0.0.1"], false)), denied),
        own("a_name_that_changes_after_the_check", |arena| Box::pin(rebinds(arena)), denied),
        // The control: the way is open to one that has leave.
        own(
            "a_name_for_loopback_with_leave",
            |arena| Box::pin(asks(arena, &["127.0.0.1"], true)),
            ("other", "reached: 200"),
        ),
    ]
}

/// Gives one answer after the other, and the last one from then on.
struct Scripted {
    answers: Vec<SocketAddr>,
    asked: AtomicUsize,
}

impl Names for Scripted {
    fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<SocketAddr>>> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(vec![self.answers[turn.min(self.answers.len() - 1)]])))
    }
}

fn scripted(answers: &[&str]) -> Arc<Scripted> {
    let answers = answers.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
    Arc::new(Scripted { answers, asked: AtomicUsize::new(0) })
}

/// An attacker that is granted a name and asks for it.
async fn attacker(arena: &Arena, names: Arc<Scripted>, private: bool) -> Adapter {
    let origin = format!("http://granted.test:{}", arena.server.port);
    let mut grant = HttpGrant::to([origin.as_str()]).unwrap();
    grant.connection.private_addresses = private;
    // What is let through gets its answer on a busy machine too; what is not has nothing to wait for.
    let patience = if private { Duration::from_secs(30) } else { Duration::from_millis(300) };
    grant.connection.connect_timeout = patience;
    grant.connection.stall_timeout = patience;
    let mut capabilities = Capabilities::none();
    capabilities.provide_http("api", Arc::new(HttpClient::with_names(&grant, names).unwrap()));
    capabilities.grant_directory("objects", &DirectoryGrant::below(arena.dir.path().join("objects/names"))).unwrap();
    let bucket = BucketGrant { endpoint: Some(arena.server.origin.clone()), ..BucketGrant::of("r", "bucket") };
    capabilities.grant_bucket("objects", &bucket).unwrap();
    let text = |text: &str| SettingValue::Text(text.into());
    let spec = BackendSpec {
        name: "attacker".into(),
        capabilities,
        settings: BTreeMap::from([
            ("act".into(), text("reach-url")),
            ("target".into(), text(&format!("{origin}/resolved"))),
        ]),
        limits: Limits::default(),
        trust: Trust::default(),
    };
    let cache = Some(arena.dir.path().join("data/compiled"));
    let engine = Sandbox::new(EngineOptions { operations: 4, cache, ..Default::default() }).unwrap();
    Adapter::load(&engine, &spec, std::fs::read(guest("attacker")).unwrap()).await.unwrap()
}

async fn ask(adapter: &Adapter) -> Result<()> {
    let hint = StoreHint { key: "key".into(), size: Some(CUE as u64), ..Default::default() };
    adapter.store(Body::from_bytes(vec![0; CUE]), hint).await.map(drop)
}

/// What comes of asking for a name with these addresses.
async fn asks(arena: &Arena, addresses: &[&str], private: bool) -> Result<()> {
    let before = arena.server.requests().len();
    let ended = ask(&attacker(arena, scripted(addresses), private).await).await;
    let reached = arena.server.requests()[before..].iter().any(|request| request.contains("/resolved"));
    assert_eq!(reached, private, "{ended:?}");
    ended
}

/// A public address when it is checked, loopback when it is connected to: each request is one look-up, whose answer is
/// checked and connected to. There is no second one that could say otherwise.
async fn rebinds(arena: &Arena) -> Result<()> {
    let before = arena.server.requests().len();
    let names = scripted(&["2000::1", "127.0.0.1"]);
    let adapter = attacker(arena, names.clone(), false).await;
    let first = ask(&adapter).await.unwrap_err();
    assert_eq!(names.asked.load(Ordering::Relaxed), 1, "one request, one look-up");
    let second = ask(&adapter).await;
    assert_eq!(names.asked.load(Ordering::Relaxed), 2);
    let reached = arena.server.requests()[before..].iter().any(|request| request.contains("/resolved"));
    assert!(!reached, "the address that was not checked was connected to");
    match first.kind() {
        ErrorKind::Unavailable => second,
        _ => Err(Error::other(format!("the first address is to be tried and not to answer: {first:?}"))),
    }
}
