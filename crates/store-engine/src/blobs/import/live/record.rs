//! Recording what is verified and written.

use bytes::Bytes;
use larder_store_api::{Error, GROUP_LEN, Kind, PayloadId, Result};
use tokio::time::Instant;

use super::{Live, Recorded};
use crate::blobs::{
    add::now,
    bitfield::Bitfield,
    change::{Change, Outcome},
    entry::{BlobEntry, Indexed, Partial, State, Stored, is_outboard_inline, limit_runs},
    import::{RECORD_EVERY_BYTES, Shared},
    tree::{group_count, outboard_len},
};

/// The most attempts to record a size after other imports recorded sizes that they only claim.
const MAX_ATTEMPTS: usize = 8;
/// The most bytes that may wait to be recorded while a record is being written.
const MAX_UNRECORDED: u64 = 4 * RECORD_EVERY_BYTES;

impl Live {
    fn has_all(&self, size: u64) -> bool {
        self.runs == [(0, group_count(size))]
    }

    /// Returns true if every byte is verified, recorded or not.
    pub(in crate::blobs::import) fn is_verified(&self, size: u64) -> bool {
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
    pub(in crate::blobs::import) async fn record_if_due(&mut self, shared: &Shared) -> Result<()> {
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

    pub(in crate::blobs::import) async fn finish(&mut self, shared: &Shared) -> Result<Bitfield> {
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
