//! Room for pages that a reader needs later: in memory as far as there is any, which all readers of a host share, else in a
//! temporary file of the reader's own. So the memory of a restore depends neither on the size of the image nor on the length of
//! the chain. The file has a bound too, for each reader, for all those of a backend and for all of the host, and takes nothing of
//! the last room on the disk: what there is no room for is made again when it is needed.
//!
//! What is held is allocated when it is taken, and no longer when it is let go. Where the file system has no holes, each slot that was
//! ever used counts as a whole for as long as the file is there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::shares::{Budget, Disk, Share};
use crate::connector::disk_room;
use crate::types::{Error, Result};

/// The most bytes that all readers of a host hold in memory for later.
const MEMORY: usize = 96 << 20;

/// The unit of a temporary file: the pages of the largest frame, and of the largest prefix.
const SLOT: usize = 16 << 20;

/// The most bytes that one reader has in its temporary file: pages for later, and prefixes.
const FILE: usize = 512 << 20;

/// Memory that readers share.
#[derive(Default)]
pub(crate) struct Memory {
    used: AtomicUsize,
}

impl Memory {
    fn take(&self, len: usize) -> bool {
        let more = |used: usize| used.checked_add(len).filter(|all| *all <= MEMORY);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, len: usize) {
        self.used.fetch_sub(len, Ordering::Relaxed);
    }

    /// The bytes that are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Makes the temporary file of a reader.
type Make = Box<dyn Fn() -> Result<File> + Send + Sync>;

/// The room of one reader. Everything here may block.
pub(super) struct Room {
    memory: Arc<Memory>,
    disk: Disk,
    own: Disk,
    make: Make,
    slots: Mutex<Slots>,
}

/// What a reader itself may have.
fn own() -> Disk {
    Disk { pages: Budget::new(FILE), prefixes: Budget::new(FILE), all: Budget::new(2 * FILE) }
}

#[derive(Default)]
struct Slots {
    file: Option<Arc<File>>,
    /// Those that were used and are free.
    free: Vec<u64>,
    /// How many there are.
    count: u64,
    /// Whether the file system takes back what is let go; not known before there is a file.
    holes: Option<bool>,
    /// If it does not: what all slots take.
    all: Vec<Shares>,
}

/// Of this reader's bytes, of those of its backend, and of those of the host.
type Shares = [Share; 3];

impl Room {
    pub(super) fn new(
        memory: Arc<Memory>,
        disk: Disk,
        make: impl Fn() -> Result<File> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { memory, disk, own: own(), make: Box::new(make), slots: Mutex::default() })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, of which so many bytes are allocated; `None` if there is no room.
    fn slot(&self, len: usize, of: fn(&Disk) -> &Budget) -> Result<Option<Place>> {
        let mut slots = self.slots();
        let file = match &slots.file {
            Some(file) => file.clone(),
            None => slots.file.insert(Arc::new((self.make)()?)).clone(),
        };
        let holes = *slots.holes.get_or_insert_with(|| fallocate(&*file, HOLE, 0, SLOT as u64).is_ok());
        let free = slots.free.pop();
        let shares = match (holes, free) {
            (true, _) => Some(self.shares(len, of)),
            (false, None) => Some(self.shares(SLOT, of)),
            (false, Some(_)) => None,
        };
        let number = free.unwrap_or(slots.count);
        let room = match &shares {
            Some(None) => false,
            // It is there already.
            None => true,
            Some(Some(_)) => disk_room::leaves(&file, len as u64) && allocate(&file, number, len)?,
        };
        if !room {
            slots.free.extend(free);
            return Ok(None);
        }
        let mut shares = shares.flatten();
        if free.is_none() {
            slots.count += 1;
            if !holes {
                slots.all.extend(shares.take());
            }
        }
        Ok(Some(Place::File { file: file.clone(), slot: number, _shares: shares }))
    }

    fn shares(&self, len: usize, of: fn(&Disk) -> &Budget) -> Option<Shares> {
        let (own, backend) = (of(&self.own).try_take(len)?, of(&self.disk).try_take(len)?);
        Some([own, backend, self.disk.all.try_take(len)?])
    }

