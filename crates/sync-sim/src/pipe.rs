//! One direction of a simulated stream: bytes that wait to leave, that are in transit, and that wait to
//! be read.

use std::{collections::VecDeque, task::Waker};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    search::Tail,
    settings::{MAX_CHUNK_LEN, STREAM_WINDOW},
};

/// The end of a stream, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The writer has shut it down.
    Clean,
    /// The writer was dropped.
    Reset,
}

/// The item that crosses a link as a unit.
#[derive(Debug)]
pub(super) enum Item {
    Data(Bytes),
    End(End),
}

impl Item {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::End(_) => 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Pipe {
    // with the writer
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    queued: usize,
    end: Option<End>,
    end_sent: bool,
    /// True if the writer knows that nobody reads any more.
    pub(super) stopped: bool,
    pub(super) writer: Option<Waker>,
    /// True if it waits for its turn on the link.
    pub(super) ready: bool,
    // on the way
    /// Items that have not arrived.
    pub(super) flying: usize,
    /// Items among them that are past the link.
    pub(super) landing: usize,
    pub(super) in_flight: usize,
    /// No item arrives before this time.
    pub(super) last_arrival: Instant,
    pub(super) last_landing: Instant,
    pub(super) sent: u64,
    pub(super) tail_sent: Tail,
    // with the reader
    inbox: VecDeque<Bytes>,
    unread: usize,
    pub(super) arrived_end: Option<End>,
    pub(super) reader: Option<Waker>,
    pub(super) reader_gone: bool,
}

impl Pipe {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            end: None,
            end_sent: false,
            stopped: false,
            writer: None,
            ready: false,
            flying: 0,
            landing: 0,
            in_flight: 0,
            last_arrival: now,
            last_landing: now,
            sent: 0,
            tail_sent: Tail::default(),
            inbox: VecDeque::new(),
            unread: 0,
            arrived_end: None,
            reader: None,
            reader_gone: false,
        }
    }

    /// Returns the number of bytes that were written and not read.
    pub(super) fn held(&self) -> usize {
        self.queued + self.in_flight + self.unread
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.end
    }

    /// Returns true if anything was ever written, or the end.
    pub(super) fn is_touched(&self) -> bool {
        self.sent > 0 || self.has_queued() || self.end_sent
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued > 0 || (self.end.is_some() && !self.end_sent)
    }

    /// Takes as many of `bytes` as there is room for, and returns their number.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = STREAM_WINDOW.saturating_sub(self.held());
        let len = bytes.len().min(room).min(MAX_CHUNK_LEN - self.tail.len());
        self.tail.extend_from_slice(&bytes[..len]);
        self.queued += len;
        if self.tail.len() == MAX_CHUNK_LEN {
            self.queue.push_back(self.tail.split().freeze());
        }
        len
    }

    pub(super) fn finish(&mut self, end: End) {
        self.end = Some(end);
        if end == End::Reset {
            self.drop_queued();
        }
    }

    /// Discards everything that waits to leave, even the end: a truncated stream must not look
    /// complete.
    pub(super) fn abandon(&mut self) {
        self.drop_queued();
        self.end_sent = true;
    }

    /// Discards the bytes that wait to leave.
    fn drop_queued(&mut self) {
        self.queue.clear();
        self.tail = BytesMut::new();
        self.queued = 0;
    }

    /// Takes the next item to leave, of at most `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<Item> {
        let bytes = match self.queue.front_mut() {
            Some(front) if front.len() > len => front.split_to(len),
            Some(_) => self.queue.pop_front()?,
            None if !self.tail.is_empty() => {
                let len = self.tail.len().min(len);
                self.tail.split_to(len).freeze()
            }
            None => {
                let end = self.end.filter(|_| !self.end_sent)?;
                self.end_sent = true;
                return Some(Item::End(end));
            }
        };
        self.queued -= bytes.len();
        Some(Item::Data(bytes))
    }

    /// Delivers an item. Returns true if the reader gets any of it.
    pub(super) fn arrive(&mut self, item: Item) -> bool {
        self.flying -= 1;
        self.in_flight -= item.len();
        let mut got = false;
        match item {
            _ if self.reader_gone || self.arrived_end.is_some() => {}
            Item::Data(bytes) => {
                self.unread += bytes.len();
                self.inbox.push_back(bytes);
                got = true;
            }
            Item::End(end) => {
                self.arrived_end = Some(end);
                if end == End::Reset {
                    self.drop_unread();
                }
                got = true;
            }
        }
        match got {
            true => wake(&mut self.reader),
            false => wake(&mut self.writer),
        }
        got
    }

    /// Returns the bytes that can be read at once, at most `len`.
    pub(super) fn read(&mut self, len: usize) -> Option<Bytes> {
        let front = self.inbox.front_mut()?;
        let bytes = match front.len() > len {
            true => front.split_to(len),
            false => self.inbox.pop_front()?,
        };
        self.unread -= bytes.len();
        wake(&mut self.writer);
        Some(bytes)
    }

    /// Discards the unread bytes.
    pub(super) fn drop_unread(&mut self) {
        self.inbox.clear();
        self.unread = 0;
        wake(&mut self.writer);
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Stores the waker of a waiting task, without cloning it if it is the same as before.
pub(super) fn wait(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) => old.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
