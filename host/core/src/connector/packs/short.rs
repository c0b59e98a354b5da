//! Ranges of a snapshot that is in a pack that are not long, window by window: what of it is kept, and each other frame once.
//!
//! Frames come in an order in which each is decoded after those of its prefix, and what a prefix needs of a frame is copied into it at
//! once, in a room of bounded memory (`room.rs`). Readers that want the same frame wait for the one that decodes it. Fetching and decoding have
//! budgets (`shares.rs`), which no reader has while it waits for another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::OwnedMutexGuard;

use super::Caches;
use super::frames::RecentFrames;
use super::prefix::{Prefix, pages_of};
use super::read::PackReader;
use super::room::Room;
use crate::snapshot::PAGE;
use crate::snapshot::pages::{Chain, Coding, FramePart, FrameRef};
use crate::types::{Error, Result, blocking};

/// Bytes of a snapshot that are made at once.
pub(super) const WINDOW: u64 = 4 << 20;
/// The most frames that are looked at for those to be fetched together.
const MAX_AHEAD: usize = 1024;
/// How often a reader waits for frames that others decode before it decodes them itself.
const TURNS: usize = 8;

/// A frame, after those of its prefix.
struct Step {
    frame: FrameRef,
    /// Frames whose prefixes need pages of it.
    users: Vec<FrameRef>,
    /// Whether it was at hand.
    kept: bool,
    prefixed: bool,
}

/// The frames that some need which are not at hand, those of prefixes first.
fn steps(chain: &Chain, frames: &RecentFrames, wanted: &[FrameRef]) -> Vec<Step> {
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for at in wanted {
        visit(chain, frames, *at, &mut seen, &mut order);
    }
    let mut users = BTreeMap::<FrameRef, Vec<FrameRef>>::new();
    for (at, kept) in &order {
        if *kept {
            continue;
        }
        let needed: BTreeSet<FrameRef> = chain.prefix(*at).iter().map(|part| part.frame).collect();
        needed.into_iter().for_each(|needed| users.entry(needed).or_default().push(*at));
    }
    let prefixed = |at| chain.frame(at).is_some_and(|(_, frame)| frame.coding == Coding::Prefixed);
    let step = |(frame, kept)| Step {
        frame,
        users: users.remove(&frame).unwrap_or_default(),
        kept,
        prefixed: prefixed(frame),
    };
    order.into_iter().map(step).collect()
}

/// As deep as the deepest pack of the chain.
fn visit(
    chain: &Chain,
    frames: &RecentFrames,
    at: FrameRef,
    seen: &mut BTreeSet<FrameRef>,
    order: &mut Vec<(FrameRef, bool)>,
) {
    if !seen.insert(at) {
        return;
    }
    let kept = chain.frame(at).is_some_and(|(pack, _)| frames.has((pack.id(), at.frame)));
    if !kept {
        for part in chain.prefix(at) {
            visit(chain, frames, part.frame, seen, order);
        }
    }
    order.push((at, kept));
}

/// Takes the pages of a frame.
type Sink<'a> = &'a mut (dyn FnMut(FrameRef, &Bytes) -> Result<()> + Send);