    /// Room for a prefix of `len` bytes, at most those of a frame, to be written. What was not written is not defined. `None`
    /// if there is no room.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn space(self: &Arc<Self>, len: usize) -> Result<Option<Held>> {
        self.space_of(len, |disk| &disk.prefixes)
    }

    fn space_of(self: &Arc<Self>, len: usize, of: fn(&Disk) -> &Budget) -> Result<Option<Held>> {
        if len > SLOT {
            return Err(Error::corrupt("a frame is larger than any can be"));
        }
        let place = match self.memory.take(len) {
            true => Place::Memory(Mutex::new(vec![0; len])),
            false => {
                let Some(place) = self.slot(len, of)? else { return Ok(None) };
                place
            }
        };
        Ok(Some(Held { room: self.clone(), place, len }))
    }

    /// Keeps bytes for later; `None` if there is no room.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn keep(self: &Arc<Self>, bytes: Bytes) -> Result<Option<Held>> {
        if self.memory.take(bytes.len()) {
            let len = bytes.len();
            return Ok(Some(Held { room: self.clone(), place: Place::Bytes(bytes), len }));
        }
        let Some(held) = self.space_of(bytes.len(), |disk| &disk.pages)? else { return Ok(None) };
        held.write(0, &bytes)?;
        Ok(Some(held))
    }
}

enum Place {
    /// Whole, and not written to any more.
    Bytes(Bytes),
    Memory(Mutex<Vec<u8>>),
    File {
        file: Arc<File>,
        slot: u64,
        /// Where the file system has holes.
        _shares: Option<Shares>,
    },
}

const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Allocates the first bytes of a slot, where the file system can. Returns whether there was room.
///
/// # Errors
/// Those of the temporary file.
fn allocate(file: &File, slot: u64, len: usize) -> Result<bool> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, slot * SLOT as u64, len.max(1) as u64) {
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            let _ = fallocate(file, HOLE, slot * SLOT as u64, SLOT as u64);
            Ok(false)
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(true),
        Err(error) => Err(failed(error.into())),
    }
}

/// Bytes that are held until it is dropped.
pub(super) struct Held {
    room: Arc<Room>,
    place: Place,
    len: usize,
}

fn failed(error: std::io::Error) -> Error {
    Error::io("a temporary file of a restore", error)
}

fn beyond() -> Error {
    Error::corrupt("a frame of the pack is shorter than its pages")
}

impl Held {
    fn within(&self, at: usize, len: usize) -> Result<()> {
        if at.checked_add(len).is_some_and(|end| end <= self.len) { Ok(()) } else { Err(beyond()) }
    }

