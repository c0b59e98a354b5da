//! The adapter `ton` and money: balances of wallet and storage contract, and stores rejected for lack of it.

use std::sync::LazyLock;

use serde_json::json;
use tidelock::Body;
use tidelock::types::ErrorKind;
use tidelock_tests::data::assert_same;
use xtask::backends::TonChain;
use xtask::backends::ton::chain::{self, Terms};

use crate::ton::{Setup, hint, kind, read, store, world};
use crate::ton_proxy::{Answer, before};

/// The chain that tests share.
fn ledger(test: &str) -> Option<&'static TonChain> {
    static CHAIN: LazyLock<TonChain> = LazyLock::new(|| TonChain::start().expect("the TON chain starts"));
    match chain::why_not() {
        Some(why) => {
            xtask::skip::skip(test, &why);
            None
        }
        None => Some(&CHAIN),
    }
}

#[tokio::test]
async fn balances_are_those_of_the_chain() {
    let test = "ton: balances_are_those_of_the_chain";
    let (Some(world), Some(ledger)) = (world(test), ledger(test)) else { return };
    let accounts = &ledger.accounts;
    for wallet in [&accounts.v4r2, &accounts.v5r1] {
        let setup = Setup::of(&world.first).rpc(&ledger.endpoint, Some(chain::API_KEY));
        let bags = setup.with("wallet_address", wallet).with("contract_address", &accounts.storage).load().await;
        let said = ledger.ask("getAddressBalance", &json!({ "address": wallet })).unwrap();
        let state = bags.balance().await.unwrap();
        assert_eq!((state.wallet.as_deref(), state.unit.as_str()), (said["result"].as_str(), "nanoton"), "{wallet}");
        assert_eq!(state.contract.as_deref(), Some("1000000000"));
        // 1 TON at 1,024,000 nanoton a day, less the day that the provider may take at any time.
        assert_eq!(state.runway_seconds, Some(1_000_000_000_u64 * 86_400 / 1_024_000 - 86_400));
        ledger.fund(wallet, 1_000_000_000).unwrap();
        let before: u64 = state.wallet.unwrap().parse().unwrap();
        let after: u64 = bags.balance().await.unwrap().wallet.unwrap().parse().unwrap();
        assert!(
            (before + 990_000_000..=before + 1_000_000_000).contains(&after),
            "{before} {after}: less what it costs"
        );
    }
    let without_chain = Setup::of(&world.first).load().await;
    assert_eq!(kind(without_chain.balance()).await, ErrorKind::Unsupported);
    // A wallet is no storage contract: what it holds is known, and nothing more.
    let setup = Setup::of(&world.first).rpc(&ledger.endpoint, Some(chain::API_KEY));
    let state = setup.with("contract_address", &accounts.v4r2).load().await.balance().await.unwrap();
    assert!(state.contract.is_some() && state.runway_seconds.is_none() && state.wallet.is_none());
}

#[tokio::test]
async fn an_object_beyond_the_contract_balance_is_not_stored() {
    let test = "ton: an_object_beyond_the_contract_balance_is_not_stored";
    let (Some(world), Some(ledger)) = (world(test), ledger(test)) else { return };
    let terms = Terms { balance: 1000, file_size: 1 << 30, rate: 1000, max_span: 86_400, last_proof_time: 0 };
    let contract = ledger.deploy_storage(&terms).unwrap();
    let setup = Setup::of(&world.first).rpc(&ledger.endpoint, Some(chain::API_KEY));
    let bags = setup.with("contract_address", &contract).load().await;
    let error = bags.store(Body::from_bytes("x"), hint("unpaid", None)).await.unwrap_err();
    let ErrorKind::InsufficientBalance(due) = error.kind() else { panic!("{error:?}") };
    assert_eq!((due.amount.as_deref(), due.unit.as_deref()), (Some("1023000"), Some("nanoton")));
    assert_eq!(due.account.as_deref(), Some(&*contract));
    assert!(!world.first.shared().join("stored/unpaid").exists());
    assert_eq!(bags.balance().await.unwrap().runway_seconds, Some(0));
    // What is due, and what the contract keeps of a message.
    ledger.fund(&contract, 1_023_000 + 50_000_000).unwrap();
    let id = store(&bags, "paid", b"x").await;
    assert_same(&read(&bags, &id, None).await.unwrap(), b"x", "paid");
    bags.remove(&id).await.unwrap();
}

#[tokio::test]
async fn refusals_of_the_chain_are_typed_and_stop_no_store() {
    let test = "ton: refusals_of_the_chain_are_typed_and_stop_no_store";
    let (Some(world), Some(ledger)) = (world(test), ledger(test)) else { return };
    let account = ledger.accounts.v4r2.clone();
    let setup = |endpoint: &str, key| {
        let setup = Setup::of(&world.first).rpc(endpoint, key);
        setup.with("wallet_address", &account).with("contract_address", &ledger.accounts.storage)
    };
    // There is one request a second without a key, and a balance takes two. On a machine that is slow enough, that does.
    let anonymous = setup(&ledger.endpoint, None).load().await;
    let error = loop {
        if let Err(error) = anonymous.balance().await {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::RateLimited(_)), "{error:?}");
    assert!(error.to_string().contains("Ratelimit exceed"), "{error}");
    let stranger = setup(&ledger.endpoint, Some("a wrong key")).load().await;
    let error = stranger.balance().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error:?}").contains("a wrong key"));
    let elsewhere = format!("http://127.0.0.1:{}/elsewhere", ledger.port);
    let lost = setup(&elsewhere, Some(chain::API_KEY)).load().await;
    assert_eq!(kind(lost.balance()).await, ErrorKind::Invalid);
    for (number, bags) in [&stranger, &lost].into_iter().enumerate() {
        let id = store(bags, &format!("unknown-{number}"), b"x").await;
        bags.remove(&id).await.unwrap();
    }
    for (status, body, expected) in [
        (200, r#"{"ok":false,"result":"Ratelimit exceed","code":429}"#, "rate-limited"),
        (507, "pay first", "insufficient-balance"),
        (542, r#"{"ok":false,"error":"LITE_SERVER_NETWORK","code":542}"#, "unavailable"),
        (500, r#"{"ok":false,"error":"LITE_SERVER_UNKNOWN: x","code":500}"#, "unavailable"),
        (422, r#"{"ok":false,"error":"Incorrect address","code":422}"#, "invalid"),
    ] {
        let proxy = before(ledger.port, move |_| Answer::Own(status, "", body)).await;
        let bags = setup(&format!("{proxy}/api/v2"), Some(chain::API_KEY)).load().await;
        let error = bags.balance().await.unwrap_err();
        assert_eq!(error.kind().name(), expected, "{status} {error:?}");
    }
}
