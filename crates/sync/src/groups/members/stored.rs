//! The operations of groups and the boxes of their epochs, as they are stored.
//!
//! ```text
//! sync/ops         group id [32] | number u32     -> an operation, in the order in which they were placed
//! sync/boxes       group id [32] | epoch [32] | number u16 -> a part of the list of boxes: 200 of them, but the last
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{Batch, CollectionId, Edit, Error, Expect, Kind, RecordId, Result};

use super::super::Inner;
use crate::membership::{Added, Log, Op, OpId};

const OPS: CollectionId = CollectionId::from_static("sync/ops");
const BOXES: CollectionId = CollectionId::from_static("sync/boxes");
const LOAD: &str = "sync.ops.load";

/// The bytes of a list of boxes that are stored and sent at a time.
pub(crate) const PART_LEN: usize = 200 * 81;

fn op_key(group: RecordId, number: usize) -> Bytes {
    let number = u32::try_from(number).expect("a log has few operations");
    [&group.0[..], &number.to_be_bytes()].concat().into()
}

fn part_key(group: RecordId, epoch: OpId, part: usize) -> Bytes {
    let part = u16::try_from(part).expect("a list has few parts");
    [&group.0[..], &epoch.0, &part.to_be_bytes()]
        .concat()
        .into()
}

fn damaged(group: RecordId, error: Error) -> Error {
    let message = "what is stored of the members of a group is damaged";
    Error::new(Kind::Corrupt, LOAD, message)
        .because(error)
        .with("group", group)
}

impl Inner {
    /// Loads the operations of a group; `None` if none has come yet.
    pub(super) async fn load_ops(&self, group: RecordId) -> Result<Option<Log>> {
        let prefix = Bytes::copy_from_slice(&group.0);
        let mut entries = self.collections.scan_prefix(OPS, prefix);
        let mut log: Option<Log> = None;
        while let Some(entry) = entries.try_next().await? {
            // Its signatures were checked before it was stored.
            let op = Op::decode_trusted(&entry.value).map_err(|error| damaged(group, error))?;
            let placed = match &mut log {
                None if op.id().0 == group.0 => {
                    log = Some(Log::new(op).map_err(|error| damaged(group, error))?);
                    true
                }
                None => false,
                Some(log) => matches!(log.add(op), Added::New(_)),
            };
            if !placed {
                let message = "an operation does not follow those before it";
                return Err(damaged(group, Error::new(Kind::Invalid, LOAD, message)));
            }
        }
        Ok(log)
    }

    /// Stores the operations of a log from a place on, and lists of boxes, in one commit with more edits;
    /// lists of epochs that others lead to go.
    pub(super) async fn keep_ops(
        &self,
        group: RecordId,
        log: &Log,
        stored: usize,
        lists: &[(OpId, Vec<u8>)],
        gone: &[(OpId, usize)],
        mut edits: Vec<Edit>,
    ) -> Result<()> {
        for (number, op) in (stored..).zip(log.from_place(stored)) {
            edits.push(Edit::put(OPS, op_key(group, number), op.encode()));
        }
        for (epoch, list) in lists {
            for (number, part) in list.chunks(PART_LEN).enumerate() {
                let key = part_key(group, *epoch, number);
                edits.push(Edit::put(BOXES, key, Bytes::copy_from_slice(part)));
            }
        }
        for (epoch, len) in gone {
            for number in 0..len.div_ceil(PART_LEN) {
                edits.push(Edit::Delete {
                    collection: BOXES,
                    key: part_key(group, *epoch, number),
                });
            }
        }
        if edits.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::of(edits);
        if stored < log.len() {
            // Two who write one store would overwrite each other's.
            batch = batch.expecting(Expect::Absent {
                collection: OPS,
                key: op_key(group, stored),
            });
        }
        self.collections.commit(batch).await.map(drop)
    }

    /// Returns the lists of boxes that are here.
    pub(super) async fn load_lists(&self, group: RecordId) -> Result<BTreeMap<OpId, Vec<u8>>> {
        let prefix = Bytes::copy_from_slice(&group.0);
        let mut entries = self.collections.scan_prefix(BOXES, prefix);
        let mut lists: BTreeMap<OpId, Vec<u8>> = BTreeMap::new();
        while let Some(entry) = entries.try_next().await? {
            let Some(epoch) = entry.key.get(32..).and_then(<[u8]>::first_chunk) else {
                let message = "the key of a list of boxes is too short";
                return Err(damaged(group, Error::new(Kind::Invalid, LOAD, message)));
            };
            lists
                .entry(OpId(*epoch))
                .or_default()
                .extend_from_slice(&entry.value);
        }
        Ok(lists)
    }

    /// Forgets the operations of a group.
    pub(crate) async fn forget_ops(&self, group: RecordId) -> Result<()> {
        for collection in [OPS, BOXES] {
            let prefix = Bytes::copy_from_slice(&group.0);
            let mut entries = self.collections.scan_prefix(collection.clone(), prefix);
            let mut keys = BTreeSet::new();
            while let Some(entry) = entries.try_next().await? {
                keys.insert(entry.key);
            }
            drop(entries);
            // The genesis goes last, so that what a crash leaves is found again.
            for key in keys.into_iter().rev() {
                self.collections.delete(collection.clone(), key).await?;
            }
        }
        Ok(())
    }
}
