//! Long ranges of a snapshot in a pack: every frame is fetched and decoded once, and windows are made ahead of who takes them.
//!
//! The plan (`Plan`) has frames in an order in which prefixes are complete when they are needed. What later windows and prefixes
//! need is kept in a room of bounded memory and disk; what finds no room is made again, like a short range, by the window that
//! needs it. Pages of raw objects at their places are read and proven with the window; if one is
//! wrong, the window is made again from frames that are proven one by one.

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};

use super::prefix::pages_of;
use super::read::{PackReader, decoded};
use super::room::{Held, Room};
use super::shares::Share;
use super::task;
use crate::snapshot::pages::{FramePart, FrameRef, Part, Plan, Window};
use crate::snapshot::{Identity, PAGE, SEGMENT, SegmentDigest, ZERO_SEGMENT, segment_digest};
use crate::types::{Body, Error, ErrorKind, Result, blocking};
use pages::{only, place};

/// Bytes of a window: two segments.
const WINDOW: u64 = 4 << 20;
/// Runs of frames and windows that are under way at once.
const AHEAD: usize = 6;
/// Windows that wait to be taken.
const READY: usize = 2;
/// Bytes between two ranges of a raw object that are fetched rather than asked for in two requests.
const GAP: u64 = 256 << 10;

/// What is done next.
enum Work {
    /// Frames of the plan: neighbours in one object, or one alone.
    Frames(Range<usize>),
    Window(Window),
}

/// The prefix of a frame while it is filled.
struct Begun {
    parts: Vec<FramePart>,
    bytes: Held,
}

/// The pages of a frame that windows need soon or late, one after the other.
struct Kept {
    pages: Arc<Held>,
    windows: u32,
}

#[derive(Default)]
struct State {
    begun: BTreeMap<usize, Arc<Begun>>,
    /// By the number of the frame, and whether it is for late windows.
    kept: BTreeMap<(usize, bool), Kept>,
    /// Frames for whose prefixes there is no room.
    without: BTreeSet<usize>,
    /// Frames that were decoded after the first one that was not.
    early: BTreeSet<usize>,
}

/// A range while it is read.
pub(super) struct Whole {
    reader: PackReader,
    plan: Plan,
    /// A window of zeros.
    zeros: Bytes,
    /// The digests that the segments must have, if they are known.
    expected: Option<Arc<Identity>>,
    room: Arc<Room>,
    state: Mutex<State>,
    /// How many frames of the plan, from the first on, are decoded.
    decoded: watch::Sender<usize>,
    /// For runs of frames and windows that are begun ahead, if there is room for them.
    ahead: Option<Share>,
}

/// The bytes of a range that begins with a page, and with a segment if the digests are known.
pub(super) fn body(reader: PackReader, expected: Option<Arc<Identity>>, range: Range<u64>) -> Body {
    let len = range.end.saturating_sub(range.start);
    let (tell, told) = mpsc::channel(READY);
    let start = async move {
        tokio::spawn(async move {
            let forward = async {
                let mut windows = match planned(reader, expected, range).await {
                    Ok(whole) => Box::pin(whole.windows()),
                    Err(error) => return drop(tell.send(Err(error)).await),
                };
                while let Some(window) = windows.next().await {
                    let over = window.is_err();
                    if tell.send(window).await.is_err() || over {
                        return;
                    }
                }
            };
            tokio::select! {
                () = forward => {}
                () = tell.closed() => {}
            }
        });
        stream::unfold(told, |mut told| async { told.recv().await.map(|item| (item, told)) })
    };
    Body::new(stream::once(start).flatten(), Some(len))
}

