//! Sessions: who may have payloads that nothing claims yet.
//!
//! A session is one run of an engine that writes payloads; its number, which `larder/meta` counts, begins
//! the ids of its payloads. As long as it may have payloads that nothing claims, it has a row in
//! `larder/sessions`:
//!
//! ```text
//! number u64           version u8 = 1 · state u8 (0 live, 1 ended) · owner [16], random
//! number u64 · "beat"  nothing
//! ```
//!
//! The number is big-endian. An engine that closes cleanly deletes its row. Listing the payloads of
//! the other sessions alone finds what they left behind.
//!
//! If a store is exclusive, whoever opens it knows that all earlier sessions are over. If it is
//! shared, a live session puts its beat again every [`BEAT`], and one whose beat did not change for
//! [`LEASE`] by the clock of somebody who watches is over. Whoever ends it first marks its row. Every
//! commit of blobs and tags expects the row of its own session as it was begun, so that a session that
//! only slept cannot claim what was swept meanwhile: its commits are refused, and say why.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, CollectionId, Durability, Edit, Entry, Error, Expect, Kind, PayloadId, Result, Revision,
    Scan, Sharing,
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use super::Inner;
use crate::{
    collections::{expect, holds},
    random::random,
};

const SESSIONS: CollectionId = CollectionId::from_static("larder/sessions");
const META: CollectionId = CollectionId::from_static("larder/meta");
/// The last session that began.
const LAST: Bytes = Bytes::from_static(b"session");
const BEAT_KEY: &[u8] = b"beat";
const VERSION: u8 = 1;
/// The most attempts to begin or end sessions after somebody else did. Each one means that
/// another one succeeded.
const MAX_ATTEMPTS: usize = 1024;

/// The time between two beats of a session in a shared store, which show that it is alive.
pub const BEAT: Duration = Duration::from_secs(5);
/// A session in a shared store that did not show for so long that it is alive may be ended by others.
pub const LEASE: Duration = Duration::from_secs(30);

/// The sessions of a store, as an engine sees them.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    own: OnceCell<Own>,
    /// The number of the next payload.
    next: AtomicU64,
    /// True where something unclaimed may be left.
    is_unclean: AtomicBool,
    /// True once somebody else ended it.
    is_ended: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Own {
    number: u64,
    /// The commit that began it.
    revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live = 0,
    Ended = 1,
}

/// The stored state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    state: State,
    revision: Revision,
    beat: Option<Revision>,
}

impl Sessions {
    /// Something unclaimed may be left: the session is not over when the engine closes.
    pub(crate) fn leave_unclean(&self) {
        self.is_unclean.store(true, Ordering::SeqCst);
    }

    /// Refuses to go on where somebody else ended the session.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        if !self.is_ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = format!(
            "the session was ended by another process, because it did not answer for {} s; open the \
             store again",
            LEASE.as_secs()
        );
        Err(Error::new(Kind::Closed, operation, message))
    }

    /// Returns the expectation that the own session, if there is one, was not ended.
    pub(crate) fn expectation(&self) -> Option<Expect> {
        let own = self.own.get()?;
        let key = row_key(own.number);
        Some(expect(&SESSIONS, &key, Some(own.revision)))
    }
}

fn row_key(session: u64) -> Bytes {
    Bytes::copy_from_slice(&session.to_be_bytes())
}

fn beat_key(session: u64) -> Bytes {
    [&session.to_be_bytes(), BEAT_KEY].concat().into()
}

fn put(collection: CollectionId, key: Bytes, value: Bytes) -> Edit {
    Edit::Put {
        collection,
        key,
        value,
    }
}

fn delete(key: Bytes) -> Edit {
    let collection = SESSIONS;
    Edit::Delete { collection, key }
}

fn row(state: State, owner: [u8; 16]) -> Bytes {
    let mut row = BytesMut::with_capacity(18);
    row.put_slice(&[VERSION, state as u8]);
    row.put_slice(&owner);
    row.freeze()
}

