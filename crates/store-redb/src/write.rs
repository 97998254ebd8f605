//! The thread that commits: it takes all callers that wait, writes one frame for them, syncs once,
//! and answers them all.

use std::{collections::HashMap, sync::atomic::Ordering};

use bytes::Bytes;
use larder_store_api::{
    Batch, Change, CollectionId, Durability, Edit, Error, Expect, Kind, Result, Revision,
};
use tokio::sync::mpsc;

use crate::{
    compact::Left,
    error::closed,
    frame::{FrameBuilder, Record},
    key,
    overlay::Freeze,
    request::{QUEUE_LEN, Reply, Request},
    writer::{Pending, Purpose, Writer},
};

/// A group with this many bytes takes no further commit.
const GROUP_LEN: usize = 1 << 20;

/// A batch of the group being built.
struct Member {
    batch: Batch,
    reply: Reply<Revision>,
    outcome: Result<Revision>,
}

impl Writer {
    /// Serves requests until the store is closed or every handle is gone.
    pub(crate) fn run(mut self) {
        while self.receive() {
            while let Some(request) = self.waiting.pop_front() {
                match request {
                    Request::Commit(batch, reply) => self.commit_group(batch, reply),
                    Request::Sync(reply) => drop(reply.send(self.appender.sync())),
                    Request::Settle(reply) => self.settling.push(reply),
                    Request::Nudge => {}
                    Request::Idle => {
                        if let Err(error) = self.freeze() {
                            tracing::warn!(?error, "the index cannot be brought up to date now");
                        }
                    }
                    Request::Close(reply) => {
                        let result = self.finish();
                        drop(reply.send(result));
                        return;
                    }
                }
            }
            self.maintain();
        }
        // Whoever did not close has its commits in the log; the index follows when it is opened.
        if let Err(error) = self.appender.trim() {
            tracing::warn!(
                ?error,
                "the log could not be synced when the store was dropped"
            );
        }
    }

