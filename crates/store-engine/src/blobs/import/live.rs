//! The state of an import: the data that is verified, written and recorded.
//!
//! The order is always: bytes and nodes are written, then synced, then claimed by the entry. Every read
//! or write runs to its end even if its caller goes away: blocks are changed in memory and written as a
//! whole, so a write that took effect after a later one would undo it.

use std::{collections::BTreeMap, sync::Arc};

use bao_tree::io::Leaf;
use bytes::{Bytes, BytesMut};
use larder_store_api::{Block, Error, GROUP_LEN, Kind, Part, PayloadId, Result};
use tokio::{task::JoinHandle, time::Instant};

use super::{RECORD_EVERY, RECORD_EVERY_BYTES, Shared};
use crate::blobs::{
    Inner,
    add::now,
    bitfield::Bitfield,
    change::{Change, Outcome},
    entry::{
        BlobEntry, Fragment, Indexed, MAX_FRAGMENTS, Partial, State, Stored, add_group, has_group,
        is_outboard_inline, limit_runs,
    },
    payload::{Draft, discard_unclaimed},
    tree::{Cv, PAIR_LEN, group_count, group_range, outboard_len, pair_index},
};

/// The number of verified bytes that are buffered before they are written.
const WRITE_LEN: u64 = 1024 * 1024;
/// The number of places in a blob for which bytes are buffered: as many peers may send parts of it at
/// once, and each part is still written in one piece.
const MAX_PENDING: usize = 16;
/// The number of outboard blocks that may wait to be written.
const OUTBOARD_BLOCKS: usize = 32;
/// The most attempts to record a size after other imports recorded sizes that they only claim.
const MAX_ATTEMPTS: usize = 8;
/// The most bytes that may wait to be recorded while a record is being written.
const MAX_UNRECORDED: u64 = 4 * RECORD_EVERY_BYTES;

#[derive(Debug)]
pub(super) struct Live {
    /// True if the earlier record was loaded.
    is_loaded: bool,
    /// True if everything is here and recorded; further data is ignored.
    complete: bool,
    /// The error of a store: the recorded data stays, and further data is refused.
    failed: Option<Error>,
    /// The entry as it was last recorded.
    recorded: Option<Indexed>,
    payload: Option<PayloadId>,
    /// Set while no entry claims the payload.
    draft: Option<Draft>,
    /// The groups that are written.
    runs: Vec<(u64, u64)>,
    fragments: BTreeMap<u64, LiveFragment>,
    pending: Vec<Pending>,
    /// The blocks of the outboard that are not written yet; all of them if the outboard is stored in
    /// the entry.
    outboard: BTreeMap<u64, BytesMut>,
    /// The bytes verified since the last record began.
    unrecorded: u64,
    recorded_at: Instant,
    recording: Option<JoinHandle<Result<Recorded>>>,
}

/// Verified, consecutive groups that are not written yet.
#[derive(Debug)]
struct Pending {
    start: u64,
    groups: Vec<Bytes>,
    len: u64,
}

impl Pending {
    fn end(&self) -> u64 {
        self.start + self.groups.len() as u64
    }
}

/// A group that is verified in part.
#[derive(Debug, Clone)]
struct LiveFragment {
    fragment: Fragment,
    /// Its bytes, zero if they are not verified; `None` if they are in the payload.
    bytes: Option<BytesMut>,
}

/// A verified node over `count` chunks from chunk `start`.
pub(super) struct Node {
    pub start: u64,
    pub count: u64,
    pub children: [Cv; 2],
}

impl Node {
    /// Returns true if the node lies below a group, and so not in the outboard.
    fn is_in_group(&self) -> bool {
        self.count <= 16
    }

    /// Returns the block of the outboard that contains the node, and its position in the block.
    fn place(&self, block_len: u64) -> (u64, usize) {
        let at = pair_index(self.start / 16, self.count.div_ceil(16)) * PAIR_LEN;
        (at / block_len, (at % block_len) as usize)
    }

