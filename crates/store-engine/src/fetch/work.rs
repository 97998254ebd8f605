//! Runs requests with all providers.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bao_tree::ChunkRanges;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Durability, Error, Kind, Result};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Provider, Watch,
    fault::{Fault, Misconduct},
    intake::{Intake, Received},
    jobs::{Job, Jobs, ProviderId, SLOW, Take},
    receiver::Receiver,
    wanted::{Blob, Missing, Wanted, missing, pieces, requests},
};
use crate::{Bitfield, Blobs, Hash, Pin, blobs::tree::clip};

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

/// One of the streams of a provider.
struct Worker<C, P> {
    shared: Arc<Shared<C>>,
    id: ProviderId,
    provider: Arc<P>,
    /// The number of blobs that the provider lacks.
    lacks: Arc<AtomicU64>,
    stop: CancellationToken,
}

/// The result of a provider's work on a request.
struct Done<C> {
    /// New requests that resulted from it.
    more: Vec<Job<C>>,
    /// The blobs that the provider could not provide.
    left: Vec<Wanted>,
    /// The reason, if the peer could not provide them.
    why: Option<Fault>,
}

impl<C> Done<C> {
    /// The sequence does not name a blob at this offset: nobody can provide it.
    fn names_nothing(&mut self, one: Wanted) {
        let message = "the sequence that was asked for names nothing there";
        let error = Error::new(Kind::Invalid, "blobs.fetch", message).with("offset", one.offset);
        self.why = Some(Fault::Peer(Misconduct::Lacks, error));
        self.left.push(one);
    }
}

/// The reason why reading an answer stopped.
enum Ended {
    Stopped,
    Fault(Fault),
}

