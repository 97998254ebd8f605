//! Runs requests with all providers.

mod worker;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Durability, Error, Kind, Result};
use tokio::task::JoinSet;

use self::worker::Worker;
use super::{
    Provider, Watch,
    fault::Fault,
    intake::Intake,
    jobs::{Job, Jobs, ProviderId},
    wanted::{Blob, Missing, Wanted, missing, pieces, requests},
};
use crate::{Bitfield, Blobs, Hash, Pin};

/// The number of blobs that are looked up at a time.
const LOOKUPS: usize = 64;
/// The number of rounds without progress after which the fetch gives up.
const ROUNDS: u32 = 4;
/// The number of blobs that a provider is asked about at a time after it aborted an answer.
const UNCLEAR: usize = 256;
/// The number of requests into which a stream splits its share of many blobs, so that all streams end
/// at about the same time.
const REQUESTS_PER_STREAM: usize = 4;

/// The options of a fetch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The number of concurrent requests to one provider.
    pub streams: NonZeroUsize,
    /// The time within which a provider must answer, and then send each group of 16 KiB.
    pub patience: Duration,
    /// The fewest blobs in a request, if there are enough.
    pub least_blobs: usize,
    /// The most blobs in a request.
    pub most_blobs: usize,
    /// The most ranges in a request; a run of blobs with equal ranges counts as one.
    pub most_ranges: usize,
    /// The most blobs that a provider may lack; beyond it, it is not asked any more.
    pub most_lacking: u64,
    /// The durability of blobs of up to 16 KiB: by default they survive a loss of power once the fetch
    /// has settled. Longer blobs always do.
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            streams: NonZeroUsize::new(4).expect("four is not zero"),
            patience: Duration::from_secs(30),
            least_blobs: 64,
            most_blobs: 64,
            most_ranges: 4096,
            most_lacking: u64::MAX,
            durability: Durability::OnWrite,
        }
    }
}

/// The state of a fetch while no provider works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Everything that was wanted is here and durable.
    Done,
    /// There are more requests: let providers work again.
    More,
    /// No provider could provide [what is left](Fetch::left).
    Left,
}

/// The blobs of one request that no provider could provide.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Left<C> {
    /// The identity of the request.
    pub of: C,
    /// The blobs.
    pub wanted: Vec<Wanted>,
    /// The reason why the last provider that was asked did not provide them.
    pub why: Option<Fault>,
}

/// A fetch of wanted blobs, by requests whose subject is a `C`. A cheap handle.
///
/// Dropping the last handle ends it: the data that was recorded by then stays.
#[derive(Debug)]
pub struct Fetch<C>(Arc<Shared<C>>);

impl<C> Clone for Fetch<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<C> {
    blobs: Blobs,
    options: Options,
    intake: Intake,
    jobs: Jobs<C>,
    /// The blobs that may be incomplete here, until they are complete.
    parts: Arc<Parts<C>>,
    /// Counts the rounds without progress.
    vain: Mutex<Vain>,
}

impl<C> std::fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type Parts<C> = Mutex<HashMap<Hash, Part<C>>>;

/// Forwards events, and notes when a blob is complete.
struct Whole<C> {
    parts: Arc<Parts<C>>,
    watch: Arc<dyn Watch>,
}

impl<C: Send + Sync + 'static> Watch for Whole<C> {
    fn announced(&self, hash: Hash, bytes: u64) -> Result<()> {
        self.watch.announced(hash, bytes)
    }

    fn complete(&self, pin: Pin) {
        lock(&self.parts).remove(&pin.hash());
        self.watch.complete(pin);
    }
}

/// A blob that may be incomplete here.
#[derive(Clone)]
struct Part<C> {
    of: C,
    blob: Blob,
    /// The size that was recorded after the last round.
    size: Option<u64>,
    /// The number of times that the size changed.
    sizes: u32,
}

impl<C> Part<C> {
    fn new(of: C, blob: Blob) -> Self {
        let (size, sizes) = (None, 0);
        Self {
            of,
            blob,
            size,
            sizes,
        }
    }