impl PackReader {
    pub(super) async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.at >= self.end {
            return None;
        }
        let len = WINDOW.min(self.end - self.at);
        let window = self.window(self.at, len).await;
        // After an error nothing more is asked.
        self.at = if window.is_ok() { self.at + len } else { self.end };
        Some(window)
    }

    /// The bytes of a window, which begins with a page.
    pub(super) async fn window(&self, start: u64, len: u64) -> Result<Bytes> {
        let page = |byte: u64| u32::try_from(byte).map_err(|_| Error::corrupt("a page past the end of all packs"));
        let (first, end) = (page(start / PAGE as u64)?, page((start + len).div_ceil(PAGE as u64))?);
        let mut wanted = Vec::new();
        let mut placed = HashMap::<FrameRef, Vec<(usize, FramePart)>>::new();
        for part in self.chain.parts(first, end - first) {
            let Some(at) = part.at else { continue };
            let of_frame = placed.entry(at.frame).or_default();
            if of_frame.is_empty() {
                wanted.push(at.frame);
            }
            of_frame.push(((part.first - first) as usize * PAGE, at));
        }
        // Memory that is not written to yet is not there yet.
        let mut bytes = vec![0; (end - first) as usize * PAGE];
        let mut place = |at: FrameRef, frame: &Bytes| {
            for (to, part) in placed.get(&at).into_iter().flatten() {
                let pages = pages_of(frame, *part)?;
                let to = bytes.get_mut(*to..*to + pages.len());
                to.ok_or_else(|| Error::corrupt("a page past the end of the range"))?.copy_from_slice(pages);
            }
            Ok(())
        };
        let turn = self.turn(&wanted).await;
        self.frames_of(wanted, &mut place).await?;
        drop(turn);
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(bytes.into())
    }

    /// The turn of the first of some frames that is not at hand; none once all are.
    async fn turn(&self, wanted: &[FrameRef]) -> Option<OwnedMutexGuard<()>> {
        if self.caches == Caches::Bypass {
            return None;
        }
        for _ in 0..TURNS {
            let mut keys = wanted.iter().filter_map(|at| Some((self.chain.frame(*at)?.0.id(), at.frame)));
            let key = keys.find(|key| !self.frames.has(*key))?;
            let turn = self.host.inner.pack_shares.frames.of((self.placement.backend.clone(), key.0, key.1)).await;
            if !self.frames.has(key) {
                return Some(turn);
            }
        }
        None
    }

    /// Gives the pages of some frames, and perhaps of others; one after the other if there is no room for the prefixes of all.
    async fn frames_of(&self, wanted: Vec<FrameRef>, sink: Sink<'_>) -> Result<()> {
        if self.frames_within(wanted.clone(), sink).await? {
            return Ok(());
        }
        for at in wanted {
            if !self.frames_within(vec![at], sink).await? {
                return Err(Error::unavailable("there is no room for the pages that a frame of a pack is made with"));
            }
        }
        Ok(())
    }

    /// Returns whether there was room for the prefixes.
    async fn frames_within(&self, wanted: Vec<FrameRef>, sink: Sink<'_>) -> Result<bool> {
        let (chain, frames) = (self.chain.clone(), self.frames.clone());
        let steps = blocking(move || Ok(steps(&chain, &frames, &wanted))).await?;
        let host = self.host.clone();
        let disk = host.inner.pack_shares.disk(&self.placement.backend);
        let room = Room::new(self.host.inner.pack_memory.clone(), disk, move || host.temporary_file());
        let mut begun = BTreeMap::new();
        let mut number = 0;
        while let Some(step) = steps.get(number) {
            let at = step.frame;
            let (frames, _share) = match self.kept(at) {
                Some(bytes) => (vec![(at, bytes)], None),
                // It had to make room meanwhile.
                None if step.kept => (vec![(at, self.alone(at).await?)], None),
                None if step.prefixed => {
                    let (bytes, share) = self.frame(at, begun.remove(&at)).await?;
                    (vec![(at, bytes)], Some(share))
                }
                None => {
                    let alike = steps[number..].iter().take(MAX_AHEAD).take_while(|step| !step.kept && !step.prefixed);
                    let run = self.runs(&alike.map(|step| step.frame).collect::<Vec<_>>()).into_iter().next();
                    let (frames, share) = self.run(&run.unwrap_or_default()).await?;
                    (frames, share)
                }
            };
            if frames.is_empty() {
                return Err(Error::corrupt("a pack has no such frame"));
            }
            for (at, bytes) in frames {
                let Some(step) = steps.get(number).filter(|step| step.frame == at) else { break };
                begun.remove(&at);
                self.keep(at, &bytes);
                sink(at, &bytes)?;
                if !self.pass_on(step, bytes, &mut begun, &room).await? {
                    return Ok(false);
                }
                number += 1;
            }
        }
        Ok(true)
    }

    /// The pages of a frame.
    fn alone(&self, at: FrameRef) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let mut found = None;
            let mut take = |frame: FrameRef, bytes: &Bytes| {
                if frame == at {
                    found = Some(bytes.clone());
                }
                Ok(())
            };
            self.frames_of(vec![at], &mut take).await?;
            found.ok_or_else(|| Error::corrupt("a pack has no such frame"))
        })
    }

    /// Copies pages of a frame to where they are needed. Returns whether there was room.
    async fn pass_on(
        &self,
        step: &Step,
        bytes: Bytes,
        begun: &mut BTreeMap<FrameRef, Arc<Prefix>>,
        room: &Arc<Room>,
    ) -> Result<bool> {
        if step.users.is_empty() {
            return Ok(true);
        }
        let users: Vec<_> = step.users.iter().map(|user| (*user, begun.get(user).cloned())).collect();
        let (chain, room, at) = (self.chain.clone(), room.clone(), step.frame);
        let filled = blocking(move || {
            let fill = |(user, prefix): (FrameRef, Option<Arc<Prefix>>)| {
                let prefix = match prefix {
                    Some(prefix) => prefix,
                    None => match Prefix::new(&chain, user, &room)? {
                        Some(prefix) => Arc::new(prefix),
                        None => return Ok(None),
                    },
                };
                prefix.fill(at, &bytes)?;
                Ok(Some((user, prefix)))
            };
            users.into_iter().map(fill).collect::<Result<Option<Vec<_>>>>()
        });
        let Some(filled) = filled.await? else { return Ok(false) };
        begun.extend(filled);
        Ok(true)
    }

    /// A decoded frame, if it is kept.
    fn kept(&self, at: FrameRef) -> Option<Bytes> {
        let (pack, _) = self.chain.frame(at)?;
        self.frames.get((pack.id(), at.frame))
    }

    fn keep(&self, at: FrameRef, bytes: &Bytes) {
        if let Some((pack, _)) = self.chain.frame(at) {
            self.frames.put((pack.id(), at.frame), bytes.clone());
        }
    }
}
