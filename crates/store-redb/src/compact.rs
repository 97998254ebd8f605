//! Frees the space of records that nothing needs any more: what is still needed of a segment is
//! appended again, and the segment is removed once the index knows only the copies.
//!
//! A record that deletes is needed while an older segment has a record that puts the key: without
//! it, an index that is made again from the log would bring the key back. Such segments are told by
//! their accounts: they have records that put and are not live.

use larder_store_api::{Error, Kind, Result};

use crate::{
    frame::{self, FrameBuilder, Record},
    item::Account,
    log::Position,
    writer::{Compaction, Pending, Purpose, Writer},
};

/// The length from which an idle store's last segment is rolled: if half of it is dead, the next
/// one is begun, so that it can be compacted.
const ROLL_LEN: u64 = 1 << 20;
/// The length at which a segment is rolled if the caller asked to settle.
const ROLL_LEN_SETTLING: u64 = 16 << 10;
/// With more bytes than this of records that delete and must be kept, the oldest segment that makes
/// them necessary is compacted, however much of it is live.
const KEPT_DELETES: u64 = 16 << 20;

/// A segment that is worth compacting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    segment: u32,
    keep_deletes: bool,
}

/// The work that is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Something that can be done now.
    Work,
    /// The index has to catch up first, or there is not enough to do.
    Later,
    /// The index is up to date, and no space can be freed.
    Nothing,
}

impl Writer {
    /// Does a little of what there is to do.
    pub(crate) fn maintain_step(&mut self) -> Result<Left> {
        self.retire()?;
        if self.compaction.is_some() {
            self.make_room(match self.is_settling() {
                true => Purpose::Frees,
                false => Purpose::Stores,
            })?;
            self.copy_frame()?;
            return Ok(Left::Work);
        }
        let settling = self.is_settling();
        if settling || self.core.overlay.is_full() || !self.retiring.is_empty() {
            self.freeze()?;
        }
        let (applied, failed) = {
            let applying = self.core.applying();
            (applying.applied, applying.failed.clone())
        };
        if let Some(error) = failed.filter(|_| settling) {
            return Err(error);
        }
        if applied != self.judged || settling {
            self.judged = applied;
            if self.core.overlay.is_applied() {
                self.roll_if_dead(if settling {
                    ROLL_LEN_SETTLING
                } else {
                    ROLL_LEN
                })?;
            }
            if let Some(candidate) = self.candidate() {
                self.begin(candidate)?;
                return Ok(Left::Work);
            }
        }
        Ok(
            match (self.core.overlay.is_applied(), self.retiring.is_empty()) {
                (true, true) => Left::Nothing,
                (true, false) => Left::Work,
                (false, _) => Left::Later,
            },
        )
    }

    /// Removes the segments whose copies the index knows.
    fn retire(&mut self) -> Result<()> {
        let applied = self
            .core
            .applying()
            .applied
            .map_or(0, |applied| applied.sequence);
        let all = self.core.overlay.is_applied();
        // In order, because a record that deletes must outlive those that it deletes.
        while let Some((segment, sequence)) = self.retiring.first().copied()
            && (all || sequence <= applied)
        {
            self.core.log.remove(segment)?;
            self.core.applying().accounts.remove(&segment);
            self.retiring.remove(0);
            tracing::debug!(segment, "a segment of the log was compacted");
            self.judged = None;
        }
        Ok(())
    }

    /// Begins the next segment where the last one is mostly dead.
    fn roll_if_dead(&mut self, least: u64) -> Result<()> {
        let Position { segment, offset } = self.appender.position();
        let account = self
            .core
            .applying()
            .accounts
            .get(&segment)
            .copied()
            .unwrap_or_default();
        if offset >= least && account.live < offset / 2 {
            self.appender.roll()?;
        }
        Ok(())
    }

    /// The oldest segment that is worth compacting.
    fn candidate(&self) -> Option<Candidate> {
        let applying = self.core.applying();
        let applied = applying.applied?.position;
        let last = self.appender.position().segment;
        let mut dirty_before = false;
        let mut oldest_dirty = None;
        let mut kept_deletes = 0;
        for (segment, len) in self.core.log.segments() {
            let Account {
                puts,
                live,
                deletes,
            } = applying.accounts.get(&segment).copied().unwrap_or_default();
            let keep_deletes = dirty_before;
            let end = Position {
                segment,
                offset: len,
            };
            let is_free = segment != last
                && end <= applied
                && !self.stuck.contains(&segment)
                && self.retiring.iter().all(|(other, _)| *other != segment);
            let candidate = Candidate {
                segment,
                keep_deletes,
            };
            let needed = live + if keep_deletes { deletes } else { 0 };
            if is_free && needed < len / 2 {
                return Some(candidate);
            }
            if puts > live && !dirty_before {
                dirty_before = true;
                oldest_dirty = is_free.then_some(candidate);
            }
            if keep_deletes {
                kept_deletes += deletes;
            }
        }
        oldest_dirty.filter(|_| kept_deletes > KEPT_DELETES)
    }

    fn begin(&mut self, candidate: Candidate) -> Result<()> {
        let Candidate {
            segment,
            keep_deletes,
        } = candidate;
        self.compaction = Some(Compaction {
            segment,
            frames: self.core.log.frames(segment, 0)?,
            keep_deletes,
        });
        Ok(())
    }

    /// Appends what is still needed of one more frame.
    fn copy_frame(&mut self) -> Result<()> {
        let Some(mut compaction) = self.compaction.take() else {
            return Ok(());
        };
        let segment = compaction.segment;
        let Some(frame) = compaction.frames.next()? else {
            if compaction.frames.is_at_end() {
                self.retiring.push((segment, self.appender.last().sequence));
            } else {
                self.give_up(segment, compaction.frames.offset());
            }
            return Ok(());
        };
        let mut copy = FrameBuilder::new(std::mem::take(&mut self.buffer));
        let mut pending = Vec::new();
        for (offset, record) in frame::records(&frame.body) {
            let Ok(record) = record else {
                self.give_up(segment, frame.offset);
                return Ok(());
            };
            let current = self.core.overlay.get(record.key)?;
            let is_needed = match (record.value, current) {
                (Some(_), Some(item)) => item.at == frame.record_at(segment, offset, record.len()),
                (None, None) => compaction.keep_deletes,
                _ => false,
            };
            if is_needed {
                pending.push(copied(record, &mut copy));
            }
        }
        if !pending.is_empty() {
            self.append_copies(&mut copy, &pending)?;
        }
        self.buffer = copy.into_buffer();
        self.compaction = Some(compaction);
        Ok(())
    }

    /// Leaves a damaged segment as it is, for a repair to read.
    fn give_up(&mut self, segment: u32, offset: u64) {
        let path = self.core.log.path(segment);
        let message = "a damaged segment cannot be compacted; run a repair";
        let error = Error::new(Kind::Corrupt, "log.compact", message)
            .with("path", path.display())
            .with("offset", offset);
        tracing::error!(?error);
        self.stuck.insert(segment);
    }
}

/// Puts a record into another frame, as it is.
fn copied(record: Record<'_>, frame: &mut FrameBuilder) -> Pending {
    Pending {
        key: bytes::Bytes::copy_from_slice(record.key),
        value: record.value.map(bytes::Bytes::copy_from_slice),
        revision: record.revision,
        place: frame.push(record),
    }
}
