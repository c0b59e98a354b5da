//! What every engine of a catalogue has to pass, whatever it keeps its rows in.
//!
//! An engine gives a function that makes a [`Place`], and has all cases as tests of its own by `suite!(that_function);`.
//! A case gets a fresh place, and the clock by which everything in it goes. What only one engine has (its files, its
//! migrations) it tests beside.

pub(super) mod adopting;
pub(super) mod chains;
pub(super) mod jobs;
pub(super) mod owners;
pub(super) mod packs;
pub(super) mod placements;
pub(super) mod put_back;
pub(super) mod removals;
pub(super) mod reserved;
pub(super) mod snapshots;
pub(super) mod swaps;
pub(super) mod taking;
pub(super) mod turns;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;

use super::{Catalogue, Commit, Need, NewPack, NewPlacement, NewSnapshot};
use crate::types::{Clock, Encoding, Entropy, ObjectId, PackId, Platform, Result, SnapshotId};

/// One empty database of an engine. Every call of `open` is another handle on it.
pub(crate) struct Place {
    open: Box<dyn Fn(Platform) -> BoxFuture<'static, Arc<dyn Catalogue>> + Send + Sync>,
    clock: TestClock,
    /// Makes a copy of the database, which handles have open, and gives a function that puts it back, under open handles too.
    copy: Box<dyn Fn() -> Box<dyn FnOnce() + Send> + Send + Sync>,
    /// Goes when the place goes, as a temporary folder.
    _held: Box<dyn Any + Send + Sync>,
}