    /// Writes some bytes.
    ///
    /// # Errors
    /// Those of the temporary file; `corrupt` past the end.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.within(at, bytes.len())?;
        match &self.place {
            Place::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let to = memory.get_mut(at..at + bytes.len()).ok_or_else(beyond)?;
                to.copy_from_slice(bytes);
                Ok(())
            }
            Place::File { file, slot, .. } => file.write_all_at(bytes, slot * SLOT as u64 + at as u64).map_err(failed),
            Place::Bytes(_) => Err(beyond()),
        }
    }

    /// Reads some bytes.
    ///
    /// # Errors
    /// Those of the temporary file; `corrupt` past the end.
    pub(super) fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.within(at, bytes.len())?;
        match &self.place {
            Place::Bytes(held) => bytes.copy_from_slice(held.get(at..at + bytes.len()).ok_or_else(beyond)?),
            Place::Memory(memory) => {
                let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.copy_from_slice(memory.get(at..at + bytes.len()).ok_or_else(beyond)?);
            }
            Place::File { file, slot, .. } => {
                file.read_exact_at(bytes, slot * SLOT as u64 + at as u64).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// All bytes.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn all(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &self.place {
            Place::File { file, slot, .. } => {
                // Where files have no holes, the slot is written over later.
                let _ = fallocate(file, HOLE, slot * SLOT as u64, SLOT as u64);
                self.room.slots().free.push(*slot);
            }
            Place::Bytes(_) | Place::Memory(_) => self.room.memory.give_back(self.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PAGE;

    #[test]
    fn what_all_backends_spill_is_bounded() {
        let shares = crate::connector::packs::Shares::default();
        let disks: Vec<Disk> = (0..9).map(|number| shares.disk(&number.to_string())).collect();
        let taken: Vec<Share> = disks
            .iter()
            .flat_map(|disk| std::iter::from_fn(|| Some((disk.pages.try_take(SLOT)?, disk.all.try_take(SLOT)?))))
            .flat_map(|(one, all)| [one, all])
            .collect();
        assert_eq!(taken.len() / 2, crate::connector::packs::shares::ALL_SPILLED / SLOT);
        let memory = Arc::<Memory>::default();
        let room = Room::new(memory, disks[8].clone(), || tempfile::tempfile().map_err(failed));
        let held: Vec<Held> = std::iter::from_fn(|| room.keep(vec![1; SLOT].into()).unwrap()).collect();
        assert_eq!(held.len(), MEMORY / SLOT, "there is memory, and no disk");
        drop(taken);
        assert!(room.keep(vec![1; SLOT].into()).unwrap().is_some());
    }

    #[test]
    fn where_files_have_no_holes_each_slot_counts_as_a_whole() {
        let shares = crate::connector::packs::Shares::default();
        let room = Room::new(Arc::default(), shares.disk("one"), || tempfile::tempfile().map_err(failed));
        room.slots().holes = Some(false);
        let _memory: Vec<Held> = (0..MEMORY / SLOT).map(|_| room.space(SLOT).unwrap().unwrap()).collect();
        let small: Vec<Held> = std::iter::from_fn(|| room.space(PAGE).unwrap()).take(99).collect();
        assert_eq!(small.len(), FILE / SLOT);
        drop(small);
        assert!(room.own.prefixes.try_take(1).is_none(), "the file has not become smaller");
        assert!(room.space(SLOT).unwrap().is_some(), "a slot that was used");
    }

    #[test]
    fn what_does_not_fit_into_memory_is_in_a_file_whose_slots_are_used_again() {
        let memory = Arc::<Memory>::default();
        let files = Arc::new(AtomicUsize::new(0));
        let made = files.clone();
        let shares = crate::connector::packs::Shares::default();
        let room = Room::new(memory.clone(), shares.disk("one"), move || {
            made.fetch_add(1, Ordering::Relaxed);
            tempfile::tempfile().map_err(failed)
        });
        let all: Vec<Held> = (0..8u8).map(|number| room.keep(vec![number; SLOT].into()).unwrap().unwrap()).collect();
        assert_eq!((memory.used(), files.load(Ordering::Relaxed), room.slots().count), (MEMORY, 1, 2));
        for (number, held) in all.iter().enumerate() {
            let mut some = [9; 3];
            held.read(SLOT - 3, &mut some).unwrap();
            assert_eq!(some, [number as u8; 3]);
            assert!(held.read(SLOT - 2, &mut some).is_err());
        }
        drop(all);
        assert_eq!((memory.used(), room.slots().free.len()), (0, 2));
        let fill: Vec<Held> = (0..7).map(|_| room.space(SLOT).unwrap().unwrap()).collect();
        fill[6].write(5, b"later").unwrap();
        assert_eq!(&fill[6].all().unwrap()[5..10], b"later");
        assert_eq!((room.slots().count, files.load(Ordering::Relaxed)), (2, 1));
        assert!(room.space(SLOT + 1).is_err());
        let rest: Vec<Held> = std::iter::from_fn(|| room.space(SLOT).unwrap()).take(99).collect();
        assert_eq!(rest.len() + 1, FILE / SLOT);
        assert!(room.keep(vec![1; SLOT].into()).unwrap().is_some(), "pages have a bound of their own");
        drop((fill, rest));
        assert!(room.space(SLOT).unwrap().is_some());
    }
}
