//! Counts what comes, and tells.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Format, Hash, Pin, Root, fetch::Watch};

use super::{FetchOptions, FetchProgress};

/// Counts what comes.
pub(super) struct Progress {
    root: Root,
    options: FetchOptions,
    /// Blobs that are here.
    done: AtomicU64,
    /// Blobs that this call fetched.
    fetched: AtomicU64,
    /// Zero where it is not known.
    total: AtomicU64,
    received: AtomicU64,
    /// Payload bytes that the peers claim they will send.
    claimed: AtomicU64,
}

impl Progress {
    pub(super) fn new(root: Root, options: FetchOptions) -> Self {
        Self {
            root,
            options,
            done: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            total: AtomicU64::new(0),
            received: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
        }
    }

    /// So many blobs are to be here in the end.
    pub(super) fn total_is(&self, blobs: u64) {
        self.total.store(blobs, Ordering::Relaxed);
    }

    pub(super) fn blobs_fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// So many blobs are here already.
    pub(super) fn here(&self, blobs: u64) {
        self.done.fetch_add(blobs, Ordering::Relaxed);
        self.tell();
    }

    /// So many payload bytes came.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let Some(progress) = &self.options.progress else {
            return;
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let known = |value: u64| (value > 0).then_some(value);
        let raw = self.root.format == Format::Raw;
        progress(FetchProgress {
            blobs_done: load(&self.done),
            blobs_total: known(load(&self.total)),
            bytes_received: load(&self.received),
            bytes_total: known(load(&self.claimed)).filter(|_| raw),
        });
    }
}

impl Watch for Progress {
    fn announced(&self, hash: Hash, bytes: u64) -> Result<()> {
        let before = self.claimed.fetch_add(bytes, Ordering::Relaxed);
        let claimed = before.saturating_add(bytes);
        match self.options.max_bytes {
            Some(limit) if claimed > limit => Err(Error::new(
                Kind::TooLarge,
                "blobs.fetch",
                "the peer wants to send more than is allowed",
            )
            .with("limit", limit)
            .with("claimed", claimed)
            .with("hash", hash)),
            _ => Ok(()),
        }
    }

    fn complete(&self, pin: Pin) {
        drop(pin);
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }
}