fn payload(session: u64, number: u64) -> PayloadId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&session.to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    PayloadId(id)
}

fn session_of(payload: PayloadId) -> u64 {
    let (session, _) = payload
        .0
        .split_first_chunk()
        .expect("16 bytes are more than 8");
    u64::from_be_bytes(*session)
}

fn number_of(entry: Option<&Entry>) -> Result<u64> {
    let Some(entry) = entry else { return Ok(0) };
    let bytes = entry.value[..].try_into().map_err(|_| {
        Error::new(
            Kind::Corrupt,
            "blobs.open",
            "the counter of sessions cannot be read",
        )
        .with("key", entry.key.escape_ascii())
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn is_conflict(error: &Error) -> bool {
    error.kind() == Kind::Conflict
}

impl Inner {
    /// The id of a new payload. The first of a run costs a durable commit, which begins its session.
    pub(super) async fn new_payload(self: &Arc<Self>) -> Result<PayloadId> {
        let own = match self.sessions.own.get() {
            Some(own) => *own,
            None => {
                let inner = self.clone();
                let beginning = self.to_end(async move {
                    let own = &inner.sessions.own;
                    let own = own.get_or_try_init(|| inner.begin_session()).await;
                    own.copied()
                });
                beginning.await?
            }
        };
        let number = self.sessions.next.fetch_add(1, Ordering::Relaxed);
        Ok(payload(own.number, number))
    }

    async fn begin_session(self: &Arc<Self>) -> Result<Own> {
        let mut owner = [0; 16];
        random("blobs.add", &mut owner)?;
        let is_shared = self.is_shared();
        for _ in 0..MAX_ATTEMPTS {
            let last = self.collections.get(META, LAST).await?;
            let number = number_of(last.as_ref())? + 1;
            let counted = Bytes::copy_from_slice(&number.to_be_bytes());
            let mut edits = vec![
                put(META, LAST, counted),
                put(SESSIONS, row_key(number), row(State::Live, owner)),
            ];
            if is_shared {
                edits.push(put(SESSIONS, beat_key(number), Bytes::new()));
            }
            let unchanged = expect(&META, &LAST, last.map(|entry| entry.revision));
            let batch = Batch::of(edits).expecting(unchanged);
            match self.collections.commit_reserved(batch).await {
                Ok(revision) => {
                    let own = Own { number, revision };
                    if is_shared {
                        tokio::spawn(keep_alive(Arc::downgrade(self), own));
                    }
                    return Ok(own);
                }
                // Another one began meanwhile.
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("other sessions began first, {MAX_ATTEMPTS} times in a row");
        Err(Error::new(Kind::Unavailable, "blobs.add", message))
    }

    fn is_shared(&self) -> bool {
        self.collections.capabilities().sharing == Sharing::Shared
    }

    /// After a conflict: whether the own session was ended, which is then an error.
    pub(super) async fn check_session(&self, operation: &'static str) -> Result<()> {
        if let (Some(own), Some(expected)) = (self.sessions.own.get(), self.sessions.expectation())
        {
            let found = self.collections.get(SESSIONS, row_key(own.number)).await?;
            if !holds(&expected, found.as_ref()) {
                self.sessions.is_ended.store(true, Ordering::SeqCst);
            }
        }
        self.sessions.check(operation)
    }

    /// Notes that this run left nothing unclaimed.
    pub(super) async fn end_own_session(&self) -> Result<()> {
        let Some(own) = self.sessions.own.get() else {
            return Ok(());
        };
        let expected = self.sessions.expectation();
        if self.sessions.is_unclean.load(Ordering::SeqCst) {
            return Ok(());
        }
        let rows = vec![delete(row_key(own.number)), delete(beat_key(own.number))];
        let mut batch = Batch::of(rows);
        batch.expect.extend(expected);
        // If it is lost, the next start looks once more.
        batch.durability = Durability::OnSync;
        match self.collections.commit_reserved(batch).await {
            // Somebody else ended it, and sweeps.
            Err(error) if is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Refuses where another session may work on the stores.
    pub(super) async fn check_alone(&self, operation: &'static str) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let own = self.sessions.own.get().map(|own| own.number);
        let rows = self.session_rows().await?;
        if rows.keys().all(|session| Some(*session) == own) {
            return Ok(());
        }
        let message = "another process works on this store, or did not end cleanly less than a \
                       minute ago; try again when it has ended";
        Err(Error::new(Kind::Unavailable, operation, message))
    }

    /// Returns true where the session that wrote a payload may still claim it.
    pub(super) async fn is_session_live(&self, payload: PayloadId) -> Result<bool> {
        let session = session_of(payload);
        if self
            .sessions
            .own
            .get()
            .is_some_and(|own| own.number == session)
        {
            return Ok(true);
        }
        let row = self.collections.get(SESSIONS, row_key(session)).await?;
        Ok(row.is_some())
    }

    /// Deletes what earlier sessions left unclaimed: at once where they must be over, else in the
    /// background once it is known that they are.
    pub(super) async fn sweep_sessions(self: &Arc<Self>) -> Result<()> {
        if self.is_shared() {
            let rows = self.session_rows().await?;
            if !rows.is_empty() {
                tokio::spawn(watch(Arc::downgrade(self), Watch::begin(&rows)));
            }
            return Ok(());
        }
        for _ in 0..MAX_ATTEMPTS {
            let rows = self.session_rows().await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (session, row) in rows {
                // An opening that was given up may still change the row: then it is read again.
                if let Some(ended) = self.end_session(session, row).await? {
                    self.sweep_session(session).await?;
                    self.delete_row(session, ended).await?;
                }
            }
        }
        let message = "the sessions of the store kept changing; is it open elsewhere?";
        Err(Error::new(Kind::Unavailable, "blobs.open", message))
    }

    async fn session_rows(&self) -> Result<BTreeMap<u64, Row>> {
        let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
        let mut entries = self.collections.scan(Scan::all(SESSIONS));
        while let Some(Entry {
            key,
            value,
            revision,
        }) = entries.try_next().await?
        {
            let Some((session, rest)) = key.split_first_chunk() else {
                let message = "a key of a session cannot be read";
                return Err(Error::new(Kind::Corrupt, "blobs.open", message)
                    .with("key", key.escape_ascii()));
            };
            let session = u64::from_be_bytes(*session);
            if rest == BEAT_KEY {
                // Its row came before.
                if let Some(row) = rows.get_mut(&session) {
                    row.beat = Some(revision);
                }
                continue;
            }
            let state = match value[..] {
                [version, ..] if version > VERSION => {
                    let message = "a session was begun by a newer version: update";
                    return Err(Error::new(Kind::Unsupported, "blobs.open", message)
                        .with("session", session));
                }
                [_, state, ..] if state == State::Ended as u8 => State::Ended,
                // A row that cannot be read is ended like one that can.
                _ => State::Live,
            };
            let beat = None;
            rows.insert(
                session,
                Row {
                    state,
                    revision,
                    beat,
                },
            );
        }
        Ok(rows)
    }

    /// Marks a session as ended: from then on it claims nothing. `None` if it shows that it is
    /// alive, or somebody else was first.
    async fn end_session(&self, session: u64, row_read: Row) -> Result<Option<Revision>> {
        if row_read.state == State::Ended {
            return Ok(Some(row_read.revision));
        }
        let (key, beat) = (row_key(session), beat_key(session));
        let mut batch = Batch::of(vec![
            put(SESSIONS, key.clone(), row(State::Ended, [0; 16])),
            delete(beat.clone()),
        ]);
        batch.expect = vec![
            expect(&SESSIONS, &key, Some(row_read.revision)),
            expect(&SESSIONS, &beat, row_read.beat),
        ];
        match self.collections.commit_reserved(batch).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the payloads of a session that nothing claims.
    async fn sweep_session(&self, session: u64) -> Result<()> {
        let after = session.checked_sub(1).map(|last| payload(last, u64::MAX));
        let orphans = self.sweep(after, |payload| session_of(payload) == session);
        let orphans = orphans.await?;
        if orphans > 0 {
            tracing::info!(session, orphans, "deleted payloads that nothing claims");
        }
        Ok(())
    }

    async fn delete_row(&self, session: u64, ended: Revision) -> Result<()> {
        let key = row_key(session);
        let expected = expect(&SESSIONS, &key, Some(ended));
        let mut batch = Batch::of(vec![delete(key)]).expecting(expected);
        // If it is lost, the next start looks once more.
        batch.durability = Durability::OnSync;
        match self.collections.commit_reserved(batch).await {
            Err(error) if is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Shows every [`BEAT`] that the session is alive, until the engine is gone or the session ended.
async fn keep_alive(inner: Weak<Inner>, own: Own) {
    loop {
        sleep(BEAT).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.check_open("blobs.beat").is_err() {
            return;
        }
        let mut batch = Batch::of(vec![put(SESSIONS, beat_key(own.number), Bytes::new())]);
        batch.expect.extend(inner.sessions.expectation());
        batch.durability = Durability::OnSync;
        let beaten = match inner.collections.commit_reserved(batch).await {
            Err(error) if is_conflict(&error) => inner.check_session("blobs.beat").await,
            other => other.map(drop),
        };
        match beaten {
            Err(error) if error.kind() == Kind::Closed => {
                tracing::warn!(%error, "a session ended");
                return;
            }
            Err(error) => tracing::warn!(%error, "a session cannot show that it is alive"),
            Ok(()) => {}
        }
    }
}

/// Sessions that may be over, as they were when they were last seen to change.
#[derive(Debug)]
struct Watch {
    seen: BTreeMap<u64, (Row, Instant)>,
    looked: Instant,
}

impl Watch {
    fn begin(rows: &BTreeMap<u64, Row>) -> Self {
        let looked = Instant::now();
        let seen = rows.iter().map(|(session, row)| (*session, (*row, looked)));
        Self {
            seen: seen.collect(),
            looked,
        }
    }

    /// Takes what is there now, and says which sessions are due.
    fn look(&mut self, rows: &BTreeMap<u64, Row>) -> Vec<(u64, Row)> {
        let now = Instant::now();
        // Whoever slept itself saw nothing.
        let slept = now - self.looked > 2 * BEAT;
        self.looked = now;
        self.seen.retain(|session, (seen, since)| {
            let Some(row) = rows.get(session) else {
                return false;
            };
            let changed = row != seen;
            if changed || slept {
                *since = now;
            }
            *seen = *row;
            // One that lives ends by itself, or is seen by whoever comes next.
            !(changed && row.state == State::Live)
        });
        let due = |(session, (row, since)): (&u64, &(Row, Instant))| {
            (now - *since >= LEASE).then_some((*session, *row))
        };
        self.seen.iter().filter_map(due).collect()
    }
}

/// Ends the sessions that are over, and sweeps what they left. It is done twice: a write that was
/// under way when the session was ended may have come after the first sweep.
async fn watch(inner: Weak<Inner>, mut watch: Watch) {
    while !watch.seen.is_empty() {
        sleep(BEAT).await;
        let Some(inner) = inner.upgrade() else { return };
        let running = inner.hold();
        if inner.check_open("blobs.sweep").is_err() {
            return;
        }
        if let Err(error) = inner.look_at_sessions(&mut watch).await {
            tracing::warn!(%error, "earlier sessions cannot be swept now");
        }
        drop(running);
    }
}

impl Inner {
    async fn look_at_sessions(&self, watch: &mut Watch) -> Result<()> {
        for (session, row) in watch.look(&self.session_rows().await?) {
            let Some(ended) = self.end_session(session, row).await? else {
                continue;
            };
            self.sweep_session(session).await?;
            if row.state == State::Ended {
                self.delete_row(session, ended).await?;
                watch.seen.remove(&session);
            }
        }
        Ok(())
    }
}