async fn planned(reader: PackReader, expected: Option<Arc<Identity>>, range: Range<u64>) -> Result<Arc<Whole>> {
    let past = || Error::corrupt("a page past the end of all packs");
    let first = u32::try_from(range.start / PAGE as u64).map_err(|_| past())?;
    let end = u32::try_from(range.end.div_ceil(PAGE as u64)).map_err(|_| past())?;
    let chain = reader.chain.clone();
    let window = (WINDOW / PAGE as u64) as u32;
    let plan = blocking(move || Ok(Plan::new(&chain, first, end.saturating_sub(first), window))).await?;
    let host = reader.host.clone();
    let disk = host.inner.pack_shares.disk(&reader.placement.backend);
    let room = Room::new(reader.host.inner.pack_memory.clone(), disk, move || host.temporary_file());
    let (decoded, _) = watch::channel(0);
    let zeros = vec![0; WINDOW as usize].into();
    let (state, ahead) = (Mutex::default(), reader.host.inner.pack_shares.ahead());
    Ok(Arc::new(Whole { reader, plan, zeros, expected, room, state, decoded, ahead }))
}

impl Whole {
    fn windows(self: Arc<Self>) -> impl futures::Stream<Item = Result<Bytes>> + Send {
        let work = self.work();
        let ahead = if self.ahead.is_some() { AHEAD } else { 1 };
        stream::iter(work)
            .map(move |work| {
                let this = self.clone();
                // What it has of budgets is let go whether or not anybody takes the windows before it.
                task::started(async move {
                    match work {
                        Work::Frames(frames) => this.frames(frames).await.map(|()| None),
                        Work::Window(window) => this.window(window).await.map(Some),
                    }
                })
            })
            .buffered(ahead)
            .filter_map(|done| async { done.transpose() })
    }

    /// Frames and windows in the order in which they are begun.
    fn work(&self) -> Vec<Work> {
        let (mut work, mut given) = (Vec::new(), 0);
        for window in &self.plan.windows {
            while given < window.after {
                let run = self.run_from(given, window.after);
                work.push(Work::Frames(given..given + run));
                given += run;
            }
            work.push(Work::Window(*window));
        }
        work
    }

