//! Leases: a peer that proves to have a blob keeps it for a while, because the asker then deletes its
//! own
//! copy. Otherwise two peers that free the same file at once, each because the other one has it, would
//! delete the last two copies.
//!
//! * The peer that is asked pins what it proves for [`KEEP`], so that nothing deletes it here. Before
//!   it answers, it stores that it has promised something, so that after a crash it frees nothing
//!   before that time is over.
//! * The asker deletes a file only within [`WITHIN`] of asking, and only if it has not promised the
//!   file itself.
//! * If two peers ask each other at once, the one with the lesser key answers that it does not have the
//!   file, so that only one of them deletes it.
//!
//! So when the last asker deletes a file, another peer that still has it has promised to keep it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use larder_store_api::{PublicKey, Result};
use larder_store_engine::{BlobStatus, Hash, Pin, Root};
use tokio::time::Instant;

use super::lock;
use crate::groups::Groups;

/// The time for which a blob that was proven is kept.
pub(super) const KEEP: Duration = Duration::from_secs(600);
/// The time after asking within which a file may be deleted. The rest of [`KEEP`] allows for inaccurate
/// clocks and slow disks.
const WITHIN: Duration = Duration::from_secs(300);
/// The slack that is added to a stored deadline, so that it is rewritten rarely.
const SPARE: Duration = Duration::from_secs(150);
/// The interval at which expired leases are dropped.
const LAPSE_EVERY: Duration = Duration::from_secs(30);
/// The most blobs that are promised at a time; further blobs are reported as absent.
const MAX_PROMISED: usize = 65_536;

/// The blobs that are kept for peers that delete their own copies, and the blobs that this device asks
/// others to keep.
pub(super) struct Leases {
    groups: Groups,
    /// This device's key.
    own: PublicKey,
    state: Mutex<State>,
    /// The stored time until which promises may be in force, in milliseconds since 1970.
    noted: tokio::sync::Mutex<Option<i64>>,
}

#[derive(Default)]
struct State {
    promised: HashMap<Hash, (Instant, Pin)>,
    /// The blobs that this device asks others to keep, because it intends to delete them.
    asked: HashSet<Hash>,
    /// The time until which promises may be in force that were lost in a crash.
    before: Option<Instant>,
    lapsed: Option<Instant>,
}

impl State {
    fn lapse(&mut self) {
        let now = Instant::now();
        if self.lapsed.is_none_or(|last| last + LAPSE_EVERY <= now) {
            self.lapsed = Some(now);
            self.promised.retain(|_, (until, _)| *until > now);
        }
    }

    fn is_promised(&self, hash: &Hash) -> bool {
        let now = Instant::now();
        self.before.is_some_and(|until| until > now)
            || self
                .promised
                .get(hash)
                .is_some_and(|(until, _)| *until > now)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("some minutes")
}

impl Leases {
    pub(super) fn new(groups: Groups, own: PublicKey) -> Arc<Self> {
        Arc::new(Self {
            groups,
            own,
            state: Mutex::default(),
            noted: tokio::sync::Mutex::default(),
        })
    }

    /// Drops expired promises.
    pub(super) fn lapse(&self) {
        lock(&self.state).lapse();
    }

    /// Promises a peer to keep a blob. Returns false if the blob is incomplete or may be about to be
    /// deleted.
    pub(super) async fn promise(&self, hash: Hash, peer: PublicKey) -> Result<bool> {
        let blobs = &self.groups.0.blobs;
        let is_here = async || {
            let status = blobs.status(hash).await?;
            Result::Ok(matches!(status, Some(BlobStatus::Complete { .. })))
        };
        let may = |state: &State| {
            let goes = state.asked.contains(&hash) && self.own <= peer;
            let has_room =
                state.promised.len() < MAX_PROMISED || state.promised.contains_key(&hash);
            !goes && has_room
        };
        self.lapse();
        if !may(&lock(&self.state)) || !is_here().await? {
            return Ok(false);
        }
        self.note_promises().await?;
        // A blob that is being deleted right now is gone once it is pinned.
        let pin = blobs.pin(Root::raw(hash)).await;
        if !is_here().await? {
            return Ok(false);
        }
        // The peer's deletion of its copy will be durable.
        blobs.make_durable().await?;
        let mut state = lock(&self.state);
        let may = may(&state);
        if may {
            state.promised.insert(hash, (Instant::now() + KEEP, pin));
        }
        Ok(may)
    }

    /// Stores durably that promises are in force from now on.
    async fn note_promises(&self) -> Result<()> {
        let mut noted = self.load_promises().await?;
        let now = self.groups.0.now();
        let (least, most) = (millis(KEEP), millis(KEEP + SPARE));
        let left = noted.unwrap_or(i64::MIN).saturating_sub(now);
        if !(least..=most).contains(&left) {
            let until = now.saturating_add(most);
            self.groups.0.keep_promised(until).await?;
            *noted = Some(until);
        }
        Ok(())
    }

    async fn load_promises(&self) -> Result<tokio::sync::MutexGuard<'_, Option<i64>>> {
        let mut noted = self.noted.lock().await;
        if noted.is_none() {
            let until = self.groups.0.promised().await?.unwrap_or(i64::MIN);
            let left = until.saturating_sub(self.groups.0.now());
            // A clock that was set back must not extend the time.
            let left = left.clamp(0, millis(KEEP + SPARE)).unsigned_abs();
            let before = Instant::now() + Duration::from_millis(left);
            lock(&self.state).before = Some(before);
            *noted = Some(until);
        }
        Ok(noted)
    }

