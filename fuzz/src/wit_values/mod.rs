//! Any value that a guest can send: a real component sends it, in the real sandbox, and the host takes it as a
//! valid value, as the guest's error or as the end of the operation.
//!
//! The guest is the puppet of the tests' fixtures. The first line of an input is the operation to call
//! (`stat`, `probe`, `store`, `update`, `retrieve`, `remove`, `restore`, `balance`, `list`, `describe`), and all that
//! follows is the puppet's script: the capabilities that it calls with their arguments, and its results. `describe`
//! loads the component anew, with the script as a setting.
//!
//! The capabilities are the host's own: a directory below a temporary folder, and a client and a bucket at an unused
//! port, so that every argument is checked and no request gets an answer.

#[allow(dead_code, reason = "the puppet uses what is not used here")]
#[path = "../../../tests/fixtures/puppet/src/script.rs"]
mod script;
mod world;

use futures::StreamExt;
use tidelock::types::{ArchiveState, Description, Health, InventoryPage, ObjectId, ObjectStat, StoreHint};
use tidelock::{Body, ErrorKind};

use crate::one_line;
use script::{Script, text};
use world::World;

/// The most bytes of a text that the host keeps of a guest's, with what it says about it.
const TEXT: usize = 2048;

/// The most bytes of the cursor of a listing.
const CURSOR: usize = 2 << 20;
/// What is given to be stored.
const DATA: [&str; 3] = ["abc", "def", "ghi"];
/// How many objects a listing may have.
const LISTED: u32 = 5;

/// Has the puppet act out the script and checks what the host makes of it.
pub fn run(data: &[u8]) {
    thread_local!(static WORLD: World = World::new());
    let mut lines = Script::new(data);
    let operation = lines.line();
    let script = &data[data.len().min(operation.len() + 1)..];
    WORLD.with(|world| {
        let outcome = world.act(script, perform(world, operation, script));
        if let Err(error) = &outcome {
            check_error(error);
        }
        // An operation that was ended has taken nothing with it.
        if outcome
            .is_err_and(|error| matches!(error.kind(), ErrorKind::Trapped | ErrorKind::Limit | ErrorKind::TimedOut))
        {
            let health = world.act(b"\nyes\nfine", world.adapter.probe()).expect("the next operation serves");
            assert_eq!(health, Health { ready: true, detail: "fine".to_owned() });
        }
        world.check_folder();
    });
}

async fn perform(world: &World, operation: &[u8], script: &[u8]) -> tidelock::Result<()> {
    let (adapter, id) = (&world.adapter, ObjectId::new("an/object")?);
    match operation {
        b"stat" => check_stat(&adapter.stat(&id).await?, script),
        b"probe" => one_line::check(&adapter.probe().await?.detail, TEXT),
        b"store" => {
            let receipt = adapter.store(given(), hint()).await?;
            assert_eq!(receipt.size, 9, "a receipt for other bytes than were given");
            check_id(&receipt.id);
        }
        b"update" => {
            let receipt = adapter.incremental_update(&id, given(), hint()).await?;
            assert_eq!(receipt.size, 9, "a receipt for other bytes than were given");
            check_id(&receipt.id);
        }
        b"retrieve" => {
            let bytes = adapter.retrieve(&id, None).await?.collect(1 << 21).await?;
            if let Some((expected, whole)) = told_to_give(script) {
                assert!(whole, "a body that ends well, and its adapter said that it did not");
                assert!(bytes == expected, "other bytes than the adapter gave");
            }
        }
        b"remove" => adapter.remove(&id).await?,
        b"restore" => check_archive(&adapter.restore(&id, 3).await?),
        b"balance" => {
            let state = adapter.balance().await?;
            one_line::check(&state.unit, TEXT);
            [&state.wallet, &state.contract].into_iter().flatten().for_each(|amount| check_amount(amount));
        }
        b"list" => check_page(&adapter.list_objects(Some("cursor".to_owned()), LISTED).await?),
        b"describe" => check_description(&world.describe(script).await?),
        _ => {}
    }
    Ok(())
}

fn given() -> Body {
    Body::new(futures::stream::iter(DATA).map(|chunk| Ok(chunk.into())), Some(9))
}

fn hint() -> StoreHint {
    StoreHint { key: "a-key".to_owned(), size: Some(9), labels: vec![("a".to_owned(), "b".to_owned())] }
}

/// What a script without calls has `retrieve` give, and whether it says that this is all.
fn told_to_give(script: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut script = Script::new(script);
    match script.line() {
        b"call" => None,
        b"fail" => Some((Vec::new(), false)),
        _ => {
            let chunks = script.list(Script::text);
            Some((chunks.concat(), script.line() == b"whole"))
        }
    }
}

fn check_error(error: &tidelock::Error) {
    one_line::check_error(error, TEXT + 512);
    one_line::check(&error.to_string(), TEXT + 1024);
    assert_eq!(error.backend(), Some("puppets"), "an error without its backend: {error:?}");
    match error.kind() {
        ErrorKind::RateLimited(Some(after)) => assert!(after.as_secs() <= 86_400, "parked for {after:?}"),
        ErrorKind::InsufficientBalance(due) => {
            due.amount.iter().for_each(|amount| check_amount(amount));
            [&due.unit, &due.account].into_iter().flatten().for_each(|text| one_line::check(text, TEXT));
        }
        ErrorKind::Archived(state) => check_archive(state),
        _ => {}
    }
}

fn check_amount(amount: &str) {
    assert!(!amount.is_empty() && amount.bytes().all(|b| b.is_ascii_digit()), "an amount that is none: {amount:?}");
    one_line::check(amount, TEXT);
}

fn check_id(id: &ObjectId) {
    assert!(!id.as_str().is_empty());
    one_line::check(id.as_str(), ObjectId::MAX_LEN);
}

fn check_archive(state: &ArchiveState) {
    if let ArchiveState::Restoring(Some(left)) = state {
        assert!(std::time::Instant::now().checked_add(*left).is_some(), "an estimate beyond all time: {left:?}");
    }
}

fn check_stat(stat: &ObjectStat, script: &[u8]) {
    let mut script = Script::new(script);
    if script.line() != b"call" {
        assert_eq!(stat.size, script.number(), "another size than the adapter said");
        assert_eq!(stat.base.as_ref().map(|base| base.as_str().as_bytes().to_vec()), script.option(text));
    }
    stat.base.iter().for_each(check_id);
    stat.archive.iter().for_each(check_archive);
    assert!(stat.labels.len() <= 256, "{} labels", stat.labels.len());
    for (name, value) in &stat.labels {
        one_line::check(name, TEXT);
        one_line::check(value, TEXT);
    }
}

fn check_page(page: &InventoryPage) {
    assert!(page.entries.len() <= LISTED as usize, "{} objects where {LISTED} were asked for", page.entries.len());
    page.entries.iter().for_each(|entry| check_id(&entry.id));
    assert!(page.next.as_ref().is_none_or(|next| next.len() <= CURSOR), "a cursor without an end");
}

fn check_description(said: &Description) {
    for text in [&said.name, &said.version, &said.summary] {
        one_line::check(text, TEXT);
    }
    assert!(said.settings.len() <= 256, "{} settings", said.settings.len());
    for setting in &said.settings {
        one_line::check(&setting.name, TEXT);
        one_line::check(&setting.summary, TEXT);
    }
}
