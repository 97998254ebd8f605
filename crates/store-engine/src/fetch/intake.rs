//! Writes verified blobs to the store: in the background, with a bound on what is pending.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bao_tree::ChunkRanges;
use bytes::Bytes;
use larder_store_api::{Durability, Error, GROUP_LEN, Kind, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    Watch,
    fault::Fault,
    receiver::{Answer, Items, Receiver},
    wanted::{PIECE_LEN, Wanted, rest},
};
use crate::{
    Blobs, Encoded, Hash, Import, Pin, Root,
    blobs::{MAX_ADD_BATCH, tree::clip},
};

/// The most bytes that may be received but not yet durable, in units of 1 KiB.
const BUDGET: u32 = 16 * 1024;
/// The minimum that a blob takes from the budget, so that at most 256 are pending. The stores commit
/// many pending blobs together.
const LEAST: u32 = 64;
/// The maximum that a blob takes from the budget: about as much as an import buffers before it writes.
const MOST: u32 = 1024;
/// The number of imports that stay open between the pieces that arrive for them.
const MAX_OPEN: usize = 64;

/// The outcome of receiving a blob.
pub(super) enum Received {
    /// All that was asked for; with the bytes if it is a small whole blob.
    All(Option<Bytes>),
    /// Only what was asked for first. The blob has this many bytes, and these chunks are left.
    Rest(u64, ChunkRanges),
    /// The peer does not have it.
    Absent,
    /// The fetch was told to stop.
    Stopped,
}

/// Stores the data that all requests of a fetch receive.
pub(super) struct Intake {
    blobs: Blobs,
    /// The durability of small blobs.
    durability: Durability,
    state: Arc<State>,
    /// Returned when the received data becomes durable.
    room: Arc<Semaphore>,
    /// The imports of blobs that arrive in pieces: verified data is recorded from time to time, and not
    /// at the end of each piece, which would wait for the disk.
    open: Mutex<BTreeMap<(Hash, u64), Import>>,
    commits: Mutex<JoinSet<()>>,
    /// The number of verified bytes that were received.
    received: AtomicU64,
}

/// The state that background commits use.
struct State {
    watch: Arc<dyn Watch>,
    /// The announced sizes of blobs that are not complete.
    announced: Mutex<HashMap<Hash, u64>>,
    small: Mutex<Small>,
    /// The first error of our own store.
    failed: Mutex<Option<Error>>,
    /// Cancelled after the first error.
    broken: CancellationToken,
}

/// Small blobs, which are committed in groups: each group has all that arrived while the previous one
/// was committed.
#[derive(Default)]
struct Small {
    waiting: Vec<(Hash, Bytes, OwnedSemaphorePermit)>,
    /// True while a task commits them.
    runs: bool,
}

impl State {
    /// Returns the small blobs to commit next; if there are none, marks the task that commits them as
    /// ended.
    fn next_small(&self) -> Vec<(Hash, Bytes, OwnedSemaphorePermit)> {
        let mut small = lock(&self.small);
        let len = small.waiting.len().min(MAX_ADD_BATCH);
        small.runs = len > 0;
        small.waiting.drain(..len).collect()
    }

    /// Commits small blobs until none waits.
    async fn commit_small(&self, blobs: &Blobs, durability: Durability) -> Result<()> {
        loop {
            let next = self.next_small();
            if next.is_empty() {
                return Ok(());
            }
            let (mut bytes, mut room) = (BTreeMap::new(), Vec::with_capacity(next.len()));
            for (hash, content, permit) in next {
                bytes.insert(hash, content);
                room.push(permit);
            }
            let bytes: Vec<_> = bytes.into_iter().collect();
            for pin in blobs.add_verified(&bytes, durability).await? {
                self.ended(Ok(Some(pin)));
            }
        }
    }

    fn fail(&self, error: Error) {
        lock(&self.failed).get_or_insert(error);
        self.broken.cancel();
        // They hold room that others wait for.
        let waiting = std::mem::take(&mut lock(&self.small).waiting);
        drop(waiting);
    }