    /// Begins to ask others for these blobs, in order to delete them here.
    pub(super) async fn ask_for(
        self: &Arc<Self>,
        blobs: impl IntoIterator<Item = Hash>,
    ) -> Result<Asking> {
        drop(self.load_promises().await?);
        self.lapse();
        let mut asking = Asking {
            leases: Arc::clone(self),
            blobs: HashSet::new(),
            since: Instant::now(),
            at: self.groups.0.now(),
        };
        let mut state = lock(&self.state);
        for hash in blobs {
            if !state.is_promised(&hash) && state.asked.insert(hash) {
                asking.blobs.insert(hash);
            }
        }
        drop(state);
        Ok(asking)
    }
}

/// The blobs that this device asks others to keep, until this is dropped.
pub(super) struct Asking {
    leases: Arc<Leases>,
    blobs: HashSet<Hash>,
    since: Instant,
    at: i64,
}

impl Asking {
    /// Returns true if others are asked for the blob.
    pub(super) fn asks_for(&self, hash: &Hash) -> bool {
        self.blobs.contains(hash)
    }

    /// Returns true if the others' promises still hold, and this device has not promised the blob
    /// itself.
    pub(super) fn may_go(&self, hash: &Hash) -> bool {
        // The monotonic clock stands still while a device sleeps; the other one may be set.
        let took = self.leases.groups.0.now().saturating_sub(self.at);
        self.blobs.contains(hash)
            && self.since.elapsed() < WITHIN
            && (0..millis(WITHIN)).contains(&took)
            && !lock(&self.leases.state).is_promised(hash)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = lock(&self.leases.state);
        for hash in &self.blobs {
            state.asked.remove(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_store_api::{Batch, CollectionId, Durability, Edit, Kind};
    use larder_store_engine::{Blobs, Source};
    use larder_store_testkit::{
        MemorySecrets, MemoryStore,
        stores::{Fault, Faults, FaultyStore, Operation, PowerStore, When},
    };

    use super::*;
    use crate::groups::Stores;

    async fn leases(blobs: &Blobs, own: u8) -> Arc<Leases> {
        let stores = Stores {
            blobs: blobs.clone(),
            secrets: Arc::new(MemorySecrets::new()),
        };
        let start = Instant::now();
        let clock = Arc::new(move || 1_700_000_000_000 + millis(start.elapsed()));
        let groups = Groups::open_with(stores, clock).await.unwrap();
        Leases::new(groups, PublicKey([own; 32]))
    }

    async fn blobs() -> Blobs {
        let store = Arc::new(MemoryStore::new());
        Blobs::open(store.clone(), store).await.unwrap()
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_promised_does_not_go_before_its_time() {
        let blobs = blobs().await;
        let leases = leases(&blobs, 5).await;
        let hash = blobs
            .add(Source::Bytes("file".into()))
            .await
            .unwrap()
            .hash();
        let peer = PublicKey([9; 32]);
        assert!(leases.promise(hash, peer).await.unwrap());
        assert!(!leases.promise(Hash::of("absent"), peer).await.unwrap());
        assert!(blobs.delete(vec![hash]).await.is_err(), "it is pinned");
        assert!(!leases.ask_for([hash]).await.unwrap().asks_for(&hash));
        pass(KEEP.as_secs() + 1).await;
        let asking = leases.ask_for([hash]).await.unwrap();
        assert!(asking.asks_for(&hash) && asking.may_go(&hash));
        pass(WITHIN.as_secs() + 1).await;
        assert!(!asking.may_go(&hash), "others may have let it go by now");
    }

    /// The peer lets its copy go: ours must survive the loss of power by then.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_made_durable_is_not_promised() {
        let faults = Faults::seeded(1);
        let store = Arc::new(FaultyStore::new(PowerStore::new(), faults.clone()));
        let blobs = Blobs::open(store.clone(), store).await.unwrap();
        let leases = leases(&blobs, 5).await;
        let hash = blobs.add("file").await.unwrap().hash();
        let peer = PublicKey([9; 32]);
        // That promises are given is noted by now.
        assert!(leases.promise(hash, peer).await.unwrap());
        let fault = Fault::Error(Kind::Unavailable);
        faults.inject(Operation::SyncCollections, When::Always, fault);
        assert!(leases.promise(hash, peer).await.unwrap(), "all is durable");
        // As a fetch commits small blobs.
        let id = CollectionId::from_static("test");
        let mut batch = Batch::of(vec![Edit::Put {
            collection: id,
            key: "key".into(),
            value: "value".into(),
        }]);
        batch.durability = Durability::OnSync;
        blobs.collections().commit(batch).await.unwrap();
        let error = leases.promise(hash, peer).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        faults.clear();
        assert!(leases.promise(hash, peer).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_ask_each_other_the_lesser_refuses() {
        let blobs = blobs().await;
        let leases = leases(&blobs, 5).await;
        let hash = blobs
            .add(Source::Bytes("file".into()))
            .await
            .unwrap()
            .hash();
        let asking = leases.ask_for([hash]).await.unwrap();
        assert!(!leases.promise(hash, PublicKey([9; 32])).await.unwrap());
        assert!(leases.promise(hash, PublicKey([1; 32])).await.unwrap());
        assert!(!asking.may_go(&hash), "it is promised by now");
        drop(asking);
        assert!(leases.promise(hash, PublicKey([9; 32])).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_forgets_no_promise() {
        let blobs = blobs().await;
        let before = leases(&blobs, 5).await;
        let hash = blobs
            .add(Source::Bytes("file".into()))
            .await
            .unwrap()
            .hash();
        assert!(before.promise(hash, PublicKey([9; 32])).await.unwrap());
        drop(before);
        let after = leases(&blobs, 5).await;
        assert!(!after.ask_for([hash]).await.unwrap().asks_for(&hash));
        pass((KEEP + SPARE).as_secs() + 1).await;
        assert!(after.ask_for([hash]).await.unwrap().asks_for(&hash));
    }
}
