//! The state of an import: the data that is verified, written and recorded.
//!
//! The order is always: bytes and nodes are written, then synced, then claimed by the entry. Every read
//! or write runs to its end even if its caller goes away: blocks are changed in memory and written as a
//! whole, so a write that took effect after a later one would undo it.

mod record;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use bao_tree::io::Leaf;
use bytes::{Bytes, BytesMut};
use larder_store_api::{Error, GROUP_LEN, PayloadId, Result};
use tokio::{task::JoinHandle, time::Instant};

use super::{RECORD_EVERY, RECORD_EVERY_BYTES, Shared};
use crate::blobs::{
    Inner,
    entry::{Fragment, Indexed, Partial, State, has_group},
    payload::{Draft, discard_unclaimed},
    tree::{Cv, PAIR_LEN, group_range, pair_index},
};

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
}