    fn ended(&self, complete: Result<Option<Pin>>) {
        match complete {
            Ok(Some(pin)) => {
                lock(&self.announced).remove(&pin.hash());
                self.watch.complete(pin);
            }
            Ok(None) => {}
            // Another import recorded another size, or the blob was deleted: it is requested again.
            Err(error) if error.kind() == Kind::Conflict => {
                tracing::debug!(%error, "the received data of a blob is lost");
            }
            Err(error) => self.fail(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no code panics while it holds this lock")
}

impl Intake {
    pub(super) fn new(blobs: &Blobs, durability: Durability, watch: Arc<dyn Watch>) -> Self {
        Self {
            blobs: blobs.clone(),
            durability,
            state: Arc::new(State {
                watch,
                announced: Mutex::default(),
                small: Mutex::default(),
                failed: Mutex::default(),
                broken: CancellationToken::new(),
            }),
            room: Arc::new(Semaphore::new(BUDGET as usize)),
            open: Mutex::default(),
            commits: Mutex::default(),
            received: AtomicU64::new(0),
        }
    }

    /// Returns the first error of our own store.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.state.failed).clone()
    }

    /// Ends the fetch with an error of our own store.
    pub(super) fn fail(&self, error: Error) {
        self.state.fail(error);
    }

    /// Returns a token that is cancelled after our own store has failed.
    pub(super) fn stop(&self) -> CancellationToken {
        self.state.broken.child_token()
    }

    /// Receives the next blob of an answer, until `stop` is cancelled. Data that was verified before
    /// that, or before a fault, is kept. It becomes durable soon, or before this returns if it is
    /// needed `at_once`.
    pub(super) async fn receive<A: Answer>(
        &self,
        receiver: &mut Receiver<A>,
        hash: Hash,
        wanted: &Wanted,
        at_once: bool,
        stop: &CancellationToken,
    ) -> Result<Received, Fault> {
        let size = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Received::Stopped),
            size = receiver.size(hash) => size?,
        };
        let Some(size) = size else {
            return Ok(Received::Absent);
        };
        let most = self.blobs.payload_store().capabilities().max_part_len;
        let longest = wanted.longest.min(most);
        if size > longest {
            return Err(Fault::too_long(hash, size, longest));
        }
        if wanted.is_new {
            self.announce(hash, size).map_err(Fault::Local)?;
        }
        if size == 0 {
            return Ok(Received::All(None));
        }
        let ranges = clip(&wanted.ranges, size);
        let mut items = receiver.items(hash, size, &ranges);
        if size <= GROUP_LEN && ranges.is_all() {
            return tokio::select! {
                biased;
                () = stop.cancelled() => Ok(Received::Stopped),
                bytes = self.receive_small(&mut items, hash) => bytes.map(|b| Received::All(Some(b))),
            };
        }
        let import = self.blobs.import_verified(hash, size).await;
        let Some(mut import) = import.map_err(Fault::Local)? else {
            return Err(Fault::wrong_size(hash, size));
        };
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Received::Stopped),
            taken = self.take(&mut items, &mut import) => taken.map(|()| Received::All(None)),
        };
        let goes_on = size > PIECE_LEN && matches!(taken, Ok(Received::All(_))) && !at_once;
        if goes_on && !import.is_verified().await {
            self.keep_open(size, import).await;
        } else {
            drop(lock(&self.open).remove(&(hash, size)));
            // Only after it has arrived: a slow peer must not take the room of others. A blob that
            // arrives in pieces is bounded by its import, which all of its pieces share.
            let room = match size <= PIECE_LEN {
                true => tokio::select! {
                    biased;
                    () = self.state.broken.cancelled() => None,
                    room = self.room(size) => Some(room),
                },
                false => None,
            };
            self.finish(import, room, at_once).await;
        }
        let left = wanted.first.as_ref().and_then(|first| rest(first, size));
        match (taken?, left) {
            (Received::All(_), Some(left)) => Ok(Received::Rest(size, left)),
            (received, _) => Ok(received),
        }
    }

    /// Announces once how many bytes of a blob will arrive.
    pub(super) fn announce(&self, hash: Hash, bytes: u64) -> Result<()> {
        let before = lock(&self.state.announced).insert(hash, bytes).unwrap_or(0);
        match bytes.saturating_sub(before) {
            0 => Ok(()),
            more => self.state.watch.announced(hash, more),
        }
    }

    /// Returns the number of verified bytes that were received.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Receives a blob of one group.
    async fn receive_small<A: Answer>(
        &self,
        items: &mut Items<'_, A>,
        hash: Hash,
    ) -> Result<Bytes, Fault> {
        let mut bytes = Bytes::new();
        while let Some(item) = items.next().await? {
            if let Encoded::Leaf(leaf) = item {
                bytes = leaf.data;
            }
        }
        let len = bytes.len() as u64;
        self.received.fetch_add(len, Ordering::Relaxed);
        self.add(hash, bytes.clone()).await;
        Ok(bytes)
    }

    async fn take<A: Answer>(
        &self,
        items: &mut Items<'_, A>,
        import: &mut Import,
    ) -> Result<(), Fault> {
        let mut is_lost = false;
        while let Some(item) = items.next().await? {
            if is_lost {
                // The blobs after it in the answer are still needed.
                continue;
            }
            if let Encoded::Leaf(leaf) = &item {
                let len = leaf.data.len() as u64;
                self.received.fetch_add(len, Ordering::Relaxed);
            }
            match import.push(item).await {
                Err(error) if error.kind() == Kind::Conflict => is_lost = true,
                pushed => pushed.map_err(Fault::Local)?,
            }
        }
        Ok(())
    }

    /// Waits until there is room for this many bytes that are not durable.
    async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes / 1024).unwrap_or(MOST);
        let room = self
            .room
            .clone()
            .acquire_many_owned(units.clamp(LEAST, MOST));
        room.await.expect("nobody closes the semaphore")
    }

    /// Adds a small blob in the background. Waits only while too many are pending.
    async fn add(&self, hash: Hash, bytes: Bytes) {
        let room = self.room(bytes.len() as u64).await;
        let begins = {
            let mut small = lock(&self.state.small);
            small.waiting.push((hash, bytes, room));
            !std::mem::replace(&mut small.runs, true)
        };
        if begins {
            let (state, blobs, durability) =
                (self.state.clone(), self.blobs.clone(), self.durability);
            self.spawn(async move {
                let committed = state.commit_small(&blobs, durability).await;
                committed.map(|()| None)
            });
        }
    }

    /// Makes an import's data durable: in the background, unless it is needed `at_once`.
    async fn finish(&self, import: Import, room: Option<OwnedSemaphorePermit>, at_once: bool) {
        let blobs = self.blobs.clone();
        let finished = async move {
            let pin = blobs.pin(Root::raw(import.hash())).await;
            let here = import.finish().await?;
            drop(room);
            Ok(here.is_complete().then_some(pin))
        };
        match at_once {
            true => self.state.ended(finished.await),
            false => self.spawn(finished),
        }
    }

    /// Commits a blob in the background, and reports it when it is complete.
    fn spawn(&self, commit: impl Future<Output = Result<Option<Pin>>> + Send + 'static) {
        let mut commits = lock(&self.commits);
        while let Some(ended) = commits.try_join_next() {
            self.reaped(ended);
        }
        let state = self.state.clone();
        commits.spawn(async move { state.ended(commit.await) });
    }

    fn reaped(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            let message = "a task of the fetch ended";
            self.fail(Error::new(Kind::Internal, "blobs.fetch", message).because(error));
        }
    }

    /// Keeps an import open for the next piece of its blob.
    async fn keep_open(&self, size: u64, import: Import) {
        let evicted = {
            let mut open = lock(&self.open);
            let evicted = match open.len() < MAX_OPEN {
                true => None,
                false => open.pop_first(),
            };
            // One import per blob is enough.
            open.entry((import.hash(), size)).or_insert(import);
            evicted
        };
        if let Some((_, import)) = evicted {
            self.finish(import, None, false).await;
        }
    }

    /// Makes all received data durable, to the requested degree.
    pub(super) async fn settle(&self) -> Result<()> {
        let open = std::mem::take(&mut *lock(&self.open));
        for import in open.into_values() {
            self.finish(import, None, false).await;
        }
        let mut commits = std::mem::take(&mut *lock(&self.commits));
        while let Some(ended) = commits.join_next().await {
            self.reaped(ended);
        }
        self.failure().map_or(Ok(()), Err)?;
        match self.durability {
            // This includes blobs that were here already.
            Durability::OnWrite => self.blobs.make_durable().await,
            _ => Ok(()),
        }
    }
}