    /// Notes the size that is recorded now. Returns false if it has changed too often: peers that
    /// contradict each other, or themselves, must not keep the fetch going.
    fn is_settled_on(&mut self, size: Option<u64>) -> bool {
        if self.size != size {
            self.size = size;
            self.sizes += 1;
        }
        self.sizes <= ROUNDS
    }
}

#[derive(Default)]
struct Vain {
    received: u64,
    rounds: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no code panics while it holds the state of a fetch")
}

impl<C: Clone + Send + Sync + 'static> Fetch<C> {
    /// Creates a fetch into `blobs`, without wanted blobs.
    pub fn new(blobs: &Blobs, options: Options, watch: Arc<dyn Watch>) -> Self {
        let parts = Arc::default();
        let whole = Whole {
            parts: Arc::clone(&parts),
            watch,
        };
        Self(Arc::new(Shared {
            blobs: blobs.clone(),
            intake: Intake::new(blobs, options.durability, Arc::new(whole)),
            options,
            jobs: Jobs::default(),
            parts,
            vain: Mutex::default(),
        }))
    }

    /// Adds blobs of one request, in ascending order of offsets, to the wanted ones. Returns how many
    /// of them are incomplete here.
    pub async fn want(&self, of: C, blobs: impl IntoIterator<Item = Blob>) -> Result<u64> {
        let shared = &self.0;
        let found = blobs.into_iter().map(|blob| {
            let blobs = shared.blobs.clone();
            async move {
                let missing = missing(&blobs, blob.hash, blob.up_to).await?;
                Ok::<_, Error>(missing.map(|missing| (blob, missing)))
            }
        });
        let found: Vec<_> = stream::iter(found.collect::<Vec<_>>())
            .buffered(LOOKUPS)
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await?;
        let count = found.len() as u64;
        let (mut new, mut jobs) = (Vec::new(), Vec::new());
        for (blob, missing) in found {
            match missing {
                Missing::All => new.push(Wanted::first(&blob)),
                Missing::Of(size, ranges) => {
                    let here = Bitfield { size, ranges };
                    shared.intake.announce(blob.hash, here.present_bytes())?;
                    jobs.extend(one_each(&of, pieces(&blob, size, &here.ranges)));
                    shared.comes_in_parts(&of, blob);
                }
            }
        }
        let streams = shared.options.streams.get();
        let share = new.len().div_ceil(streams * REQUESTS_PER_STREAM);
        let new = shared.requests(new, share.max(shared.options.least_blobs));
        jobs.extend(new.map(|wanted| Job::new(of.clone(), wanted)));
        shared.jobs.add(jobs);
        Ok(count)
    }

    /// Adds a request as it is, no matter which parts of it are here.
    pub fn want_request(&self, of: C, wanted: Vec<Wanted>) {
        self.0.jobs.add([Job::new(of, wanted)]);
    }

    /// Lets a provider work until there is nothing left that it can do. An error is either a fault of
    /// the provider, or one of our own store: then the whole fetch is over.
    pub async fn provide<P: Provider<Of = C>>(
        &self,
        id: ProviderId,
        provider: Arc<P>,
    ) -> Result<(), Fault> {
        let stop = self.0.intake.stop();
        let lacks = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..self.0.options.streams.get() {
            let worker: Worker<C, P> = Worker {
                shared: self.0.clone(),
                id,
                provider: provider.clone(),
                lacks: lacks.clone(),
                stop: stop.clone(),
            };
            workers.spawn(worker.run());
        }
        let mut first = None;
        while let Some(ended) = workers.join_next().await {
            let ended = ended.unwrap_or_else(|error| {
                let message = "a task of the fetch ended";
                let error = Error::new(Kind::Internal, "blobs.fetch", message).because(error);
                Err(Fault::Local(error))
            });
            if let Err(fault) = ended {
                // The others keep what they have verified, and end.
                stop.cancel();
                if let Fault::Local(error) = &fault {
                    self.0.intake.fail(error.clone());
                }
                first.get_or_insert(fault);
            }
        }
        match (self.0.intake.failure(), first) {
            // An error of our own store comes first: it also ends the requests.
            (Some(error), _) => Err(Fault::Local(error)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(()),
        }
    }

    /// Lets a provider try requests again that it could not do before.
    pub fn forgive(&self, id: ProviderId) {
        self.0.jobs.forgive(id);
    }

    /// Returns true if no request waits or runs.
    pub fn is_idle(&self) -> bool {
        self.0.jobs.is_empty()
    }

    /// Returns the number of verified bytes that were received.
    pub fn received(&self) -> u64 {
        self.0.intake.received()
    }

    /// Makes all received data durable, and returns the state of the fetch. Call it while no provider
    /// works; also after a fault, so that the data received before it stays.
    pub async fn settle(&self) -> Result<Settled> {
        let shared = &self.0;
        shared.intake.settle().await?;
        // If several providers each provided a part of a blob, each left the rest.
        let mut waits = shared.jobs.waiting();
        let here = shared.here(&waits).await?;
        shared.jobs.forget(&here);
        waits.retain(|hash, _| !here.contains(hash));
        let parts: Vec<Part<C>> = lock(&shared.parts).values().cloned().collect();
        let mut jobs = Vec::new();
        let mut more = false;
        for Part { of, blob, .. } in parts {
            let Some(missing) = missing(&shared.blobs, blob.hash, blob.up_to).await? else {
                lock(&shared.parts).remove(&blob.hash);
                continue;
            };
            // No provider could provide a part of it.
            if waits.contains_key(&blob.hash) {
                continue;
            }
            let (size, wanted) = match missing {
                Missing::Of(size, ranges) => (Some(size), pieces(&blob, size, &ranges)),
                Missing::All => (None, vec![Wanted::first(&blob)]),
            };
            jobs.extend(one_each(&of, wanted));
            let mut parts = lock(&shared.parts);
            let part = parts.get_mut(&blob.hash);
            more |= part.is_some_and(|part| part.is_settled_on(size));
        }
        shared.jobs.add(jobs);
        Ok(match shared.jobs.is_empty() {
            true => Settled::Done,
            false if more && shared.goes_on() => Settled::More,
            false => Settled::Left,
        })
    }

    /// Returns the blobs that no provider could provide, or that are still to be requested.
    pub fn left(&self) -> Vec<Left<C>> {
        let jobs = self.0.jobs.left().into_iter();
        let left = |Job {
                        of, wanted, why, ..
                    }| Left { of, wanted, why };
        jobs.map(left).collect()
    }
}

