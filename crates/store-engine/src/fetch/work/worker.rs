//! One of the streams of a provider: takes jobs, asks, and receives the answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bao_tree::ChunkRanges;
use bytes::Bytes;
use larder_store_api::{Error, Kind, Result};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Shared, UNCLEAR, one_each};
use crate::{
    Hash,
    blobs::tree::clip,
    fetch::{
        Provider,
        fault::{Fault, Misconduct},
        intake::Received,
        jobs::{Job, ProviderId, SLOW, Take},
        receiver::Receiver,
        wanted::{Missing, Wanted, missing, pieces},
    },
};

/// One of the streams of a provider.
pub(super) struct Worker<C, P> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) id: ProviderId,
    pub(super) provider: Arc<P>,
    /// The number of blobs that the provider lacks.
    pub(super) lacks: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
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
    pub(super) async fn run(self) -> Result<(), Fault> {
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