impl<C, P> Worker<C, P>
where
    C: Clone + Send + Sync + 'static,
    P: Provider<Of = C>,
{
    async fn run(self) -> Result<(), Fault> {
        let jobs = &self.shared.jobs;
        while !self.stop.is_cancelled() {
            let changed = jobs.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = match jobs.take(self.id) {
                Take::Job(taken) => taken,
                Take::Nothing => break,
                Take::Wait => {
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        // Others become slow as time passes, without any notification.
                        _ = timeout(SLOW, changed) => continue,
                    }
                }
            };
            let mut done = Done {
                more: Vec::new(),
                left: Vec::new(),
                why: None,
            };
            let ended = tokio::select! {
                biased;
                () = taken.over.cancelled() => continue,
                ended = self.work(&taken.job, &mut done) => ended,
            };
            taken.end(&done.left, done.more, done.why);
            match ended {
                Ok(()) => {}
                Err(Ended::Stopped) => break,
                Err(Ended::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Does as much of a job as the provider can.
    async fn work(&self, job: &Job<C>, done: &mut Done<C>) -> Result<(), Ended> {
        let mut wanted = job.wanted.clone();
        if job.is_tried() {
            wanted = self.lacking(&job.of, wanted, done).await.map_err(local)?;
        }
        let mut asks = VecDeque::from([Ask::All(wanted)]);
        while let Some(ask) = asks.pop_front() {
            let ended = self.ask(&job.of, ask, &mut asks, done).await;
            if ended.is_err() || self.lacks_much() {
                let rest = asks.into_iter().flat_map(Ask::into_wanted);
                done.left.extend(rest);
                ended?;
                return Err(Ended::Fault(Fault::lacks()));
            }
        }
        Ok(())
    }

    /// Asks the provider, and puts the requests that follow from the answer in front of `asks`.
    /// Requested blobs that did not arrive are left.
    async fn ask(
        &self,
        of: &C,
        ask: Ask,
        asks: &mut VecDeque<Ask>,
        done: &mut Done<C>,
    ) -> Result<(), Ended> {
        let is_known = matches!(ask, Ask::Known(_));
        let wanted = match ask {
            Ask::All(wanted) | Ask::Known(wanted) => wanted,
            Ask::Unclear(wanted) => {
                return match self.narrow(of, &wanted, done).await {
                    Ok(has) => {
                        let has = self.shared.requests(has, usize::MAX).rev();
                        has.for_each(|has| asks.push_front(Ask::Known(has)));
                        Ok(())
                    }
                    Err(fault) => {
                        done.left.extend(wanted);
                        Err(Ended::Fault(fault))
                    }
                };
            }
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let names = wanted.iter().any(|one| one.hash.is_none());
        let mut answered = 0;
        let ended = self.request(of, &wanted, &mut answered, done).await;
        let mut rest = wanted.into_iter().skip(answered);
        match ended {
            Ok(()) => Ok(()),
            // The blobs that the first one names cannot be requested without it.
            Err(Ended::Fault(why @ Fault::Peer(Misconduct::Lacks | Misconduct::TooLong, _)))
                if names =>
            {
                self.lack(done, rest, why);
                Ok(())
            }
            // The provider aborted the answer, and data that it sent before may be lost with it: so it
            // is unknown which of the blobs it lacks.
            Err(Ended::Fault(Fault::Peer(Misconduct::Lacks, _))) if !is_known => {
                let rest: Vec<_> = rest.collect();
                let unclear = rest.chunks(UNCLEAR).rev();
                unclear.for_each(|wanted| asks.push_front(Ask::Unclear(wanted.to_vec())));
                Ok(())
            }
            // The provider cannot send a blob that it claims to have; or it was refused, so that the
            // rest of the answer cannot be read.
            Err(Ended::Fault(why @ Fault::Peer(Misconduct::Lacks | Misconduct::TooLong, _))) => {
                self.lack(done, rest.next(), why);
                asks.push_front(match is_known {
                    true => Ask::Known(rest.collect()),
                    false => Ask::All(rest.collect()),
                });
                Ok(())
            }
            Err(ended) => {
                done.left.extend(rest);
                Err(ended)
            }
        }
    }

    /// Notes which blobs the provider cannot provide.
    fn lack(&self, done: &mut Done<C>, lacks: impl IntoIterator<Item = Wanted>, why: Fault) {
        for one in lacks {
            done.left.push(one);
            done.why = Some(why.clone());
            self.lacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lacks_much(&self) -> bool {
        self.lacks.load(Ordering::Relaxed) > self.shared.options.most_lacking
    }

    /// Returns the parts of these blobs that are still missing here.
    async fn lacking(
        &self,
        of: &C,
        wanted: Vec<Wanted>,
        done: &mut Done<C>,
    ) -> Result<Vec<Wanted>> {
        let mut lacking = Vec::with_capacity(wanted.len());
        // The blob that names the others, if it is here.
        let mut sequence = None;
        for (i, mut one) in wanted.into_iter().enumerate() {
            let named = match (one.hash, &sequence) {
                (None, None) => {
                    lacking.push(one);
                    continue;
                }
                (None, Some(sequence)) => self.named(sequence, one.offset).await?,
                (hash, _) => hash,
            };
            let Some(hash) = named else {
                done.names_nothing(one);
                continue;
            };
            one.hash = Some(hash);
            match missing(&self.shared.blobs, hash, one.up_to).await? {
                None if i == 0 => sequence = Some(Sequence { hash, bytes: None }),
                None => {}
                Some(Missing::All) => lacking.push(one),
                Some(Missing::Of(size, missing)) => {
                    one.ranges = clip(&one.ranges, size) & missing.clone();
                    if !one.ranges.is_empty() {
                        lacking.push(one);
                    } else if one.first.is_some() {
                        self.goes_on_with(of, &one, hash, size, &missing, done);
                    }
                }
            }
        }
        Ok(lacking)
    }

    /// Finds out which blobs of an aborted answer the provider has.
    async fn narrow(
        &self,
        of: &C,
        wanted: &[Wanted],
        done: &mut Done<C>,
    ) -> Result<Vec<Wanted>, Fault> {
        // If nothing of a blob is here, all of it is needed.
        let all = |one: &Wanted| match one.first {
            Some(_) => one.with_ranges(ChunkRanges::all()),
            None => one.clone(),
        };
        let asked: Vec<_> = wanted.iter().map(all).collect();
        let had = timeout(self.shared.options.patience, self.provider.has(of, &asked));
        let mut had = had.await.unwrap_or_else(|_| Err(Fault::stalls()))?;
        let mut parts: HashMap<u64, ChunkRanges> = HashMap::new();
        for part in &had {
            let known = parts.entry(part.offset).or_insert_with(ChunkRanges::empty);
            *known |= part.ranges.clone();
        }
        let lacks = asked.into_iter().filter(|one| {
            let has = parts.get(&one.offset);
            has.is_none_or(|has| !(one.ranges.clone() - has.clone()).is_empty())
        });
        self.lack(done, lacks, Fault::lacks());
        // If the peer has the whole blob, it is requested as it was wanted, in pieces.
        for part in had.iter_mut().filter(|part| part.ranges.is_all()) {
            let one = wanted.binary_search_by_key(&part.offset, |one| one.offset);
            if let Ok(at) = one {
                *part = wanted[at].clone();
            }
        }
        Ok(had)
    }

    /// Makes one request, and counts its blobs that were answered.
    async fn request(
        &self,
        of: &C,
        wanted: &[Wanted],
        answered: &mut usize,
        done: &mut Done<C>,
    ) -> Result<(), Ended> {
        let patience = self.shared.options.patience;
        let answer = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            answer = timeout(patience, self.provider.ask(of, wanted)) => answer,
        };
        let answer = answer.unwrap_or_else(|_| Err(Fault::stalls()));
        let mut receiver = Receiver::new(answer.map_err(Ended::Fault)?, patience);
        let names = wanted.iter().any(|one| one.hash.is_none());
        let mut sequence = None;
        for (i, one) in wanted.iter().enumerate() {
            let named = match (one.hash, &sequence) {
                (None, Some(sequence)) => self.named(sequence, one.offset).await.map_err(local)?,
                (None, None) => {
                    let message = "a request leaves out a hash that nothing in it names";
                    return Err(local(Error::new(Kind::Invalid, "blobs.fetch", message)));
                }
                (hash, _) => hash,
            };
            let Some(hash) = named else {
                wanted[i..]
                    .iter()
                    .for_each(|one| done.names_nothing(one.clone()));
                *answered = wanted.len();
                return Ok(());
            };
            let at_once = names && i == 0;
            let received =
                self.shared
                    .intake
                    .receive(&mut receiver, hash, one, at_once, &self.stop);
            match received.await.map_err(Ended::Fault)? {
                Received::All(bytes) if at_once => {
                    if bytes.is_none() && self.is_lost(hash).await.map_err(local)? {
                        done.left.extend(wanted.iter().cloned());
                        *answered = wanted.len();
                        return Ok(());
                    }
                    sequence = Some(Sequence { hash, bytes });
                }
                Received::All(Some(_)) => {}
                // It becomes durable soon, unless the data is lost.
                Received::All(None) => self.shared.comes_in_parts(of, one.blob(hash)),
                Received::Rest(size, left) => {
                    self.goes_on_with(of, one, hash, size, &left, done);
                }
                // Nothing names the blobs that follow.
                Received::Absent if at_once => {
                    self.lack(done, wanted.iter().cloned(), Fault::lacks());
                    *answered = wanted.len();
                    return Ok(());
                }
                Received::Absent => self.lack(done, [one.clone()], Fault::lacks()),
                Received::Stopped => return Err(Ended::Stopped),
            }
            *answered += 1;
        }
        Ok(())
    }

    /// Returns true if a blob arrived but is not here: another record replaced it.
    async fn is_lost(&self, hash: Hash) -> Result<bool> {
        Ok(missing(&self.shared.blobs, hash, u64::MAX).await?.is_some())
    }

    /// Requests the rest of a blob whose first part is here.
    fn goes_on_with(
        &self,
        of: &C,
        one: &Wanted,
        hash: Hash,
        size: u64,
        left: &ChunkRanges,
        done: &mut Done<C>,
    ) {
        let blob = one.blob(hash);
        // The first part has proven the length.
        if size > blob.up_to {
            return;
        }
        done.more.extend(one_each(of, pieces(&blob, size, left)));
        self.shared.comes_in_parts(of, blob);
    }

    /// Returns the hash that a sequence names for an offset of the request; `None` if it names none
    /// there.
    async fn named(&self, sequence: &Sequence, offset: u64) -> Result<Option<Hash>> {
        const LEN: u64 = size_of::<Hash>() as u64;
        let at = offset.saturating_sub(1).saturating_mul(LEN);
        let range = at..at.saturating_add(LEN);
        let bytes = match &sequence.bytes {
            Some(bytes) => bytes
                .get(at as usize..(at + LEN) as usize)
                .map(Bytes::copy_from_slice),
            None => {
                let read = self.shared.blobs.read_to_bytes(sequence.hash, range).await;
                Some(read?)
            }
        };
        let hash = bytes.and_then(|bytes| <[u8; LEN as usize]>::try_from(&bytes[..]).ok());
        Ok(hash.map(Hash::from))
    }
}

/// A hash sequence that has just arrived.
struct Sequence {
    hash: Hash,
    /// The bytes of the sequence, if it is short.
    bytes: Option<Bytes>,
}

/// The blobs to request from a provider.
enum Ask {
    /// The wanted blobs.
    All(Vec<Wanted>),
    /// The parts of these that the provider has.
    Unclear(Vec<Wanted>),
    /// The blobs that the provider says it has.
    Known(Vec<Wanted>),
}

impl Ask {
    fn into_wanted(self) -> Vec<Wanted> {
        match self {
            Self::All(wanted) | Self::Unclear(wanted) | Self::Known(wanted) => wanted,
        }
    }
}

fn local(error: Error) -> Ended {
    Ended::Fault(Fault::Local(error))
}
