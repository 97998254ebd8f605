//! What was shown to somebody who then lets its own copy go is kept for a while: else two who free the
//! same file at once, each because the other one has it, would delete the last two copies.
//!
//! * Who is asked pins what it shows for [`KEEP`], so that nothing here deletes it; and it notes,
//!   before it answers, that it has promised something, so that after a crash it frees nothing before
//!   that time is over.
//! * Who asks lets a file go only within [`WITHIN`] of asking, and not where it has promised it itself.
//! * Of two who ask each other at once, the one with the lesser key answers that it has not got it:
//!   one of them goes on.
//!
//! So whoever is the last to delete a file has been promised it by somebody who has it still.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use store_api::{PublicKey, Result};
use store_engine::{Hash, Pin, Root, Status};
use tokio::time::Instant;

use super::{Shared, lock};

/// For how long what was shown is kept.
pub(super) const KEEP: Duration = Duration::from_secs(600);
/// How long after asking a file may be deleted; the rest is for clocks that go wrong and slow disks.
const WITHIN: Duration = Duration::from_secs(300);
/// How much longer than it must be the time is that is noted, so that it is noted seldom.
const SPARE: Duration = Duration::from_secs(150);
/// How often it is looked what need not be kept any more.
const LAPSE_EVERY: Duration = Duration::from_secs(30);
/// The most blobs that are promised at a time; others are as if they were not here.
const MAX_PROMISED: usize = 65_536;

#[derive(Default)]
pub(super) struct Promises {
    state: Mutex<State>,
    /// Until when, in milliseconds since 1970, something may be promised, as it was noted durably.
    noted: tokio::sync::Mutex<Option<i64>>,
}

#[derive(Default)]
struct State {
    promised: HashMap<Hash, (Instant, Pin)>,
    /// What this device asks others for, because it would delete it.
    asked: HashSet<Hash>,
    /// Until when something may be promised that was forgotten with a crash.
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

impl Shared {
    /// Lets go what was promised long enough ago.
    pub(super) fn lapse_promises(&self) {
        lock(&self.promises.state).lapse();
    }

    /// Promises a peer to keep a blob. False where it is not all here, or may be about to go.
    pub(super) async fn promise(&self, hash: Hash, peer: PublicKey) -> Result<bool> {
        let blobs = &self.groups.0.blobs;
        let is_here = async || {
            let status = blobs.status(hash).await?;
            Result::Ok(matches!(status, Some(Status::Complete { .. })))
        };
        let may = |state: &State| {
            let goes = state.asked.contains(&hash) && self.network.key() <= peer;
            let has_room =
                state.promised.len() < MAX_PROMISED || state.promised.contains_key(&hash);
            !goes && has_room
        };
        self.lapse_promises();
        if !may(&lock(&self.promises.state)) || !is_here().await? {
            return Ok(false);
        }
        self.note_promises().await?;
        // What is being deleted just now is gone when it is pinned.
        let pin = blobs.pin(Root::raw(hash)).await;
        if !is_here().await? {
            return Ok(false);
        }
        let mut state = lock(&self.promises.state);
        let may = may(&state);
        if may {
            state.promised.insert(hash, (Instant::now() + KEEP, pin));
        }
        Ok(may)
    }

    /// Notes durably that something is promised from now on.
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
        let mut noted = self.promises.noted.lock().await;
        if noted.is_none() {
            let until = self.groups.0.promised().await?.unwrap_or(i64::MIN);
            let left = until.saturating_sub(self.groups.0.now());
            // A clock that was set back must not make it long.
            let left = left.clamp(0, millis(KEEP + SPARE)).unsigned_abs();
            let before = Instant::now() + Duration::from_millis(left);
            lock(&self.promises.state).before = Some(before);
            *noted = Some(until);
        }
        Ok(noted)
    }

    /// Begins to ask others for these blobs, to let them go here.
    pub(super) async fn ask_for(
        self: &Arc<Self>,
        blobs: impl IntoIterator<Item = Hash>,
    ) -> Result<Asking> {
        drop(self.load_promises().await?);
        self.lapse_promises();
        let mut asking = Asking {
            shared: Arc::clone(self),
            blobs: HashSet::new(),
            since: Instant::now(),
            at: self.groups.0.now(),
        };
        let mut state = lock(&self.promises.state);
        for hash in blobs {
            if !state.is_promised(&hash) && state.asked.insert(hash) {
                asking.blobs.insert(hash);
            }
        }
        drop(state);
        Ok(asking)
    }
}

/// What this device asks others for, until this is dropped.
pub(super) struct Asking {
    shared: Arc<Shared>,
    blobs: HashSet<Hash>,
    since: Instant,
    at: i64,
}

impl Asking {
    /// Whether others are to be asked for it.
    pub(super) fn asks_for(&self, hash: &Hash) -> bool {
        self.blobs.contains(hash)
    }

    /// Whether what others have shown is still promised, and not promised by us.
    pub(super) fn may_go(&self, hash: &Hash) -> bool {
        // The one stands still while a device sleeps, the other one may be set.
        let took = self.shared.groups.0.now().saturating_sub(self.at);
        self.blobs.contains(hash)
            && self.since.elapsed() < WITHIN
            && (0..millis(WITHIN)).contains(&took)
            && !lock(&self.shared.promises.state).is_promised(hash)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.promises.state);
        for hash in &self.blobs {
            state.asked.remove(hash);
        }
    }
}