    fn copy_to(&self, place: &mut [u8]) {
        let (left, right) = place.split_at_mut(32);
        left.copy_from_slice(&self.children[0]);
        right[..32].copy_from_slice(&self.children[1]);
    }
}

/// The outcome of recording.
#[derive(Debug)]
enum Recorded {
    Entry(Indexed),
    /// Another import completed the blob.
    Elsewhere,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            is_loaded: false,
            complete: false,
            failed: None,
            recorded: None,
            payload: None,
            draft: None,
            runs: Vec::new(),
            fragments: BTreeMap::new(),
            pending: Vec::new(),
            outboard: BTreeMap::new(),
            unrecorded: 0,
            recorded_at: Instant::now(),
            recording: None,
        }
    }
}

impl Live {
    /// Reads the recorded state, unless that was done. Returns the size that is proven here, if it
    /// differs.
    pub(super) async fn load(&mut self, shared: &Shared) -> Result<Option<u64>> {
        if self.is_loaded {
            return Ok(None);
        }
        let recorded = shared.inner.lookup(shared.hash).await?;
        if let Some(found) = &recorded {
            let size = found.entry.size();
            match &found.entry.state {
                State::Partial(partial) if size == shared.size => self.resume(partial),
                State::Partial(partial) if !partial.bitfield().size_is_proven() => {}
                _ if size == shared.size => self.complete = true,
                _ => return Ok(Some(size)),
            }
        }
        self.recorded = recorded;
        self.is_loaded = true;
        Ok(None)
    }

    fn resume(&mut self, partial: &Partial) {
        self.payload = Some(partial.stored.payload);
        if let Some(outboard) = &partial.stored.outboard {
            self.outboard.insert(0, BytesMut::from(&outboard[..]));
        }
        self.runs.clone_from(&partial.runs);
        let fragments = partial.fragments.iter().map(|fragment| {
            let fragment = fragment.clone();
            let bytes = None;
            (fragment.group, LiveFragment { fragment, bytes })
        });
        self.fragments = fragments.collect();
    }

    /// Makes sure that no unclaimed payload stays: another import may have completed the blob, and
    /// later writes may have brought this payload back.
    pub(super) fn end(&mut self, inner: &Arc<Inner>) {
        let Some(payload) = self.payload else { return };
        let recorded = self.recorded.as_ref();
        let is_ours = recorded.is_some_and(|found| found.entry.payload() == Some(payload));
        // A draft cleans up after itself, and a complete blob keeps its payload.
        if self.draft.is_none() && !(self.complete && is_ours) {
            discard_unclaimed(inner, payload);
        }
    }

    /// Returns true if the verified data must be recorded now.
    pub(super) fn is_due(&self, size: u64) -> bool {
        self.unrecorded >= RECORD_EVERY_BYTES
            || (size > GROUP_LEN && self.recorded_at.elapsed() >= RECORD_EVERY)
    }