    /// Takes what waits; where nothing waits and there is no other work, waits for it.
    fn receive(&mut self) -> bool {
        if self.has_work {
            while self.waiting.len() < QUEUE_LEN {
                match self.queue.try_recv() {
                    Ok(request) => self.waiting.push_back(request),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        return !self.waiting.is_empty();
                    }
                }
            }
            return true;
        }
        let Some(request) = self.queue.blocking_recv() else {
            return false;
        };
        self.waiting.push_back(request);
        while self.waiting.len() < QUEUE_LEN
            && let Ok(request) = self.queue.try_recv()
        {
            self.waiting.push_back(request);
        }
        true
    }

    /// Commits `first` and all commits that wait right behind it.
    fn commit_group(&mut self, first: Batch, reply: Reply<Revision>) {
        let purpose = Purpose::of(&first);
        if let Err(error) = self.make_room(purpose) {
            drop(reply.send(Err(error)));
            return;
        }
        let mut frame = FrameBuilder::new(std::mem::take(&mut self.buffer));
        let mut pending = Vec::new();
        let mut heads = HashMap::new();
        let mut members = Vec::new();
        let mut revision = self.revision;
        let mut next = Some((first, reply));
        let mut durable = false;
        let mut frees = true;
        while let Some((batch, reply)) = next.take() {
            frees &= Purpose::of(&batch) == Purpose::Frees;
            let outcome = self.check(&batch.expect, &heads);
            let outcome = outcome.map(|()| {
                revision += 1;
                durable |= batch.durability == Durability::OnWrite;
                push_edits(&batch.edits, revision, &mut frame, &mut pending, &mut heads);
                Revision(revision)
            });
            members.push(Member {
                batch,
                reply,
                outcome,
            });
            if frame.len() < GROUP_LEN
                && let Some(Request::Commit(waiting, _)) = self.waiting.front()
                // On a full disk, what frees space does not fail together with what needs some.
                && (!self.is_full || Purpose::of(waiting) == purpose)
                && let Some(Request::Commit(batch, reply)) = self.waiting.pop_front()
            {
                next = Some((batch, reply));
            }
        }
        let mut written = self.write(&mut frame, &pending, revision, durable);
        let purpose = if frees {
            Purpose::Frees
        } else {
            Purpose::Stores
        };
        if let Err(error) = &written
            && self.may_go_on(error, purpose)
        {
            written = self.write(&mut frame, &pending, revision, durable);
        }
        self.is_full = matches!(&written, Err(error) if error.kind() == Kind::Full);
        self.buffer = frame.into_buffer();
        self.announce(&members, written.is_ok());
        for member in members {
            let outcome = match &written {
                Ok(()) => member.outcome,
                Err(error) => Err(error.clone()),
            };
            // A caller that is gone does not want to know.
            drop(member.reply.send(outcome));
        }
    }

    /// Returns true if every expectation holds after the earlier members of the group.
    fn check(&self, expect: &[Expect], heads: &HashMap<Bytes, Option<u64>>) -> Result<()> {
        for expect in expect {
            let (collection, key, wanted) = match expect {
                Expect::Absent { collection, key } => (collection, key, None),
                Expect::At {
                    collection,
                    key,
                    revision,
                } => (collection, key, Some(revision.0)),
            };
            let composite = key::encode(collection, key);
            let found = match heads.get(&composite) {
                Some(found) => *found,
                None => self.core.overlay.get(&composite)?.map(|item| item.revision),
            };
            if found != wanted {
                let message = "an expectation does not hold";
                return Err(Error::new(Kind::Conflict, "collection.commit", message)
                    .with("collection", collection)
                    .with("key", key.escape_ascii()));
            }
        }
        Ok(())
    }

    /// Appends the group, makes it durable where one of its members asked for that, and visible.
    fn write(
        &mut self,
        frame: &mut FrameBuilder,
        pending: &[Pending],
        revision: u64,
        durable: bool,
    ) -> Result<()> {
        if revision == self.revision && pending.is_empty() {
            return Ok(());
        }
        let start = self.appender.append(frame, revision)?;
        if durable {
            self.appender.sync()?;
        }
        self.revision = revision;
        let cache = &self.core.cache;
        cache.while_changing(|| {
            self.publish(pending, start);
            for pending in pending {
                match &pending.value {
                    Some(value) => cache.put(&pending.key, value, pending.revision),
                    None => cache.delete(&pending.key),
                }
            }
        });
        Ok(())
    }

    /// Tells the watchers.
    fn announce(&self, members: &[Member], written: bool) {
        if !written || self.changes.receiver_count() == 0 {
            return;
        }
        for member in members {
            let Ok(revision) = member.outcome else {
                continue;
            };
            let mut by_collection: Vec<(CollectionId, Vec<Bytes>)> = Vec::new();
            for edit in &member.batch.edits {
                let (Edit::Put {
                    collection, key, ..
                }
                | Edit::Delete { collection, key }) = edit;
                match by_collection
                    .iter_mut()
                    .find(|(other, _)| other == collection)
                {
                    Some((_, keys)) => keys.push(key.clone()),
                    None => by_collection.push((collection.clone(), vec![key.clone()])),
                }
            }
            for (collection, mut keys) in by_collection {
                keys.sort_unstable();
                keys.dedup();
                // Fails only where the last watcher just left.
                drop(self.changes.send(Change::Keys {
                    collection,
                    keys,
                    revision,
                }));
            }
        }
    }

    /// Work between groups: hands what lies idle to the index, and compacts a little.
    fn maintain(&mut self) {
        let mut step = self.maintain_step();
        if self.is_settling() {
            if self.core.pages.full.load(Ordering::Acquire) && !self.core.release_reserve() {
                let message = "the index has no room on the disk";
                step = Err(Error::new(Kind::Full, "store.settle", message));
            } else if let Err(error) = &step
                && self.may_go_on(error, Purpose::Frees)
            {
                step = Ok(Left::Work);
            }
        }
        self.has_work = matches!(step, Ok(Left::Work));
        let answer = match step {
            Ok(Left::Nothing) => Ok(()),
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(?error, "the log cannot be maintained now");
                self.compaction = None;
                Err(error)
            }
        };
        for reply in self.settling.drain(..) {
            drop(reply.send(answer.clone()));
        }
    }

    /// Brings log and index to a clean end.
    fn finish(&mut self) -> Result<()> {
        self.queue.close();
        while let Ok(request) = self.queue.try_recv() {
            self.waiting.push_back(request);
        }
        for request in self.waiting.drain(..) {
            match request {
                Request::Commit(_, reply) => {
                    drop(reply.send(Err(closed("collection.commit"))));
                }
                Request::Sync(reply) | Request::Settle(reply) | Request::Close(reply) => {
                    drop(reply.send(Err(closed("store.close"))));
                }
                Request::Nudge | Request::Idle => {}
            }
        }
        self.appender.trim()?;
        if let Err(error) = self.apply_all() {
            // The log has everything; opening takes longer.
            tracing::warn!(
                ?error,
                "the index could not be brought up to date when closing"
            );
        }
        Ok(())
    }

    fn apply_all(&mut self) -> Result<()> {
        while !self.core.overlay.is_applied() {
            if self.freeze()? != Freeze::Frozen {
                self.wait_for_index()?;
            }
        }
        Ok(())
    }
}

fn push_edits(
    edits: &[Edit],
    revision: u64,
    frame: &mut FrameBuilder,
    pending: &mut Vec<Pending>,
    heads: &mut HashMap<Bytes, Option<u64>>,
) {
    for edit in edits {
        let (collection, key, value) = match edit {
            Edit::Put {
                collection,
                key,
                value,
            } => (collection, key, Some(value)),
            Edit::Delete { collection, key } => (collection, key, None),
        };
        let composite = key::encode(collection, key);
        let place = frame.push(Record {
            revision,
            key: &composite,
            value: value.map(|value| &value[..]),
        });
        heads.insert(composite.clone(), value.map(|_| revision));
        pending.push(Pending {
            key: composite,
            value: value.cloned(),
            revision,
            place,
        });
    }
}
