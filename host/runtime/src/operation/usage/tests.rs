//! What an operation has used, and whom it waits for.

use super::*;
use tidelock_types::Charge;

#[test]
fn a_guest_that_lets_a_call_wait_has_no_excuse() {
    let usage = Arc::new(Usage::new(&Limits::default(), Instant::now()));
    let wait = |whom| {
        let mut wait = Wait::new(usage.clone(), whom);
        wait.set(true);
        wait
    };
    assert!(!usage.excused());
    let call = wait(Waiting::Call);
    assert!(usage.excused());
    let guest = wait(Waiting::Guest);
    assert!(!usage.excused());
    let outside = wait(Waiting::Outside);
    assert!(usage.excused());
    drop((call, outside));
    assert!(!usage.excused());
    drop(guest);
    assert!(!usage.excused());
}

#[test]
fn advice_goes_with_what_it_is_for() {
    let usage = Usage::new(&Limits::default(), Instant::now());
    let refused = Error::denied("no such key").hint("correct it");
    usage.failed(&refused);
    usage.failed(&Error::unavailable("later"));
    let passed_on = usage.advised(Error::denied("the bucket: no such key"));
    assert_eq!(passed_on.advice(), Some("correct it"));
    usage.failed(&refused);
    assert_eq!(usage.advised(Error::denied("something else")).advice(), None);
    usage.failed(&refused);
    let own = usage.advised(Error::denied("no such key").hint("the adapter's own"));
    assert_eq!(own.advice(), Some("the adapter's own"));
}

#[test]
fn processor_time_grows_with_the_object_and_with_nothing_else() {
    let usage = Usage::new(&Limits { cpu: Duration::from_secs(1), ..Limits::default() }, Instant::now());
    usage.carried(1 << 30);
    usage.of_object(16 << 20);
    usage.spends(Duration::from_secs(2)).unwrap();
    assert_eq!(usage.spends(Duration::from_millis(50)), Err(LimitExceeded::Cpu(Duration::from_secs(1))));
}

/// The smallest limit counts, what is refused is not held, and what is given back can be taken again.
#[test]
fn held_bytes_are_bounded_for_the_operation_and_for_its_backend() {
    let limits = Limits { held_bytes: 60, backend_held_bytes: 100, open_bodies: 2, ..Limits::default() };
    let limits = Limits { backend_open_bodies: 3, ..limits };
    let backend = BackendUsage::new(&limits);
    let operation = || -> Arc<dyn Account> { Arc::new(Usage::of(backend.clone(), &limits, Instant::now())) };
    let (one, other) = (operation(), operation());
    let mut held = Charge::bytes(&one, 50).unwrap();
    assert_eq!(held.grow(20), Err(LimitExceeded::HeldBytes(60)));
    assert!(one.is_over() && !other.is_over());
    assert_eq!(Charge::bytes(&other, 51).err(), Some(LimitExceeded::BackendHeldBytes(100)));
    drop(held);
    drop(Charge::bytes(&operation(), 60).unwrap());
    let third = operation();
    let opened = [Charge::open(&third, 0).unwrap(), Charge::open(&third, 0).unwrap()];
    assert_eq!(Charge::open(&third, 0).err(), Some(LimitExceeded::OpenBodies(2)));
    let fourth = operation();
    let _one_more = Charge::open(&fourth, 1).unwrap();
    assert_eq!(Charge::open(&fourth, 0).err(), Some(LimitExceeded::BackendOpenBodies(3)));
    drop(opened);
    drop(Charge::open(&operation(), 1).unwrap());
}

#[test]
fn budgets_are_beyond_the_object() {
    let usage = Usage::new(&Limits { request_bytes: 10, response_bytes: 20, ..Limits::default() }, Instant::now());
    usage.of_object(100);
    usage.sends(110).unwrap();
    usage.reads(120).unwrap();
    assert_eq!(usage.exceeded(), None);
    assert_eq!(usage.sends(1).unwrap_err(), LimitExceeded::RequestBytes(10));
    assert_eq!(usage.reads(1).unwrap_err(), LimitExceeded::ResponseBytes(20));
    assert_eq!(usage.exceeded(), Some(&LimitExceeded::RequestBytes(10)), "the first one counts");
}
