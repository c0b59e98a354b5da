//! Damage × operation, for a snapshot with two copies: one on the adapter, damaged behind everybody's back, and a whole one
//! in a folder.
//!
//! Whatever happened to the damaged copy, each operation does what it promised: a reader gets its bytes and never learns
//! of the damage, `verify` tells, a store makes it two good copies again, and a removal leaves nothing.

use std::sync::Arc;

use tidelock::types::ObjectId;
use tidelock::{ByteRange, SnapshotId};
use tidelock_tests::data::{MIB, assert_same};

use super::Case;
use crate::bench::{BACKEND, Bench, Ground, Options};
use crate::place::{Damage, Need};

/// What is done to a snapshot one of whose copies is damaged.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// The whole, as a stream.
    Retrieve,
    /// A part that begins before the damage and ends behind it.
    RetrieveRange,
    /// Many small parts through an open image.
    ReadAt,
    /// The same image once more.
    Store,
    /// All objects are asked for.
    Verify,
    /// All bytes are read.
    VerifyDeep,
    /// It is taken for the base of another.
    Update,
    /// It is removed.
    Remove,
}

const OPERATIONS: [(&str, Operation); 8] = [
    ("retrieve", Operation::Retrieve),
    ("retrieve_range", Operation::RetrieveRange),
    ("read_at", Operation::ReadAt),
    ("store", Operation::Store),
    ("verify", Operation::Verify),
    ("verify_deep", Operation::VerifyDeep),
    ("update", Operation::Update),
    ("remove", Operation::Remove),
];

const DAMAGES: [(&str, Damage); 3] =
    [("flipped", Damage::Flip), ("truncated", Damage::Truncate), ("lost", Damage::Lose)];

/// Not a multiple of a segment, and more than a host reads ahead of its caller.
const SIZE: usize = 7 * MIB + 12_345;

pub fn cases() -> Vec<Case> {
    let of_damage = |(damaged, damage): (&'static str, Damage)| {
        OPERATIONS.map(move |(name, operation)| {
            Case::new(format!("{damaged}_copy_{name}"), &[Need::AtRest], move |ground| run(ground, damage, operation))
        })
    };
    DAMAGES.into_iter().flat_map(of_damage).collect()
}

/// A snapshot with a damaged copy.
struct Damaged {
    ground: Arc<Ground>,
    bench: Bench,
    id: SnapshotId,
    bytes: Vec<u8>,
    damage: Damage,
}

async fn run(ground: Arc<Ground>, damage: Damage, operation: Operation) {
    let bench = ground.open_with(Options { spare: true, ..Options::default() }).await;
    let bytes = ground.noise(SIZE);
    let stored = bench.store_image(&bytes).await.unwrap();
    assert_eq!(stored.placements.len(), 2, "{stored:?}");
    assert_eq!(stored.placements[0].backend, BACKEND);
    let object = bench.object_of(&ground, &stored).await;
    ground.place.damage(&ground.prefix, &object, damage).await;
    if damage != Damage::Lose {
        ground.place.thaw(&bench.adapter, &object).await;
    }
    let damaged = Damaged { ground, bench, id: stored.id, bytes, damage };
    match operation {
        Operation::Retrieve => damaged.is_read_whole("with a damaged copy").await,
        Operation::RetrieveRange => damaged.range_is_read().await,
        Operation::ReadAt => damaged.parts_are_read().await,
        Operation::Store => damaged.is_stored_again().await,
        Operation::Verify => damaged.is_verified(false).await,
        Operation::VerifyDeep => damaged.is_verified(true).await,
        Operation::Update => damaged.is_a_base().await,
        Operation::Remove => damaged.is_removed(&object).await,
    }
}

impl Damaged {
    async fn is_read_whole(&self, what: &str) {
        assert_same(&self.bench.read_image(self.id, None).await.unwrap(), &self.bytes, what);
    }

