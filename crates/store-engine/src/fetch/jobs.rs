//! The assignment of requests to providers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{fault::Fault, wanted::Wanted};
use crate::Hash;

/// After this time, more than two providers may work on a request: a provider that is slow on purpose
/// must not be able to block it.
pub(super) const SLOW: Duration = Duration::from_secs(30);

/// Identifies a provider for the duration of a fetch.
pub type ProviderId = u64;

/// Blobs to ask for in one request.
#[derive(Debug, Clone)]
pub(super) struct Job<C> {
    /// Identifies the request.
    pub(super) of: C,
    pub(super) wanted: Vec<Wanted>,
    /// The providers that failed to do it.
    failed: BTreeSet<ProviderId>,
    /// The reason why the last of them failed.
    pub(super) why: Option<Fault>,
}

impl<C> Job<C> {
    pub(super) fn new(of: C, wanted: Vec<Wanted>) -> Self {
        Self {
            of,
            wanted,
            failed: BTreeSet::new(),
            why: None,
        }
    }

    /// Returns true if a provider has failed to do the job; it may have done a part of it.
    pub(super) fn is_tried(&self) -> bool {
        !self.failed.is_empty()
    }
}

/// A job that a provider has taken. Dropping it returns the job.
pub(super) struct Taken<'a, C> {
    jobs: &'a Jobs<C>,
    number: u64,
    provider: ProviderId,
    pub(super) job: Job<C>,
    /// Cancelled after another provider has done the job.
    pub(super) over: CancellationToken,
}

impl<C> Taken<'_, C> {
    /// Ends the work on the job. All is done except `left`, which the provider cannot do; `more` are
    /// new jobs that resulted from it.
    pub(super) fn end(self, left: &[Wanted], more: Vec<Job<C>>, why: Option<Fault>) {
        self.jobs.end(&self, left, more, why);
    }
}

impl<C> Drop for Taken<'_, C> {
    fn drop(&mut self) {
        self.jobs.give_back(self.number, self.provider);
    }
}

pub(super) enum Take<'a, C> {
    Job(Taken<'a, C>),
    /// There may be a job later.
    Wait,
    /// There will be no job for this provider.
    Nothing,
}

/// The remaining jobs.
pub(super) struct Jobs<C> {
    state: Mutex<State<C>>,
    changed: Notify,
}

struct State<C> {
    waiting: VecDeque<Job<C>>,
    running: BTreeMap<u64, Run<C>>,
    next: u64,
}

/// A job that one or two providers work on; more if it takes long.
struct Run<C> {
    job: Job<C>,
    providers: BTreeSet<ProviderId>,
    since: Instant,
    over: CancellationToken,
}

impl<C> Default for Jobs<C> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                running: BTreeMap::new(),
                next: 0,
            }),
            changed: Notify::new(),
        }
    }
}

