//! Verified blobs on their way to the disk: bounded, and in the background.

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

/// The most bytes that may be received and not yet durable, in units of 1 KiB.
const BUDGET: u32 = 16 * 1024;
/// The least that a blob takes of it, so that at most 256 are under way. The stores commit many that
/// wait together.
const LEAST: u32 = 64;
/// The most that a blob takes of it: about as much as an import holds before it writes.
const MOST: u32 = 1024;
/// The number of imports that stay open between the pieces that arrive for them.
const MAX_OPEN: usize = 64;

/// The outcome of receiving a blob.
pub(super) enum Received {
    /// All that was asked for; the bytes where it is a small blob as a whole.
    All(Option<Bytes>),
    /// All that was asked for first. It has so many bytes, and these chunks are left.
    Rest(u64, ChunkRanges),
    /// The peer does not have it.
    Absent,
    /// The fetch was told to stop.
    Stopped,
}

/// Takes what all requests of a fetch bring.
pub(super) struct Intake {
    blobs: Blobs,
    /// Of small blobs.
    durability: Durability,
    state: Arc<State>,
    /// Given back as what came becomes durable.
    room: Arc<Semaphore>,
    /// Imports of blobs that come in pieces: so that what was verified is recorded now and then, and
    /// not at the end of each piece, which would wait for the disk.
    open: Mutex<BTreeMap<(Hash, u64), Import>>,
    commits: Mutex<JoinSet<()>>,
    /// The number of verified bytes that were received.
    received: AtomicU64,
}

/// The state on which background commits work.
struct State {
    watch: Arc<dyn Watch>,
    /// The announced sizes of blobs that are not complete.
    announced: Mutex<HashMap<Hash, u64>>,
    small: Mutex<Small>,
    /// The first error of our own store.
    failed: Mutex<Option<Error>>,
    /// Cancelled once there is one.
    broken: CancellationToken,
}

/// Small blobs, which are committed many at a time: all that came while the ones before were committed.
#[derive(Default)]
struct Small {
    waiting: Vec<(Hash, Bytes, OwnedSemaphorePermit)>,
    /// True while a task commits them.
    runs: bool,
}

impl State {
    /// The small blobs to commit next; ends the task that commits them where there are none.
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
        // They keep room that others wait for.
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
            // Somebody else had another size of it, or it was deleted: it is asked for again.
            Err(error) if error.kind() == Kind::Conflict => {
                tracing::debug!(%error, "what came of a blob is lost");
            }
            Err(error) => self.fail(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no code panics while it holds what a fetch takes in")
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

    /// The first error of our own store.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.state.failed).clone()
    }

    /// Ends the fetch with an error of our own store.
    pub(super) fn fail(&self, error: Error) {
        self.state.fail(error);
    }

    /// A token that is cancelled once our own store has failed.
    pub(super) fn stop(&self) -> CancellationToken {
        self.state.broken.child_token()
    }

    /// Takes the next blob of an answer, until `stop` is cancelled. Data that were verified before that, or
    /// before a fault, are kept. They are durable in a while, or on return if they are needed `at_once`.
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
            // Only once it has come: a peer that is slow must not take the room of others. One that comes in
            // pieces is bounded by its import, which all of its pieces share.
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

    /// Says how many bytes of a blob will come, once.
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

    /// Takes a blob of one group.
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
                // What follows it in the answer is of use.
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

    /// Waits until there is room for so many bytes that are not durable.
    async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes / 1024).unwrap_or(MOST);
        let room = self
            .room
            .clone()
            .acquire_many_owned(units.clamp(LEAST, MOST));
        room.await.expect("nobody closes the semaphore")
    }

    /// Adds a small blob in the background. Waits only while too many are under way.
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

    /// Makes durable what an import has: in the background, unless it is needed `at_once`.
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

    /// Commits a blob in the background; what is complete then is told.
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

    /// Keeps an import for the next piece of its blob.
    async fn keep_open(&self, size: u64, import: Import) {
        let evicted = {
            let mut open = lock(&self.open);
            let evicted = match open.len() < MAX_OPEN {
                true => None,
                false => open.pop_first(),
            };
            // Of two for one blob, one is enough.
            open.entry((import.hash(), size)).or_insert(import);
            evicted
        };
        if let Some((_, import)) = evicted {
            self.finish(import, None, false).await;
        }
    }

    /// Makes all that came durable, or as durable as it was asked for.
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
            // Also what was here already.
            Durability::OnWrite => self.blobs.make_durable().await,
            _ => Ok(()),
        }
    }
}
