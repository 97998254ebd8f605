//! Blobs: immutable bytes, named by their hash, over any payload store and any collection store.

mod add;
mod add_batch;
mod ahead;
mod bitfield;
mod change;
mod collect;
mod entry;
mod error;
mod export;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod import;
mod index;
mod items;
mod keys;
mod observe;
mod payload;
mod pins;
mod plan;
mod reachable;
mod read;
mod read_retry;
mod reader;
mod scrub;
mod segment;
mod sessions;
mod stage;
mod tags;
mod transaction;
pub(crate) mod tree;
mod walk;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use larder_store_api::{BlobStore, CollectionStore, Error, GROUP_LEN, Kind, Listing, Result};
use tokio::sync::{Notify, broadcast};

pub(crate) use self::add_batch::MAX_ADD_BATCH;
pub use self::{
    add::{AddOptions, ByteStream, Progress, Source},
    add_batch::Hashed,
    bitfield::Bitfield,
    collect::{Collected, Roots},
    import::{Import, RECORD_EVERY, RECORD_EVERY_BYTES, Trust},
    items::Encoded,
    pins::Pin,
    reachable::Reachable,
    read::{BlobStatus, MAX_READ_TO_BYTES},
    reader::Reader,
    scrub::{Finding, Repair, Scrubbed},
    sessions::{BEAT, LEASE},
    tags::{IntoTagName, MAX_TAG_NAME_LEN, Tag, TagName, Tags},
    transaction::{MAX_STAGED_BLOBS, MAX_STAGED_BYTES, Transaction},
};
use self::{import::Imports, pins::Pins, segment::Segments, sessions::Sessions};
use crate::{Collections, Hash, Root};

/// The number of changes that an observer may lag behind before it reads everything again.
const CHANGES: usize = 256;

/// A store of blobs: what an app holds, the same type whatever is plugged in. A cheap handle; its
/// clones are the same store.
///
/// If the stores are [exclusive](larder_store_api::Sharing), one `Blobs` at a time works on them. If they are
/// shared, several processes may add, read and tag; a process that does not answer for [`LEASE`] may be
/// told with [`Kind::Closed`] that it must open them again. [Collecting](Self::collect), and importing
/// one blob, is for one process at a time.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

pub(crate) struct Inner {
    payloads: Arc<dyn BlobStore>,
    collections: Collections,
    block_len: u64,
    /// The time at which this engine was opened.
    opened: SystemTime,
    pins: Arc<Pins>,
    roots: Mutex<Vec<Arc<dyn Roots>>>,
    segments: Segments,
    imports: Imports,
    sessions: Sessions,
    changes: broadcast::Sender<Hash>,
    collecting: Arc<tokio::sync::Mutex<()>>,
    closed: AtomicBool,
    running: AtomicUsize,
    idle: Notify,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs")
            .field("payloads", &self.payloads.name())
            .field("collections", &self.collections.name())
            .finish_non_exhaustive()
    }
}

impl Blobs {
    /// Opens the blobs of two stores (of the second, a handle may be given that is there already, or
    /// the store itself), and sweeps what an unclean end of the last run left behind:
    /// the cost follows what that run wrote, not what is stored. A store that cannot be written, or whose disk
    /// is full, is opened all the same; then the sweep is left to a later start.
    pub async fn open(
        payloads: Arc<dyn BlobStore>,
        collections: impl Into<Collections>,
    ) -> Result<Self> {
        let block_len = u64::from(payloads.capabilities().block_len);
        if block_len == 0 || !block_len.is_multiple_of(GROUP_LEN) {
            return Err(Error::new(
                Kind::Invalid,
                "blobs.open",
                "a block length must be a multiple of 16 KiB",
            )
            .with("store", payloads.name())
            .with("block_len", block_len));
        }
        let inner = Arc::new(Inner {
            payloads,
            collections: collections.into(),
            block_len,
            opened: SystemTime::now(),
            pins: Arc::default(),
            roots: Mutex::default(),
            segments: Segments::default(),
            imports: Imports::default(),
            sessions: Sessions::default(),
            changes: broadcast::Sender::new(CHANGES),
            collecting: Arc::default(),
            closed: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
        });
        inner.sweep_leftovers().await?;
        Ok(Self(inner))
    }

    /// Refuses further calls, waits until those that write have ended, and notes that nothing was
    /// left behind. The stores below stay open: they are the caller's.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::SeqCst);
        loop {
            let idle = self.0.idle.notified();
            if self.0.running.load(Ordering::SeqCst) == 0 {
                break;
            }
            idle.await;
        }
        self.0.end_own_session().await
    }

    /// Makes all that was committed before this call survive the loss of power. Most calls do so themselves,
    /// and say so.
    pub async fn make_durable(&self) -> Result<()> {
        self.0.collections.make_durable().await
    }

    /// The store of payloads below.
    pub fn payload_store(&self) -> &Arc<dyn BlobStore> {
        &self.0.payloads
    }

    /// The store of collections below.
    pub fn collection_store(&self) -> &Arc<dyn CollectionStore> {
        self.0.collections.store()
    }

    /// The collections through which blobs commit, and with them whatever else lies in that store. A watcher
    /// of a clone of them hears of these commits too.
    pub fn collections(&self) -> &Collections {
        &self.0.collections
    }

    /// Keeps `root` from being collected until the pin and its clones are dropped; it need not be
    /// there yet. Whatever a call finds after this one returned stays.
    pub async fn pin(&self, root: Root) -> Pin {
        self.0.pins.pin(root, None).await
    }

    /// Returns the roots that are pinned now.
    pub fn pins(&self) -> Vec<Root> {
        self.0.pins.roots()
    }

    /// The tags of this store.
    pub fn tags(&self) -> Tags {
        Tags(self.0.clone())
    }
}

impl Inner {
    /// Deletes what earlier runs left, where the store can be written.
    async fn sweep_leftovers(self: &Arc<Self>) -> Result<()> {
        let swept = async {
            self.sweep_sessions().await?;
            self.sweep_garbage().await
        };
        match swept.await {
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Full) => {
                tracing::info!(%error, "what earlier runs left behind stays until a later start");
                Ok(())
            }
            other => other,
        }
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Closed, operation, "the store was closed"));
        }
        Ok(())
    }

    /// Work that outlives its call, and that `close` waits for.
    fn hold(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(self.clone())
    }

    /// Registers a call that writes, so that `close` waits for it.
    fn enter(self: &Arc<Self>, operation: &'static str) -> Result<Running> {
        let running = self.hold();
        self.check_open(operation)?;
        self.sessions.check(operation)?;
        Ok(running)
    }
}

#[derive(Debug)]
pub(crate) struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.idle.notify_waiters();
    }
}

fn failed<T: Send + 'static>(error: Error) -> Listing<T> {
    Box::pin(futures_util::stream::once(async { Err(error) }))
}