impl<C> Jobs<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state
            .lock()
            .expect("no code panics while it holds the jobs")
    }

    pub(super) fn add(&self, jobs: impl IntoIterator<Item = Job<C>>) {
        self.lock().waiting.extend(jobs);
        self.changed.notify_waiters();
    }

    /// Returns true if no job waits or runs.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.running.is_empty()
    }

    /// Completes whenever a job is added, done or returned.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn end(
        &self,
        taken: &Taken<'_, C>,
        left: &[Wanted],
        mut more: Vec<Job<C>>,
        why: Option<Fault>,
    ) {
        let mut state = self.lock();
        let Some(run) = state.running.get_mut(&taken.number) else {
            // Another provider did it, and added the jobs that resulted from it.
            return;
        };
        // Another provider may have done a part of it meanwhile.
        let known = offsets(&run.job.wanted);
        more.retain(|job| offsets(&job.wanted).is_subset(&known));
        let mut left_of_it = offsets(left);
        // The blobs that the first one names are requested with it, even if the provider was told their
        // hashes.
        let mut names_left = run.job.wanted.iter().filter(|one| one.hash.is_none());
        if names_left.any(|one| left_of_it.contains(&one.offset)) {
            left_of_it.extend(run.job.wanted.first().map(|one| one.offset));
        }
        let done: HashSet<u64> = &known - &left_of_it;
        run.job
            .wanted
            .retain(|wanted| !done.contains(&wanted.offset));
        if run.job.wanted.is_empty() {
            run.over.cancel();
            state.running.remove(&taken.number);
        } else {
            run.job.failed.insert(taken.provider);
            run.job.why = why.or(run.job.why.take());
        }
        // They come first, so that a blob that was begun is soon complete.
        for job in more.into_iter().rev() {
            state.waiting.push_front(job);
        }
    }

    /// Returns a job from a provider; it waits again if it is not done.
    fn give_back(&self, number: u64, provider: ProviderId) {
        let mut state = self.lock();
        if let Some(run) = state.running.get_mut(&number) {
            run.providers.remove(&provider);
            if run.providers.is_empty()
                && let Some(run) = state.running.remove(&number)
            {
                state.waiting.push_back(run.job);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Lets a provider try jobs again that it could not do before.
    pub(super) fn forgive(&self, provider: ProviderId) {
        let mut state = self.lock();
        for job in &mut state.waiting {
            job.failed.remove(&provider);
        }
        for run in state.running.values_mut() {
            run.job.failed.remove(&provider);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns the jobs that nobody works on.
    pub(super) fn left(&self) -> Vec<Job<C>>
    where
        C: Clone,
    {
        self.lock().waiting.iter().cloned().collect()
    }

    /// Returns the blobs of the jobs that nobody works on, and up to which length each is wanted.
    pub(super) fn waiting(&self) -> HashMap<Hash, u64> {
        let state = self.lock();
        let wanted = state.waiting.iter().flat_map(|job| &job.wanted);
        let wanted = wanted.filter_map(|one| Some((one.hash?, one.up_to)));
        wanted.collect()
    }

    /// Removes blobs that are no longer wanted.
    pub(super) fn forget(&self, blobs: &HashSet<Hash>) {
        let is_wanted = |one: &Wanted| one.hash.is_none_or(|hash| !blobs.contains(&hash));
        let mut state = self.lock();
        for job in &mut state.waiting {
            // Blobs that the first one names are requested with it.
            if job.wanted.iter().all(|one| one.hash.is_some()) {
                job.wanted.retain(is_wanted);
            }
        }
        state.waiting.retain(|job| !job.wanted.is_empty());
    }
}

impl<C: Clone> Jobs<C> {
    /// Takes a job that nobody works on, or else one with which others are slow.
    pub(super) fn take(&self, provider: ProviderId) -> Take<'_, C> {
        let mut state = self.lock();
        let can = |job: &Job<C>| !job.failed.contains(&provider);
        if let Some(at) = state.waiting.iter().position(can)
            && let Some(job) = state.waiting.remove(at)
        {
            let number = state.next;
            state.next += 1;
            let over = CancellationToken::new();
            let run = Run {
                job: job.clone(),
                providers: BTreeSet::from([provider]),
                since: Instant::now(),
                over: over.clone(),
            };
            state.running.insert(number, run);
            return Take::Job(self.taken(number, provider, job, over));
        }
        let helps = |run: &Run<C>| {
            let few = run.providers.len() == 1 || run.since.elapsed() > SLOW;
            can(&run.job) && few && !run.providers.contains(&provider)
        };
        if let Some((number, run)) = state.running.iter_mut().find(|(_, run)| helps(run)) {
            run.providers.insert(provider);
            let (job, over) = (run.job.clone(), run.over.clone());
            return Take::Job(self.taken(*number, provider, job, over));
        }
        match state.running.is_empty() {
            true => Take::Nothing,
            // It may fail, or result in more jobs.
            false => Take::Wait,
        }
    }

    fn taken(
        &self,
        number: u64,
        provider: ProviderId,
        job: Job<C>,
        over: CancellationToken,
    ) -> Taken<'_, C> {
        Taken {
            jobs: self,
            number,
            provider,
            job,
            over,
        }
    }
}

fn offsets(wanted: &[Wanted]) -> HashSet<u64> {
    wanted.iter().map(|wanted| wanted.offset).collect()
}