impl Place {
    /// A place that is opened so, and copied so.
    pub(crate) fn new(
        held: impl Any + Send + Sync,
        open: impl Fn(Platform) -> BoxFuture<'static, Arc<dyn Catalogue>> + Send + Sync + 'static,
        copy: impl Fn() -> Box<dyn FnOnce() + Send> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), clock: TestClock::default(), copy: Box::new(copy), _held: Box::new(held) }
    }

    async fn open(&self) -> Arc<dyn Catalogue> {
        (self.open)(Platform::new(self.clock.clone(), Counting::default())).await
    }

    /// The time goes on.
    fn pass(&self, seconds: u64) {
        self.clock.seconds.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// When a place begins, in seconds since 1970-01-01 UTC.
const BEGINNING: u64 = 1_800_000_000;

#[derive(Clone)]
struct TestClock {
    start: Instant,
    seconds: Arc<AtomicU64>,
}

impl Default for TestClock {
    fn default() -> Self {
        Self { start: Instant::now(), seconds: Arc::default() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING + self.seconds.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(self.0.fetch_add(1, Ordering::SeqCst) as u8);
        Ok(())
    }
}

pub(super) fn id(seed: u64) -> SnapshotId {
    SnapshotId::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

pub(super) fn snapshot(seed: u64, size: u64) -> NewSnapshot {
    NewSnapshot { id: id(seed), size, base: None, name: None, by_id: true, segments: vec![seed as u8; 64] }
}

pub(super) fn stored(snapshot: NewSnapshot, placements: Vec<NewPlacement>, intents: Vec<String>) -> Commit {
    Commit { placements, intents, ..Commit::of(snapshot) }
}

pub(super) fn object(name: &str) -> ObjectId {
    ObjectId::new(name).unwrap()
}

pub(super) fn on(backend: &str, name: &str) -> NewPlacement {
    NewPlacement {
        backend: backend.into(),
        object: object(name),
        encoding: Encoding::Raw,
        pack: None,
        stored_bytes: 100,
    }
}

/// What a pack needs of a snapshot that lies as it is.
pub(super) fn raw(seed: u64) -> Need {
    Need { snapshot: id(seed), pack: PackId::from_bytes(*id(seed).as_bytes()) }
}

/// What a pack needs of a snapshot that lies in this pack.
pub(super) fn packed(seed: u64, pack: u8) -> Need {
    Need { snapshot: id(seed), pack: PackId::from_bytes([pack; 32]) }
}

/// A pack that needs others on its backend.
pub(super) fn pack_on(backend: &str, name: &str, pack: u8, needs: &[Need]) -> NewPlacement {
    let pack = NewPack { id: PackId::from_bytes([pack; 32]), needs: needs.to_vec() };
    NewPlacement { encoding: Encoding::Pages, pack: Some(pack), ..on(backend, name) }
}

pub(super) fn kind<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.unwrap_err().kind().name()
}

/// The lease of the owners here, in seconds.
pub(super) const LEASE: u64 = 60;

pub(super) fn lease() -> Duration {
    Duration::from_secs(LEASE)
}

/// All cases as tests, each in a place that `$fresh()` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::catalogue::suite::suite! {
            $fresh =>
            snapshots: a_store_is_recorded_and_survives, a_name_passes_on,
                a_snapshot_has_as_many_names_as_it_was_given, snapshots_are_found_by_what_people_type,
                an_ambiguous_beginning_is_refused, every_beginning_is_exact, pages_follow_each_other,
                the_numbers_add_up, several_handles_write_at_once, a_call_that_is_dropped_is_whole_or_not_at_all;
            placements: a_commit_is_all_or_nothing, storing_again_adds_and_revives, a_state_changes_only_as_it_was_seen,
                a_store_relies_only_on_what_is_live, containers_are_recorded_once,
                a_placement_is_added_to_what_is_known_alone;
            packs: what_a_pack_proves_is_recorded_in_place_of_what_was, what_gives_nothing_goes_with_the_whole,
                what_a_pack_needs_stays_until_it_is_gone, a_pack_needs_what_is_live_on_its_backend,
                what_is_needed_is_replaced_by_the_same_alone, an_eviction_leaves_a_copy_and_what_is_needed;
            taking: a_version_waits_for_its_base_on_its_backend_and_not_for_long,
                what_was_passed_over_is_found_as_soon_as_it_may_be_begun, a_job_that_others_were_in_the_way_of_has_not_failed;
            chains: what_takes_the_place_of_a_pack, long_chains_are_found_in_their_order, what_is_shared_is_told;
            removals: removal_goes_step_by_step, a_name_goes_alone_and_the_bytes_with_the_last_one,
                an_object_is_deleted_by_one_host_at_a_time, what_is_relied_on_cannot_be_claimed;
            owners: an_intent_belongs_to_a_lease, only_the_dead_leave_stale_intents, a_fenced_owner_records_nothing,
                an_expired_lease_can_be_renewed_until_somebody_ends_it, tokens_only_grow,
                a_name_holds_one_lease, what_ended_without_a_word_does_not_pile_up, fencing_and_commits_at_once,
                only_leases_that_were_seen_expired_end, what_a_living_host_gave_up_is_stale;
            jobs: a_bad_placement_has_a_repair_until_it_is_good, the_fewest_copies_go_first_then_the_oldest,
                jobs_between_some_backends_are_passed_over, a_version_is_pushed_after_its_base,
                a_push_that_is_cancelled_is_at_risk_until_there_are_copies,
                a_job_is_run_by_one_host_at_a_time, a_job_that_failed_waits_until_its_time_or_a_new_copy,
                a_job_that_is_cancelled_records_nothing, what_is_removed_is_not_copied,
                a_repair_of_what_is_kept_leaves_it_removed, a_bad_placement_goes_only_where_a_live_one_is,
                copies_on_backends_that_are_not_configured_do_not_count, a_backend_is_forgotten_but_no_last_copy,
                events_are_bounded, the_most_copies_that_somebody_wants_count;
            reserved: what_is_reserved_counts_for_all_until_its_lease_ends,
                what_waits_for_one_backend_leaves_the_others_room;
            adopting: what_is_found_on_this_machine_alone_is_pushed, objects_become_snapshots_with_their_times_and_bases, a_name_goes_to_the_one_that_was_stored_last,
                a_backend_takes_no_name_from_another, no_time_lies_in_the_future,
                what_is_under_way_is_seen, what_was_listed_comes_oldest_first_and_once,
                named_ones_keep_their_order_and_bases_are_found_again,
                an_adopted_snapshot_has_what_its_route_wants;
            put_back: what_was_begun_in_a_copy_is_forgotten, what_has_not_gone_back_keeps_what_was_begun,
                hosts_under_which_a_copy_is_put_back_can_record_and_delete_nothing,
                a_change_that_fails_finds_it_out_once, the_second_time_is_as_the_first,
                what_is_not_looked_through_is_kept_until_it_is, what_is_new_is_looked_through_only_once_it_was;
            swaps: rows_keep_their_order_and_generations_count_up, old_rows_go_and_the_one_that_serves_stays,
                generations_of_several_handles_have_numbers_of_their_own;
            turns: scrubs_go_on_where_they_were, what_was_not_tried_is_not_counted_and_comes_before_what_failed;
        }
    };
    ($fresh:path => $($module:ident: $($case:ident),+;)+) => { $($(
        #[tokio::test]
        async fn $case() {
            $crate::catalogue::suite::$module::$case($fresh()).await;
        }
    )+)+ };
}

pub(crate) use suite;
