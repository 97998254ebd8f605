//! Writing verified groups and nodes.

use bytes::{Bytes, BytesMut};
use larder_store_api::{Block, GROUP_LEN, Kind, Part, PayloadId, Result};

use super::{Live, LiveFragment, Pending};
use crate::blobs::{
    entry::{Fragment, MAX_FRAGMENTS, add_group, is_outboard_inline},
    import::Shared,
    tree::{group_range, outboard_len},
};

/// The number of verified bytes that are buffered before they are written.
const WRITE_LEN: u64 = 1024 * 1024;
/// The number of places in a blob for which bytes are buffered: as many peers may send parts of it at
/// once, and each part is still written in one piece.
const MAX_PENDING: usize = 16;
/// The number of outboard blocks that may wait to be written.
const OUTBOARD_BLOCKS: usize = 32;

impl Live {
    /// Buffers a group until it is written, if there is room.
    pub(super) fn gather(&mut self, group: u64, bytes: &Bytes) -> bool {
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

    pub(super) async fn put_group(
        &mut self,
        shared: &Shared,
        group: u64,
        bytes: Bytes,
    ) -> Result<()> {
        while !self.gather(group, &bytes) {
            let before = self.pending.iter().position(|run| run.end() == group);
            // Otherwise the run that was begun first: no peer may continue there any more.
            self.flush(shared, before.unwrap_or(0)).await?;
        }
        Ok(())
    }

    /// Returns the fragment of `group`, with its bytes in memory.
    pub(super) async fn fragment(
        &mut self,
        shared: &Shared,
        group: u64,
    ) -> Result<&mut LiveFragment> {
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
    pub(super) async fn outboard_block(
        &mut self,
        shared: &Shared,
        index: u64,
    ) -> Result<&mut BytesMut> {
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
    pub(super) async fn write_all(&mut self, shared: &Shared) -> Result<()> {
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
}