    /// How many frames from this one on can be fetched together: it alone if it has a prefix.
    fn run_from(&self, first: usize, end: usize) -> usize {
        let frames: Vec<FrameRef> =
            self.plan.frames[first..end].iter().take_while(|frame| frame.after == 0).map(|frame| frame.frame).collect();
        self.reader.runs(&frames).first().map_or(1, Vec::len).max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many frames are decoded.
    async fn until(&self, count: usize) {
        let mut told = self.decoded.subscribe();
        // The other end is here.
        let _ = told.wait_for(|decoded| *decoded >= count).await;
    }

    /// Takes note that a frame was decoded.
    fn done(&self, number: usize) {
        let mut state = self.state();
        state.early.insert(number);
        self.decoded.send_if_modified(|decoded| {
            let before = *decoded;
            while state.early.remove(decoded) {
                *decoded += 1;
            }
            *decoded != before
        });
    }

    async fn frames(self: &Arc<Self>, numbers: Range<usize>) -> Result<()> {
        let frames: Vec<FrameRef> = self.plan.frames[numbers.clone()].iter().map(|frame| frame.frame).collect();
        if frames.len() > 1
            && let Ok(stored) = self.reader.stored_together(&frames).await
        {
            for (number, stored) in numbers.clone().zip(stored) {
                if self.decode(number, stored).await.is_err() {
                    self.one(number).await?;
                }
            }
            return Ok(());
        }
        for number in numbers {
            self.one(number).await?;
        }
        Ok(())
    }

    /// One frame, from the first of its pack's placements that has it.
    async fn one(self: &Arc<Self>, number: usize) -> Result<()> {
        let at = self.plan.frames[number].frame;
        let this = self.clone();
        self.reader
            .any_of(at.source, move |placement| {
                let this = this.clone();
                async move {
                    let stored = this.reader.stored_of(&placement, at).await?;
                    let decoded = this.decode(number, stored).await;
                    decoded.map_err(|error| match error.backend() {
                        None if *error.kind() == ErrorKind::Corrupt => {
                            error.on_backend(&placement.backend).during("retrieve")
                        }
                        _ => error,
                    })
                }
            })
            .await
    }

    /// Decodes a frame and hands its pages on.
    ///
    /// # Errors
    /// `corrupt` for other bytes than were stored: the same frame may be tried again with others.
    async fn decode(self: &Arc<Self>, number: usize, stored: Bytes) -> Result<()> {
        self.until(self.plan.frames[number].after).await;
        let (host, frame) = (&self.reader.host, self.reader.chain.frame(self.plan.frames[number].frame));
        let pages = frame.map_or(0, |(_, frame)| frame.pages as usize);
        // The pages, and as many of a prefix.
        let _share = host.inner.pack_shares.decoding(stored.len() + 2 * pages * PAGE).await?;
        let _place = host.decoder().await?;
        let this = self.clone();
        blocking(move || this.take(number, &stored)).await?;
        self.done(number);
        Ok(())
    }

    fn take(&self, number: usize, stored: &Bytes) -> Result<()> {
        let (chain, planned) = (&self.reader.chain, &self.plan.frames[number]);
        let at = planned.frame;
        let (pack, _) = chain.frame(at).ok_or_else(|| Error::corrupt("the pack has no such frame"))?;
        if self.state().without.contains(&number) {
            self.forgo(&planned.users);
            return Ok(());
        }
        let begun = self.state().begun.get(&number).cloned();
        let prefix = begun.map_or(Ok(Vec::new()), |begun| begun.bytes.all())?;
        let pages = decoded(pack, at.frame, stored, &prefix)?;
        drop(prefix);
        self.state().begun.remove(&number);
        for user in &planned.users {
            let Some(begun) = self.begun(*user)? else { continue };
            let mut to = 0;
            for part in &begun.parts {
                if part.frame == at {
                    begun.bytes.write(to, pages_of(&pages, *part)?)?;
                }
                to += part.len as usize * PAGE;
            }
        }
        for late in [false, true] {
            let wanted = planned.wanted(late);
            if wanted.windows > 0
                && let Some(held) = self.room.keep(only(&pages, &wanted.pages)?)?
            {
                self.state().kept.insert((number, late), Kept { pages: Arc::new(held), windows: wanted.windows });
            }
        }
        Ok(())
    }

    /// Takes note that there is no room for the prefixes of frames.
    fn forgo(&self, numbers: &[usize]) {
        let mut state = self.state();
        for number in numbers {
            state.without.insert(*number);
            state.begun.remove(number);
        }
    }

    /// The prefix of a frame, begun if it is not yet; `None` if there is no room.
    fn begun(&self, number: usize) -> Result<Option<Arc<Begun>>> {
        {
            let state = self.state();
            if state.without.contains(&number) {
                return Ok(None);
            }
            if let Some(begun) = state.begun.get(&number) {
                return Ok(Some(begun.clone()));
            }
        }
        let parts = self.reader.chain.prefix(self.plan.frames[number].frame);
        let pages: usize = parts.iter().map(|part| part.len as usize).sum();
        let Some(bytes) = self.room.space(pages * PAGE)? else {
            self.forgo(&[number]);
            return Ok(None);
        };
        let begun = Arc::new(Begun { parts, bytes });
        let mut state = self.state();
        if state.without.contains(&number) {
            return Ok(None);
        }
        // Another thread may have begun it meanwhile.
        Ok(Some(state.begun.entry(number).or_insert(begun).clone()))
    }

    async fn window(self: &Arc<Self>, window: Window) -> Result<Bytes> {
        self.until(window.after).await;
        let chain = self.reader.chain.clone();
        let parts = chain.parts(window.first, window.len);
        let (start, len) = self.bytes_of(&chain, window);
        if parts.iter().all(|part| part.at.is_none()) && self.all_zeros(start, len) {
            return Ok(self.zeros.slice(..len));
        }
        if !self.has(&chain, window, &parts) {
            let made = self.reader.window(start, len as u64).await?;
            self.release(&chain, window, &parts);
            return self.proven(made, start);
        }
        let direct = match self.expected {
            Some(_) => self.direct(&chain, &parts).await.ok(),
            None => None,
        };
        let mut made = Err(Error::corrupt("it was not read yet"));
        if let Some(direct) = direct {
            let (this, parts) = (self.clone(), parts.clone());
            made = blocking(move || this.assemble(&parts, start, len, &direct)).await;
        }
        if made.is_err() {
            // Frame by frame, each from the first placement that has it: this finds what is wrong.
            let direct = self.direct_from_frames(&chain, &parts).await?;
            let (this, parts) = (self.clone(), parts.clone());
            made = blocking(move || this.assemble(&parts, start, len, &direct)).await;
        }
        let made = made.map_err(|error| match error.backend() {
            None => error.on_backend(&self.reader.placement.backend).during("retrieve"),
            Some(_) => error,
        })?;
        self.release(&chain, window, &parts);
        Ok(made)
    }

    fn digests(&self, start: u64, len: usize) -> &[SegmentDigest] {
        let first = (start / SEGMENT as u64) as usize;
        let digests = self.expected.as_ref().map_or(&[][..], |expected| expected.segments().as_slice());
        digests.get(first..first + len.div_ceil(SEGMENT)).unwrap_or_default()
    }

    /// Returns whether these bytes are whole segments of zeros, or nothing is known of them.
    fn all_zeros(&self, start: u64, len: usize) -> bool {
        let whole = len.is_multiple_of(SEGMENT) && !self.digests(start, len).is_empty();
        self.expected.is_none() || (whole && self.digests(start, len).iter().all(|digest| *digest == ZERO_SEGMENT))
    }

    /// Puts a window together, and compares its segments.
    fn assemble(&self, parts: &[Part], start: u64, len: usize, direct: &BTreeMap<u32, Bytes>) -> Result<Bytes> {
        let short = || Error::corrupt("a frame of the pack is shorter than its pages");
        let mut bytes = vec![0; len.next_multiple_of(PAGE)];
        for part in parts {
            let Some(at) = part.at else { continue };
            let from = (u64::from(part.first) * PAGE as u64 - start) as usize;
            let to = bytes.get_mut(from..from + part.len as usize * PAGE).ok_or_else(short)?;
            if let Some(found) = direct.get(&part.first) {
                // The last page of an object may be short.
                to.get_mut(..found.len()).ok_or_else(short)?.copy_from_slice(found);
                continue;
            }
            let number = self.plan.number(at.frame).ok_or_else(short)?;
            let planned = &self.plan.frames[number];
            let late = planned.is_late((start / PAGE as u64) as u32);
            let held = self.state().kept.get(&(number, late)).map(|kept| kept.pages.clone()).ok_or_else(short)?;
            held.read(place(&planned.wanted(late).pages, at.first).ok_or_else(short)?, to)?;
        }
        bytes.truncate(len);
        self.proven(bytes.into(), start)
    }

    /// A window, if its segments are those of the snapshot.
    fn proven(&self, bytes: Bytes, start: u64) -> Result<Bytes> {
        let len = bytes.len();
        let digests = self.digests(start, len);
        if self.expected.is_some() && digests.len() != len.div_ceil(SEGMENT) {
            return Err(Error::corrupt("a window past the end of the snapshot"));
        }
        for ((number, segment), digest) in (start / SEGMENT as u64..).zip(bytes.chunks(SEGMENT)).zip(digests) {
            if segment_digest(segment) != *digest {
                let from = number * SEGMENT as u64;
                let to = from + segment.len() as u64;
                let what = format!("segment {number} (bytes {from}..{to}) differs from the stored one");
                return Err(Error::corrupt(what));
            }
        }
        Ok(bytes)
    }
}
