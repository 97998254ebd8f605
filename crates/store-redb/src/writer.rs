//! The state of the thread that commits and compacts, and the steps that both need.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use larder_store_api::{Batch, Change, Edit, Error, Kind, Result};
use tokio::sync::{broadcast, mpsc};

use crate::{
    append::Appender,
    core::Core,
    frame::FrameBuilder,
    item::{Applied, Item, item_value},
    log::{Frames, Pointer, Position},
    overlay::Freeze,
    request::{QUEUE_LEN, Reply, Request},
};

/// The time to wait for the index before looking again if it can make progress.
const INDEX_PAUSE: Duration = Duration::from_millis(20);

/// The purpose of something that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It makes the store longer.
    Stores,
    /// It says that something is gone, so that its space is freed.
    Frees,
}

/// The most bytes of values that a commit puts which frees space: it may note what it does.
const NOTED: usize = 64;

impl Purpose {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut put = 0;
        let mut deletes = false;
        for edit in &batch.edits {
            match edit {
                Edit::Put { value, .. } => put += value.len(),
                Edit::Delete { .. } => deletes = true,
            }
        }
        match deletes && put <= NOTED {
            true => Purpose::Frees,
            false => Purpose::Stores,
        }
    }
}

/// An edit of the group being built.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    pub(crate) revision: u64,
    /// The place in the frame.
    pub(crate) place: (usize, usize),
}

/// A segment being copied.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) segment: u32,
    pub(crate) frames: Frames,
    pub(crate) keep_deletes: bool,
}

/// The state of the thread that commits.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) core: Arc<Core>,
    pub(crate) appender: Appender,
    /// The last commit.
    pub(crate) revision: u64,
    pub(crate) queue: mpsc::Receiver<Request>,
    pub(crate) waiting: VecDeque<Request>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) compaction: Option<Compaction>,
    /// True if there is work that need not wait for a request.
    pub(crate) has_work: bool,
    /// Segments whose live records were copied, each with the frame that the index must have
    /// before the segment can go.
    pub(crate) retiring: Vec<(u32, u64)>,
    pub(crate) settling: Vec<Reply<()>>,
    /// The place up to which the index was when it was last decided what to compact.
    pub(crate) judged: Option<Applied>,
    /// The disk was full the last time that something was appended.
    pub(crate) is_full: bool,
    /// Damaged segments, which are left alone.
    pub(crate) stuck: HashSet<u32>,
    /// The watchers; they end with this thread.
    pub(crate) changes: broadcast::Sender<Change>,
}

impl Writer {
    pub(crate) fn new(
        core: Arc<Core>,
        appender: Appender,
        queue: mpsc::Receiver<Request>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self {
            core,
            revision: appender.last().revision,
            appender,
            queue,
            waiting: VecDeque::with_capacity(QUEUE_LEN),
            buffer: Vec::new(),
            compaction: None,
            has_work: false,
            retiring: Vec::new(),
            settling: Vec::new(),
            judged: None,
            is_full: false,
            stuck: HashSet::new(),
            changes,
        }
    }

    /// Appends copies of records, which change nothing but where they are.
    pub(crate) fn append_copies(
        &mut self,
        frame: &mut FrameBuilder,
        pending: &[Pending],
    ) -> Result<()> {
        let start = self.appender.append(frame, self.revision)?;
        self.publish(pending, start);
        Ok(())
    }

    pub(crate) fn publish(&self, pending: &[Pending], start: Position) {
        let end = Applied {
            position: self.appender.position(),
            sequence: self.appender.last().sequence,
            revision: self.revision,
        };
        let items = pending
            .iter()
            .map(|pending| (pending.key.clone(), pending.item(start)));
        self.core.overlay.publish(items, end);
    }

    /// Hands a full generation to the index, and waits where the index is behind. Where the disk is full, what
    /// frees space may use the reserve for it.
    pub(crate) fn make_room(&mut self, purpose: Purpose) -> Result<()> {
        while self.core.overlay.is_full() {
            if self.freeze()? == Freeze::Busy {
                match self.wait_for_index() {
                    Err(error) if self.may_go_on(&error, purpose) => {
                        std::thread::sleep(INDEX_PAUSE);
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// After an error: true if the disk was full, and the reserve was given up for what frees space.
    pub(crate) fn may_go_on(&self, error: &Error, purpose: Purpose) -> bool {
        error.kind() == Kind::Full && purpose == Purpose::Frees && self.core.release_reserve()
    }

    /// Hands what was committed to the index.
    pub(crate) fn freeze(&mut self) -> Result<Freeze> {
        // The log comes first: the index must never know what the log may lose.
        self.appender.sync()?;
        let freeze = self.core.overlay.freeze();
        if freeze == Freeze::Frozen {
            self.core.notify();
        }
        Ok(freeze)
    }

    pub(crate) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    pub(crate) fn wait_for_index(&self) -> Result<()> {
        let applying = self.core.applying();
        if let Some(error) = &applying.failed {
            let message = "the index cannot be written; open the store again";
            return Err(
                Error::new(Kind::Unavailable, "collection.commit", message).because(error.clone())
            );
        }
        if self
            .core
            .pages
            .full
            .load(std::sync::atomic::Ordering::Acquire)
        {
            let message = "the index has no room on the disk";
            return Err(Error::new(Kind::Full, "collection.commit", message));
        }
        if self.core.overlay.frozen().is_some() {
            drop(self.core.wait(applying, INDEX_PAUSE));
        }
        Ok(())
    }
}

impl Pending {
    /// The item, in a frame that begins at `frame`.
    fn item(&self, frame: Position) -> Item {
        let (offset, len) = self.place;
        let offset = u32::try_from(frame.offset + offset as u64);
        Item {
            revision: self.revision,
            at: Pointer {
                segment: frame.segment,
                offset: offset.expect("segments are shorter than 4 GiB"),
                len: u32::try_from(len).expect("records are shorter than their segment"),
            },
            value: item_value(self.value.as_deref()),
        }
    }
}