impl<C: Clone + Send + Sync + 'static> Shared<C> {
    /// Returns requests for `wanted`, with at most `blobs` blobs each.
    fn requests(&self, wanted: Vec<Wanted>, blobs: usize) -> std::vec::IntoIter<Vec<Wanted>> {
        let blobs = blobs.min(self.options.most_blobs).max(1);
        requests(wanted, blobs, self.options.most_ranges).into_iter()
    }

    fn comes_in_parts(&self, of: &C, blob: Blob) {
        let mut parts = lock(&self.parts);
        let part = parts.entry(blob.hash);
        part.or_insert_with(|| Part::new(of.clone(), blob));
    }

    /// Returns the blobs that are complete by now.
    async fn here(&self, wanted: &HashMap<Hash, u64>) -> Result<HashSet<Hash>> {
        let mut here = HashSet::new();
        for (hash, up_to) in wanted {
            if missing(&self.blobs, *hash, *up_to).await?.is_none() {
                here.insert(*hash);
            }
        }
        Ok(here)
    }

    /// Returns true if another round may make progress, judging by the last ones.
    fn goes_on(&self) -> bool {
        let mut vain = lock(&self.vain);
        let received = self.intake.received();
        vain.rounds = match received > vain.received {
            true => 0,
            false => vain.rounds + 1,
        };
        vain.received = received;
        vain.rounds < ROUNDS
    }
}

/// Makes a job of each part.
fn one_each<C: Clone>(of: &C, wanted: Vec<Wanted>) -> impl Iterator<Item = Job<C>> {
    wanted
        .into_iter()
        .map(|one| Job::new(of.clone(), vec![one]))
}