    async fn range_is_read(&self) {
        let (start, end) = (SIZE / 2 - 2 * MIB - 3, SIZE / 2 + 2 * MIB + 5);
        let range = ByteRange { start: start as u64, end: Some(end as u64) };
        let found = self.bench.read_image(self.id, Some(range)).await.unwrap();
        assert_same(&found, &self.bytes[start..end], "a part around the damage");
        let tail = ByteRange { start: (SIZE - 10) as u64, end: None };
        assert_same(&self.bench.read_image(self.id, Some(tail)).await.unwrap(), &self.bytes[SIZE - 10..], "the end");
    }

    async fn parts_are_read(&self) {
        let image = self.bench.host.open(self.id).await.unwrap();
        let mut buffer = vec![0; 10_000];
        for at in (0..SIZE).step_by(SIZE / 12) {
            let count = image.read_at(at as u64, &mut buffer).await.unwrap();
            assert_same(&buffer[..count], &self.bytes[at..SIZE.min(at + buffer.len())], "a part");
        }
    }

    /// Once it is known to be damaged, the image is sent again, and then both copies are good; where the server cannot be
    /// brought to that, the store does not say so.
    async fn is_stored_again(&self) {
        let deep = self.bench.host.verify(Some(self.id), true, None).await.unwrap();
        assert_eq!(deep.bad.len() + deep.unreachable.len(), 1, "{deep:?}");
        let again = match self.bench.store_image(&self.bytes).await {
            Ok(again) => again,
            Err(error) => {
                assert!(!self.ground.place.mends() && error.backend() == Some(BACKEND), "{error:?}");
                return self.is_read_whole("after it could not be mended").await;
            }
        };
        assert_eq!((again.id, again.placements.len()), (self.id, 2), "{again:?}");
        let known_bad = !deep.bad.is_empty();
        if known_bad {
            assert_eq!(again.stored_bytes, SIZE as u64, "one copy was sent again: {again:?}");
            self.bench.object_of(&self.ground, &again).await;
            let only = self.bench.read_placement(self.id, BACKEND).await.unwrap();
            assert_same(&only, &self.bytes, "the copy on the adapter alone");
        }
        self.is_read_whole("after it was stored again").await;
    }

    async fn is_verified(&self, deep: bool) {
        let found = self.bench.host.verify(Some(self.id), deep, None).await.unwrap();
        let noticed = found.bad.len() + found.unreachable.len();
        let must = deep || self.damage != Damage::Flip;
        assert!(noticed == 1 || !must || (!deep && self.ground.place.notices_damage()), "{found:?}");
        assert!(found.bad.iter().chain(&found.unreachable).all(|bad| bad.backend == BACKEND), "{found:?}");
        self.is_read_whole("after it was verified").await;
    }

    async fn is_a_base(&self) {
        let mut newer = self.bytes.clone();
        newer[SIZE / 3] ^= 1;
        let stored = self.bench.update_image(self.id, &newer).await.unwrap();
        assert_eq!((stored.placements.len(), stored.base), (2, Some(self.id)), "{stored:?}");
        self.bench.object_of(&self.ground, &stored).await;
        assert_same(&self.bench.read_image(stored.id, None).await.unwrap(), &newer, "the change");
        self.is_read_whole("its base").await;
    }

    async fn is_removed(&self, object: &ObjectId) {
        self.bench.host.remove(self.id).await.unwrap();
        let seen = self.ground.visible().await;
        assert!(!seen.contains_key(object.as_str()), "{seen:?}");
        assert!(!self.bench.spare_objects().contains(&(SIZE as u64)), "the whole copy is gone as well");
        let error = self.bench.read_image(self.id, None).await.unwrap_err();
        assert_eq!(error.kind().name(), "not-found", "{error:?}");
        // The same bytes can be stored at once.
        let again = self.bench.store_image(&self.bytes).await.unwrap();
        assert_eq!((again.id, again.placements.len()), (self.id, 2), "{again:?}");
        self.bench.object_of(&self.ground, &again).await;
        self.is_read_whole("stored after it was removed").await;
    }
}
