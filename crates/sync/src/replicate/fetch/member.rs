//! Fetches from all connected members at once, with the engine's fetch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use larder_store_api::{Durability, Result};
use larder_store_engine::{
    Hash, Pin,
    fetch::{Fault, Fetch, Options, Provider, Settled, Wanted, Watch},
};

use super::{
    Chain, PATIENCE, Shared,
    fault::Outcome,
    index::{Change, until},
    last, lock,
    progress::{Incoming, Transferred},
    receive::Body,
    session::Session,
    status::{Request, Requests},
    wire::{GET, Get, MAX_RANGES},
};
use crate::groups::{Holding, Repo};

/// The most attempts in a row in which members join, or say that they have more, and then provide
/// nothing. Without this bound, one member that keeps announcing could keep a fetch from ending.
const MOST_VAIN: u32 = 64;
/// The most blobs that one request asks for.
const MOST_BLOBS: usize = 64;

/// Counts the received bytes of each file.
impl Watch for Transferred {
    fn complete(&self, _pin: Pin) {
        self.file_is_here();
    }
}

/// Pins the blobs that have arrived.
#[derive(Default)]
pub(super) struct Kept(Mutex<Vec<Pin>>);

impl Watch for Kept {
    fn complete(&self, pin: Pin) {
        lock(&self.0).push(pin);
    }
}

/// The common part of all requests for a tree.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) repo: Repo,
    /// The hash of the tree's root.
    pub(super) top: Hash,
    pub(super) moved: Arc<Transferred>,
    /// Counts the received bytes of files that are long enough to show progress for.
    pub(super) coming: Arc<HashMap<Hash, Arc<Incoming>>>,
}

/// A member, on one connection.
struct Member {
    session: Arc<Session>,
    asked: Asked,
    requests: Requests,
}

impl Provider for Member {
    /// The page whose sequence is requested, and the pages that lead to it.
    type Of = Chain;
    type Answer = Body;

    async fn ask(&self, chain: &Chain, wanted: &[Wanted]) -> Result<Body, Fault> {
        let Asked {
            repo,
            moved,
            coming,
            ..
        } = &self.asked;
        let ranges = wanted.iter().map(|one| (one.offset, one.ranges.clone()));
        let get = Get {
            group: repo.group().id(),
            repo: repo.key(),
            chain: chain.clone(),
            ranges: ranges.collect(),
        };
        let request = Request {
            group: get.group,
            repo: get.repo,
            page: last(chain),
            file: None,
            peer: self.session.link.connection.peer(),
            bytes: 0,
            running: Duration::ZERO,
        };
        let is_page = wanted.iter().any(|one| one.offset == 0);
        let moved = (!is_page).then(|| Arc::clone(moved));
        let first = wanted.first().and_then(|one| one.hash);
        let coming = first.and_then(|hash| coming.get(&hash).cloned());
        let running = self.requests.begin(request, moved, coming);
        Body::ask(&self.session.link, GET, &get, Some(running)).await
    }

    /// The peer ended its answer within the first of these blobs; it may be unable to read that one. It
    /// has not said anything about the others.
    async fn has(&self, _chain: &Chain, wanted: &[Wanted]) -> Result<Vec<Wanted>, Fault> {
        Ok(wanted.iter().skip(1).cloned().collect())
    }
}

/// The known state of the sessions that a fetch uses.
#[derive(Default)]
struct Known {
    /// The providers that failed.
    failed: BTreeSet<u64>,
    /// The part of the tree that each provider says it holds.
    holds: BTreeMap<u64, Holding>,
}

/// Returns a fetch that makes this many requests to each member at a time.
pub(super) fn fetch_of(repo: &Repo, streams: NonZeroUsize, watch: Arc<dyn Watch>) -> Fetch<Chain> {
    let mut options = Options::default();
    options.streams = streams;
    options.patience = PATIENCE;
    (options.least_blobs, options.most_blobs) = (MOST_BLOBS, MOST_BLOBS);
    options.most_ranges = MAX_RANGES;
    // The record that the tree is complete is committed later, and makes the blobs durable with it.
    options.durability = Durability::OnSync;
    Fetch::new(repo.group().blobs(), options, watch)
}

impl Shared {
    /// Lets all connected members work on a fetch until everything is here or nobody can provide the
    /// rest.
    pub(super) async fn fetch_from_all(&self, fetch: &Fetch<Chain>, asked: &Asked) -> Result<()> {
        let mut known = Known::default();
        loop {
            if !fetch.is_idle() {
                self.work_on(fetch, asked, &mut known).await;
            }
            match fetch.settle().await? {
                Settled::Done => return Ok(()),
                Settled::More => {}
                Settled::Left => {
                    tracing::debug!(repo = %asked.repo.key(), "no connected peer can provide the missing data");
                    return Ok(());
                }
            }
        }
    }

    /// Lets all members work until none of them can do anything more.
    async fn work_on(&self, fetch: &Fetch<Chain>, asked: &Asked, known: &mut Known) {
        let (group, repo) = (asked.repo.group().id(), asked.repo.key());
        type Ended = (Arc<Session>, Outcome<()>);
        let mut working: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        // The members at work, and all that have worked so far.
        let (mut at_work, mut asked_once) = (BTreeSet::new(), BTreeSet::new());
        let mut changes = self.changes.subscribe();
        let (mut vain, mut received) = (0, fetch.received());
        loop {
            for session in self.sessions.of(group) {
                let id = session.id;
                let is_new = asked_once.insert(id) && !known.failed.contains(&id);
                let holds = session.holds(repo).filter(|holds| holds.root == asked.top);
                let has_it_now =
                    holds.is_some_and(|holds| known.holds.insert(id, holds) != Some(holds));
                if has_it_now && !is_new {
                    // It was asked before it had it.
                    fetch.forgive(id);
                }
                if (is_new || has_it_now) && vain < MOST_VAIN && at_work.insert(id) {
                    let member = Arc::new(Member {
                        session: Arc::clone(&session),
                        asked: asked.clone(),
                        requests: self.requests.clone(),
                    });
                    working.push(Box::pin(async move {
                        (session, fetch.provide(id, member).await)
                    }));
                }
            }
            if working.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some((session, ended)) = working.next() => {
                    at_work.remove(&session.id);
                    let before = std::mem::replace(&mut received, fetch.received());
                    vain = if received > before { 0 } else { vain + 1 };
                    match ended {
                        Ok(()) => {}
                        // Nobody else can help either: the fetch has failed, and reports it when it
                        // settles.
                        Err(Fault::Local(_)) => return,
                        Err(fault) => {
                            known.failed.insert(session.id);
                            self.blame(&session.link, &fault);
                        }
                    }
                }
                // A member joined, or has more of the tree.
                () = until(&mut changes, |change| match change {
                    Change::Session { group: of } => of == group,
                    Change::Holding { group: of, repo: held } => of == group && held == repo,
                    _ => false,
                }) => {}
            }
        }
    }
}