    /// Returns true if an item of `group` is still needed.
    fn wants(&self, group: u64) -> Result<bool> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let is_pending = |pending: &Pending| (pending.start..pending.end()).contains(&group);
        let pending = self.pending.iter().any(is_pending);
        Ok(!self.complete && !pending && !has_group(&self.runs, group))
    }

    /// Ends the import if a store failed.
    pub(super) fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Takes a verified node over `count` chunks from chunk `start`, if that needs memory alone;
    /// returns true if it was taken.
    pub(super) fn take_node(&mut self, block_len: u64, node: &Node) -> bool {
        if self.complete {
            return true;
        }
        if node.is_in_group() {
            return false;
        }
        let (index, from) = node.place(block_len);
        let block = self.outboard.get_mut(&index);
        block.is_some_and(|block| {
            node.copy_to(&mut block[from..]);
            true
        })
    }

    /// Takes a verified node.
    pub(super) async fn put_node(&mut self, shared: &Shared, node: &Node) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        let group = node.start / 16;
        if node.is_in_group() {
            if self.wants(group)? {
                let fragment = self.fragment(shared, group).await?;
                let level = node.count.next_power_of_two().trailing_zeros() as u8;
                let node = ((node.start % 16) as u8, level, node.children);
                if !fragment.fragment.nodes.contains(&node) {
                    fragment.fragment.nodes.push(node);
                }
            }
            return Ok(());
        }
        let (index, from) = node.place(shared.inner.block_len);
        let block = self.outboard_block(shared, index).await?;
        node.copy_to(&mut block[from..]);
        Ok(())
    }

    /// Takes a verified leaf, if that needs memory alone; otherwise returns it.
    pub(super) fn take_leaf(&mut self, size: u64, leaf: Leaf) -> Result<Option<Leaf>> {
        let group = leaf.offset / GROUP_LEN;
        if !self.wants(group)? {
            return Ok(None);
        }
        let len = leaf.data.len() as u64;
        let whole = group_range(group, size);
        if len != whole.end - whole.start || !self.gather(group, &leaf.data) {
            return Ok(Some(leaf));
        }
        self.fragments.remove(&group);
        self.unrecorded += len;
        Ok(None)
    }

    /// Takes a verified leaf: a group, or some chunks of one.
    pub(super) async fn put_leaf(&mut self, shared: &Shared, leaf: Leaf) -> Result<()> {
        let group = leaf.offset / GROUP_LEN;
        if !self.wants(group)? {
            return Ok(());
        }
        let len = leaf.data.len() as u64;
        let whole = group_range(group, shared.size);
        if len == whole.end - whole.start {
            self.fragments.remove(&group);
            self.put_group(shared, group, leaf.data).await?;
        } else {
            let fragment = self.fragment(shared, group).await?;
            let from = (leaf.offset - whole.start) as usize;
            if let Some(bytes) = &mut fragment.bytes {
                bytes[from..from + leaf.data.len()].copy_from_slice(&leaf.data);
            }
            let chunks = len.div_ceil(1024) as u32;
            let mask = ((1u32 << chunks) - 1) << (from / 1024);
            fragment.fragment.chunks |= mask as u16;
            let all = (1u32 << (whole.end - whole.start).div_ceil(1024)) - 1;
            if u32::from(fragment.fragment.chunks) == all {
                let bytes = fragment.bytes.take().unwrap_or_default().freeze();
                self.fragments.remove(&group);
                self.put_group(shared, group, bytes).await?;
            }
        }
        self.unrecorded += len;
        Ok(())
    }

    /// Buffers a group until it is written, if there is room.
    fn gather(&mut self, group: u64, bytes: &Bytes) -> bool {
        let len = bytes.len() as u64;
        if let Some(run) = self.pending.iter_mut().find(|run| run.end() == group) {
            let has_room = run.len < WRITE_LEN;
            if has_room {
                run.len += len;
                run.groups.push(bytes.clone());
            }
            return has_room;
        }
        let has_room = self.pending.len() < MAX_PENDING;
        if has_room {
            self.pending.push(Pending {
                start: group,
                groups: vec![bytes.clone()],
                len,
            });
        }
        has_room
    }

    async fn put_group(&mut self, shared: &Shared, group: u64, bytes: Bytes) -> Result<()> {
        while !self.gather(group, &bytes) {
            let before = self.pending.iter().position(|run| run.end() == group);
            // Otherwise the run that was begun first: no peer may continue there any more.
            self.flush(shared, before.unwrap_or(0)).await?;
        }
        Ok(())
    }

    /// Returns the fragment of `group`, with its bytes in memory.
    async fn fragment(&mut self, shared: &Shared, group: u64) -> Result<&mut LiveFragment> {
        let range = group_range(group, shared.size);
        let len = (range.end - range.start) as usize;
        if let (Some(found), Some(payload)) = (self.fragments.get(&group), self.payload)
            && found.bytes.is_none()
        {
            let bytes = shared.inner.payloads.read(payload, Part::Data, range).await;
            let bytes = match bytes {
                Ok(bytes) => bytes,
                // The claimed bytes are gone: start the group again.
                Err(error) if error.kind() == Kind::NotFound => {
                    self.fragments.remove(&group);
                    Bytes::new()
                }
                Err(error) => return Err(error),
            };
            if let Some(found) = self.fragments.get_mut(&group) {
                found.bytes = Some(BytesMut::from(&bytes[..]));
            }
        }
        if self.fragments.len() >= MAX_FRAGMENTS && !self.fragments.contains_key(&group) {
            self.fragments.pop_first();
        }
        Ok(self.fragments.entry(group).or_insert_with(|| LiveFragment {
            fragment: Fragment {
                group,
                chunks: 0,
                nodes: Vec::new(),
            },
            bytes: Some(BytesMut::zeroed(len)),
        }))
    }

    /// Returns block `index` of the outboard, to be changed.
    async fn outboard_block(&mut self, shared: &Shared, index: u64) -> Result<&mut BytesMut> {
        if !self.outboard.contains_key(&index) {
            if self.outboard.len() >= OUTBOARD_BLOCKS {
                self.write_outboard(shared).await?;
            }
            let begin = index * shared.inner.block_len;
            let end = (begin + shared.inner.block_len).min(outboard_len(shared.size));
            let mut block = BytesMut::zeroed((end - begin) as usize);
            if let Some(payload) = self.payload
                && !is_outboard_inline(shared.size)
            {
                let read = shared
                    .inner
                    .payloads
                    .read(payload, Part::Outboard, begin..end);
                match read.await {
                    Ok(bytes) => block.copy_from_slice(&bytes),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            self.outboard.insert(index, block);
        }
        Ok(self
            .outboard
            .get_mut(&index)
            .expect("it was there or was just inserted"))
    }

    async fn payload(&mut self, shared: &Shared) -> Result<PayloadId> {
        match self.payload {
            Some(payload) => Ok(payload),
            None => {
                let draft = shared.inner.draft().await?;
                let payload = draft.id;
                self.draft = Some(draft);
                self.payload = Some(payload);
                Ok(payload)
            }
        }
    }

    async fn write_outboard(&mut self, shared: &Shared) -> Result<()> {
        // A short one is stored in the entry.
        if self.outboard.is_empty() || is_outboard_inline(shared.size) {
            return Ok(());
        }
        let payload = self.payload(shared).await?;
        let blocks = self
            .outboard
            .iter()
            .map(|(index, bytes)| Block {
                part: Part::Outboard,
                index: *index,
                bytes: bytes.clone().freeze(),
            })
            .collect();
        shared.inner.payloads.write(payload, blocks).await?;
        self.outboard.clear();
        Ok(())
    }

    /// Writes one run of pending groups.
    async fn flush(&mut self, shared: &Shared, at: usize) -> Result<()> {
        let run = &self.pending[at];
        let (start, end) = (run.start, run.end());
        let mut bytes = BytesMut::with_capacity(run.len as usize);
        for group in &run.groups {
            bytes.extend_from_slice(group);
        }
        self.write_data(shared, start, bytes.freeze()).await?;
        for group in start..end {
            add_group(&mut self.runs, group);
        }
        self.pending.remove(at);
        Ok(())
    }

    /// Writes consecutive groups; if blocks are longer than groups, with the data around them.
    async fn write_data(&mut self, shared: &Shared, group: u64, bytes: Bytes) -> Result<()> {
        let payload = self.payload(shared).await?;
        let (payloads, block_len) = (&shared.inner.payloads, shared.inner.block_len);
        let start = group * GROUP_LEN;
        let end = start + bytes.len() as u64;
        let index = start / block_len;
        let first = index * block_len;
        let last = (end.div_ceil(block_len) * block_len).min(shared.size);
        let bytes = if (first, last) == (start, end) {
            bytes
        } else {
            let mut span = BytesMut::zeroed((last - first) as usize);
            for around in [first..start, end..last] {
                if around.is_empty() {
                    continue;
                }
                match payloads.read(payload, Part::Data, around.clone()).await {
                    Ok(old) => {
                        let at = (around.start - first) as usize;
                        span[at..at + old.len()].copy_from_slice(&old);
                    }
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            let at = (start - first) as usize;
            span[at..at + bytes.len()].copy_from_slice(&bytes);
            span.freeze()
        };
        let part = Part::Data;
        payloads
            .write(payload, vec![Block { part, index, bytes }])
            .await
    }

    /// Writes all verified data.
    async fn write_all(&mut self, shared: &Shared) -> Result<()> {
        while !self.pending.is_empty() {
            self.flush(shared, 0).await?;
        }
        let unwritten: Vec<(u64, Bytes)> = self
            .fragments
            .iter()
            .filter(|(_, fragment)| fragment.fragment.chunks != 0)
            .filter_map(|(group, fragment)| {
                let bytes = fragment.bytes.as_ref()?;
                Some((*group, Bytes::copy_from_slice(bytes)))
            })
            .collect();
        for (group, bytes) in unwritten {
            self.write_data(shared, group, bytes).await?;
        }
        self.write_outboard(shared).await
    }

    fn has_all(&self, size: u64) -> bool {
        self.runs == [(0, group_count(size))]
    }

    /// Returns true if every byte is verified, recorded or not.
    pub(super) fn is_verified(&self, size: u64) -> bool {
        let pending: u64 = self.pending.iter().map(|run| run.groups.len() as u64).sum();
        let written: u64 = self.runs.iter().map(|(start, end)| end - start).sum();
        self.complete || pending + written == group_count(size)
    }

    /// Returns where the blob is stored, with the known part of its outboard if that is stored in the
    /// entry.
    fn stored(&self, size: u64, payload: PayloadId) -> Stored {
        let outboard = is_outboard_inline(size).then(|| match self.outboard.get(&0) {
            Some(outboard) => Bytes::copy_from_slice(outboard),
            None => vec![0; outboard_len(size) as usize].into(),
        });
        Stored {
            size,
            payload,
            outboard,
        }
    }

    fn partial(&self, stored: Stored) -> Partial {
        let mut runs = self.runs.clone();
        limit_runs(&mut runs);
        let fragments = self.fragments.values();
        let fragments = fragments
            .filter(|live| live.fragment.chunks != 0)
            .map(|live| live.fragment.clone());
        Partial {
            stored,
            runs,
            fragments: fragments.collect(),
        }
    }

    /// Starts to record if it is due.
    pub(super) async fn record_if_due(&mut self, shared: &Shared) -> Result<()> {
        match self.is_due(shared.size) {
            true => self.record(shared).await,
            false => Ok(()),
        }
    }

    /// Starts to record the verified data. At most one record is written at a time; if the import is
    /// far ahead of it, waits.
    async fn record(&mut self, shared: &Shared) -> Result<()> {
        if let Some(recording) = &self.recording {
            if !recording.is_finished() && self.unrecorded < MAX_UNRECORDED {
                return Ok(());
            }
            self.recording_ended(shared).await?;
        }
        if self.complete {
            return Ok(());
        }
        self.write_all(shared).await?;
        let Some(payload) = self.payload else {
            return Ok(());
        };
        let stored = self.stored(shared.size, payload);
        let state = if self.has_all(shared.size) {
            State::Complete(stored)
        } else {
            State::Partial(self.partial(stored))
        };
        self.spawn_record(shared, state);
        Ok(())
    }

    fn spawn_record(&mut self, shared: &Shared, state: State) {
        let entry = BlobEntry {
            added: now(),
            state,
        };
        let (inner, hash) = (shared.inner.clone(), shared.hash);
        let (old, draft) = (self.recorded.clone(), self.draft.take());
        let running = inner.hold();
        let shared = shared.this.upgrade();
        self.unrecorded = 0;
        self.recorded_at = Instant::now();
        self.recording = Some(tokio::spawn(async move {
            // The import's leftovers are cleaned up before it counts as ended.
            let _kept = (shared, running);
            let (mut old, mut draft) = (old, draft);
            if let Some(payload) = entry.payload() {
                inner.payloads.sync(vec![payload]).await?;
            }
            for _ in 0..MAX_ATTEMPTS {
                let mut change = Change::default();
                change.replace(hash, old.as_ref(), Some(&entry));
                draft.into_iter().for_each(|draft| change.claim(draft));
                let mut drafts = match inner.commit(change).await? {
                    Outcome::Done(revision) => {
                        return Ok(Recorded::Entry(Indexed { entry, revision }));
                    }
                    Outcome::Conflict(drafts) => drafts,
                };
                draft = drafts.pop();
                let found = inner.lookup(hash).await?;
                match found.as_ref().map(|found| &found.entry.state) {
                    // A claimed size gives way to a proven one, as long as nobody can have deleted the
                    // data to be claimed.
                    Some(State::Partial(other))
                        if !other.bitfield().size_is_proven()
                            && entry.bitfield().size_is_proven()
                            && entry.size() != other.stored.size
                            && (draft.is_some() || entry.payload().is_none()) =>
                    {
                        old = found;
                    }
                    Some(State::Partial(_)) | None => break,
                    Some(_) => return Ok(Recorded::Elsewhere),
                }
            }
            Err(Error::new(
                Kind::Conflict,
                "blobs.import",
                "the blob was repaired or deleted meanwhile; import again",
            )
            .with("hash", hash))
        }));
    }

    /// Waits until the running record is written.
    async fn recording_ended(&mut self, shared: &Shared) -> Result<()> {
        let Some(recording) = &mut self.recording else {
            return Ok(());
        };
        let recorded = recording.await.map_err(|error| {
            Error::new(
                Kind::Internal,
                "blobs.import",
                "the task that records failed",
            )
            .because(error)
        });
        self.recording = None;
        match recorded?? {
            Recorded::Entry(found) => {
                self.complete = !matches!(found.entry.state, State::Partial(_));
                self.recorded = Some(found);
            }
            Recorded::Elsewhere => {
                self.recorded = shared.inner.lookup(shared.hash).await?;
                self.complete = true;
            }
        }
        Ok(())
    }

    pub(super) async fn finish(&mut self, shared: &Shared) -> Result<Bitfield> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.try_finish(shared).await?;
        Ok(match &self.recorded {
            Some(found) if found.entry.size() == shared.size => found.entry.bitfield(),
            _ => Bitfield::empty(),
        })
    }

    async fn try_finish(&mut self, shared: &Shared) -> Result<()> {
        self.recording_ended(shared).await?;
        if self.complete {
            return Ok(());
        }
        if shared.size <= GROUP_LEN
            && let [run] = &self.pending[..]
            && let [bytes] = &run.groups[..]
        {
            let state = State::Inline(bytes.clone());
            // A payload that was begun for it is no longer needed.
            let draft = self.draft.take();
            self.spawn_record(shared, state);
            self.recording_ended(shared).await?;
            drop(draft);
            return Ok(());
        }
        let news = self.unrecorded > 0
            || !self.pending.is_empty()
            || (self.has_all(shared.size) && self.payload.is_some());
        if news {
            self.record(shared).await?;
            self.recording_ended(shared).await?;
        }
        Ok(())
    }
}
