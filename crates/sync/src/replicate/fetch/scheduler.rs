//! Who does which of the jobs of a level.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bao_tree::ChunkRanges;
use store_engine::Hash;
use tokio::{sync::Notify, time::Instant};

use super::{Chain, PATIENCE, lock, progress::Coming, receive::Opened};

/// After how long more than two sessions do the same: who is slow on purpose must not be able to keep a job
/// to itself.
pub(super) const SLOW: Duration = PATIENCE;

/// A blob that a page names.
#[derive(Debug, Clone)]
pub(in crate::replicate) struct Named {
    /// Where in the page's sequence: 0 is the sequence itself, 1 the page, then files.
    pub(in crate::replicate) offset: u64,
    pub(super) hash: Hash,
    /// How long it is, where the page that names it could be read.
    pub(super) len: Option<u64>,
    /// Counts what comes, where it is long enough for anybody to watch that.
    pub(super) coming: Option<Arc<Coming>>,
}

/// What of a blob to ask for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) file: Named,
    pub(super) ranges: ChunkRanges,
}

/// Something to ask for.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) chain: Chain,
    pub(super) wanted: Vec<Wanted>,
    /// Whether it begins with the page itself, whose first child comes with it.
    pub(super) is_page: bool,
    /// Whether it is for one piece of a long file.
    pub(super) is_piece: bool,
    /// The sessions that could not do it.
    failed: BTreeSet<u64>,
}

impl Job {
    /// Whether somebody failed to do it, who may have done a part.
    pub(super) fn is_tried(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Whether all files of another job are among its own.
    fn has_all_of(&self, other: &Self) -> bool {
        other.wanted.iter().all(|one| is_in(&self.wanted, one))
    }

    pub(super) fn page(chain: Chain) -> Self {
        Self {
            is_page: true,
            ..Self::files(chain, Vec::new())
        }
    }

    pub(super) fn files(chain: Chain, wanted: Vec<Wanted>) -> Self {
        Self {
            chain,
            wanted,
            is_page: false,
            is_piece: false,
            failed: BTreeSet::new(),
        }
    }

    /// The same for these of its files; `None` where there are none.
    pub(super) fn of(&self, wanted: Vec<Wanted>) -> Option<Self> {
        (!wanted.is_empty()).then(|| Self {
            is_piece: self.is_piece,
            ..Self::files(self.chain.clone(), wanted)
        })
    }

    pub(super) fn piece(chain: Chain, wanted: Wanted) -> Self {
        Self {
            is_piece: true,
            ..Self::files(chain, vec![wanted])
        }
    }
}

fn is_in(some: &[Wanted], one: &Wanted) -> bool {
    let is_same = |wanted: &Wanted| wanted.file.offset == one.file.offset;
    some.iter().any(is_same)
}

/// The jobs of one level.
pub(super) struct Work {
    left: Mutex<Left>,
    pub(super) changed: Notify,
    pub(super) opened: Opened,
}

struct Left {
    waiting: VecDeque<Job>,
    running: BTreeMap<u64, Run>,
    next: u64,
}

/// A job that runs on one session, or two; on more where it takes long.
struct Run {
    job: Job,
    sessions: BTreeSet<u64>,
    since: Instant,
    over: Arc<Notify>,
}

pub(super) enum Take {
    Job(u64, Job, Arc<Notify>),
    /// There may be something later.
    Wait,
    /// There will be nothing for this session.
    Nothing,
}

impl Work {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        Self {
            left: Mutex::new(Left {
                waiting: jobs.into(),
                running: BTreeMap::new(),
                next: 0,
            }),
            changed: Notify::new(),
            opened: Opened::default(),
        }
    }

    /// Whether the jobs are for pages; those of one level are all of one kind.
    pub(super) fn is_of_pages(&self) -> bool {
        lock(&self.left)
            .waiting
            .front()
            .is_some_and(|job| job.is_page)
    }

    pub(super) fn is_done(&self) -> bool {
        let left = lock(&self.left);
        left.waiting.is_empty() && left.running.is_empty()
    }

    pub(super) fn take(&self, session: u64) -> Take {
        let mut left = lock(&self.left);
        let can = |job: &Job| !job.failed.contains(&session);
        if let Some(at) = left.waiting.iter().position(can)
            && let Some(job) = left.waiting.remove(at)
        {
            let number = left.next;
            left.next += 1;
            let over = Arc::new(Notify::new());
            let run = Run {
                job: job.clone(),
                sessions: BTreeSet::from([session]),
                since: Instant::now(),
                over: Arc::clone(&over),
            };
            left.running.insert(number, run);
            return Take::Job(number, job, over);
        }
        // Nothing waits: help with what others have not done yet.
        let can_help = |run: &&mut Run| {
            let helps = run.sessions.len() == 1 || run.since.elapsed() > SLOW;
            can(&run.job) && helps && !run.sessions.contains(&session)
        };
        let number = left.running.iter_mut().find(|(_, run)| can_help(run));
        if let Some((number, run)) = number {
            run.sessions.insert(session);
            return Take::Job(*number, run.job.clone(), Arc::clone(&run.over));
        }
        match left.running.is_empty() {
            true => Take::Nothing,
            false => Take::Wait,
        }
    }

    pub(super) fn finish(&self, number: u64, mut more: Vec<Job>) {
        let mut left = lock(&self.left);
        if let Some(run) = left.running.remove(&number) {
            run.over.notify_waiters();
            // Another session may have done some of it meanwhile.
            more.retain(|job| run.job.has_all_of(job));
            // First, so that a file that was begun is soon whole.
            for job in more.into_iter().rev() {
                left.waiting.push_front(job);
            }
        }
        drop(left);
        self.changed.notify_waiters();
    }

    /// A job was done but for `absent`, which this session has not.
    pub(super) fn finish_but(
        &self,
        number: u64,
        session: u64,
        absent: &[Wanted],
        mut more: Vec<Job>,
    ) {
        let mut left = lock(&self.left);
        let Some(run) = left.running.get_mut(&number) else {
            return;
        };
        // Another session may have done some of it meanwhile.
        more.retain(|job| run.job.has_all_of(job));
        run.job.wanted.retain(|wanted| is_in(absent, wanted));
        if run.job.wanted.is_empty() {
            drop(left);
            return self.finish(number, more);
        }
        for job in more.into_iter().rev() {
            left.waiting.push_front(job);
        }
        drop(left);
        self.fail(number, session);
    }

    pub(super) fn fail(&self, number: u64, session: u64) {
        let mut left = lock(&self.left);
        if let Some(run) = left.running.get_mut(&number) {
            run.job.failed.insert(session);
            run.sessions.remove(&session);
            if run.sessions.is_empty()
                && let Some(run) = left.running.remove(&number)
            {
                left.waiting.push_back(run.job);
            }
        }
        drop(left);
        self.changed.notify_waiters();
    }

    /// A session that could not do some of the jobs may be able to now.
    pub(super) fn forgive(&self, session: u64) {
        let mut left = lock(&self.left);
        for job in &mut left.waiting {
            job.failed.remove(&session);
        }
        for run in left.running.values_mut() {
            run.job.failed.remove(&session);
        }
        drop(left);
        self.changed.notify_waiters();
    }
}
