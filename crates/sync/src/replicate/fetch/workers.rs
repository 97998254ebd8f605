//! Does jobs with all who are connected.

use std::{collections::BTreeMap, sync::Arc};

use bao_tree::ChunkRanges;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use store_api::{Error, Kind, Result};
use store_engine::{Blobs, Hash, Hashed, Pin};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Shared,
    fault::{Blame, Fault, Misconduct, Outcome},
    index::{Change, until},
    missing::{PIECE, first_piece, has, pieces},
    progress::Moved,
    receive::{MAX_FILE_LEN, Opened, Received, Receiver, add},
    scheduler::{Job, Named, SLOW, Take, Wanted, Work},
    session::Session,
    status::Request,
    wire::{GET, Get},
};
use crate::{
    groups::Repo,
    seal,
    tree::{
        MALFORMED,
        page::{MAX_ITEMS, MAX_PAGE_LEN},
        walk::children,
    },
};

/// The longest sequence of a page: its own hash, and one for each item.
const MAX_SEQUENCE_LEN: u64 = 32 * (1 + MAX_ITEMS as u64);
/// The longest sealed page.
const MAX_SEALED_LEN: u64 = (MAX_PAGE_LEN + seal::page::OVERHEAD) as u64;
/// How many requests for files run on one session at a time.
const TOGETHER: usize = 4;
/// How many requests for pages: each is short, and who waits for them waits for a round trip.
const PAGES_TOGETHER: usize = 16;
/// How many small blobs of a request are added at a time.
const ADDING: usize = 64;

/// What came of a job.
#[derive(Default)]
struct Done {
    /// Long files, of which more is to be asked for, and how long they are.
    longer: Vec<(Named, u64)>,
    /// What the peer has not.
    absent: Vec<Wanted>,
    /// What the peer was not asked for in the end: its answer ended before.
    left: Vec<Wanted>,
    /// Keeps what came.
    pins: Vec<Pin>,
}

/// What came of jobs.
#[derive(Default)]
pub(super) struct Ran {
    /// Keeps what came.
    pub(super) pins: Vec<Pin>,
    /// Whether nobody who is connected can do what is left.
    pub(super) is_given_up: bool,
}

impl Shared {
    /// Does jobs with all sessions of the group, until all are done or nobody can do what is left.
    pub(super) async fn run(&self, repo: &Repo, jobs: Vec<Job>, moved: &Arc<Moved>) -> Result<Ran> {
        let Some(top) = jobs.first().map(|job| job.chain[0]) else {
            return Ok(Ran::default());
        };
        let work = Work::new(jobs);
        let done = self.run_all(&work, repo, top, moved).await;
        let finished = work.opened.finish().await;
        let pins = done.and_then(|pins| finished.map(|()| pins))?;
        Ok(Ran {
            pins,
            is_given_up: !work.is_done(),
        })
    }

    async fn run_all(
        &self,
        work: &Work,
        repo: &Repo,
        top: Hash,
        moved: &Arc<Moved>,
    ) -> Result<Vec<Pin>> {
        let together = match work.is_of_pages() {
            true => PAGES_TOGETHER,
            false => TOGETHER,
        };
        let mut pins = Vec::new();
        let mut workers: FuturesUnordered<BoxFuture<'_, (u64, Result<Vec<Pin>>)>> =
            FuturesUnordered::new();
        // How many work on each session, and what each has said that it has of the tree.
        let mut at_work: BTreeMap<u64, usize> = BTreeMap::new();
        let mut holders = BTreeMap::new();
        let mut changes = self.changes.subscribe();
        loop {
            for session in self.sessions.of(repo.group().id()) {
                let is_new = !at_work.contains_key(&session.id);
                let count = at_work.entry(session.id).or_default();
                let holds = session.holds(repo.key()).filter(|holds| holds.root == top);
                let has_it_now =
                    holds.is_some_and(|holds| holders.insert(session.id, holds) != Some(holds));
                if has_it_now && !is_new {
                    // It was asked before it had it.
                    work.forgive(session.id);
                }
                if has_it_now || is_new {
                    for _ in *count..together {
                        let (id, session) = (session.id, Arc::clone(&session));
                        let working = self.work(work, session, repo, moved);
                        workers.push(Box::pin(async move { (id, working.await) }));
                    }
                    *count = together;
                }
            }
            if work.is_done() {
                return Ok(pins);
            }
            if workers.is_empty() {
                tracing::debug!(repo = %repo.key(), "nobody who is connected can give what is missing");
                return Ok(pins);
            }
            tokio::select! {
                biased;
                Some((session, ended)) = workers.next() => {
                    pins.extend(ended?);
                    if let Some(count) = at_work.get_mut(&session) {
                        *count -= 1;
                    }
                }
                // Somebody came, or has more of it.
                () = until(&mut changes, |change| match change {
                    Change::Session { group } => group == repo.group().id(),
                    Change::Holding { group, repo: of } => {
                        group == repo.group().id() && of == repo.key()
                    }
                    _ => false,
                }) => {}
            }
        }
    }

    /// Does jobs on one session until there are none for it.
    async fn work(
        &self,
        work: &Work,
        session: Arc<Session>,
        repo: &Repo,
        moved: &Arc<Moved>,
    ) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        loop {
            let changed = work.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = match work.take(session.id) {
                Take::Job(number, job, other) => (number, job, other),
                Take::Wait => {
                    drop(tokio::time::timeout(SLOW, changed).await);
                    continue;
                }
                Take::Nothing => return Ok(pins),
            };
            let (number, job, over) = taken;
            let done = tokio::select! {
                biased;
                // Somebody else was faster.
                () = over.notified() => continue,
                done = self.do_job(&job, &session, repo, &work.opened, moved) => done,
            };
            match done {
                Ok(done) => {
                    pins.extend(done.pins);
                    let rest = ChunkRanges::all() - first_piece();
                    let more = done.longer.iter();
                    let more = more.flat_map(|(file, size)| pieces(&job.chain, file, *size, &rest));
                    let mut more: Vec<Job> = more.collect();
                    more.extend(job.of(done.left));
                    match done.absent.is_empty() {
                        true => work.finish(number, more),
                        false => work.finish_but(number, session.id, &done.absent, more),
                    }
                }
                Err(fault) => {
                    work.fail(number, session.id);
                    match fault {
                        // Nobody else can help either.
                        Fault::Local(error) => return Err(error),
                        Fault::Peer(Misconduct::Lacks, _) => {}
                        fault => {
                            self.blame(&session.link, &fault);
                            return Ok(pins);
                        }
                    }
                }
            }
        }
    }

    async fn do_job(
        &self,
        job: &Job,
        session: &Session,
        repo: &Repo,
        opened: &Opened,
        moved: &Arc<Moved>,
    ) -> Outcome<Done> {
        let (group, blobs) = (repo.group(), repo.group().blobs());
        let page = *job.chain.last().expect("a chain has a page");
        let mut wanted = job.wanted.clone();
        if job.is_tried() && !job.is_page {
            wanted = lacking(blobs, wanted).await.local()?;
            if wanted.is_empty() {
                return Ok(Done::default());
            }
        }
        let ranges = wanted
            .iter()
            .map(|wanted| (wanted.file.offset, wanted.ranges.clone()));
        let get = Get {
            group: group.id(),
            repo: repo.key(),
            chain: job.chain.clone(),
            ranges: match job.is_page {
                true => vec![(0, ChunkRanges::all()), (1, ChunkRanges::all())],
                false => ranges.collect(),
            },
        };
        let running = self.requests.begin(
            Request {
                group: group.id(),
                repo: repo.key(),
                page,
                file: None,
                peer: session.link.connection.peer(),
                bytes: 0,
                since: Instant::now(),
            },
            (!job.is_page).then(|| Arc::clone(moved)),
            wanted.first().and_then(|wanted| wanted.file.coming.clone()),
        );
        let mut receiver = Receiver::ask(&session.link, GET, &get).await?;
        let mut done = Done::default();
        if job.is_page {
            let all = ChunkRanges::all();
            let first = receiver
                .next(blobs, page, &all, MAX_SEQUENCE_LEN, &running, None)
                .await?;
            let sealed = match &first {
                Received::Small(bytes) => bytes.first_chunk::<32>().map(|hash| Hash::from(*hash)),
                Received::Stored { .. } => {
                    let named = children(blobs, page, 0).await.local()?;
                    named.first().map(|child| child.hash)
                }
                Received::Absent => return Err(Fault::lacks()),
            };
            // What its owner made of it is not the peer's fault.
            let sealed = sealed.ok_or_else(|| {
                let error = Error::new(Kind::Corrupt, MALFORMED, "the page has no content");
                Fault::Local(error.with("page", page))
            })?;
            let second = receiver
                .next(blobs, sealed, &all, MAX_SEALED_LEN, &running, None)
                .await?;
            match (first, second) {
                // Both in one commit.
                (Received::Small(first), Received::Small(second)) => {
                    let both = vec![Hashed::new(second), Hashed::new(first)];
                    done.pins.extend(blobs.add_all(both).await.local()?);
                }
                (first, second) => {
                    done.pins.extend(keep(blobs, first).await?);
                    done.pins.extend(keep(blobs, second).await?);
                }
            }
            return Ok(done);
        }
        let opened = job.is_piece.then_some(opened);
        let mut adding: JoinSet<Result<Pin>> = JoinSet::new();
        let mut ended = Ok(());
        let mut wanted = wanted.into_iter();
        for wanted in wanted.by_ref() {
            let (file, ranges) = (&wanted.file, &wanted.ranges);
            let longest = file.len.unwrap_or(MAX_FILE_LEN).min(MAX_FILE_LEN);
            match receiver
                .next(blobs, file.hash, ranges, longest, &running, opened)
                .await
            {
                Ok(Received::Small(bytes)) => {
                    let blobs = blobs.clone();
                    adding.spawn(async move { add(&blobs, bytes).await });
                    if adding.len() >= ADDING
                        && let Some(added) = adding.join_next().await
                    {
                        done.pins.push(joined(added).local()?);
                    }
                    moved.file_is_here();
                }
                Ok(Received::Stored { size, _pin }) => {
                    done.pins.extend(_pin);
                    if size > PIECE && ranges.is_subset(&first_piece()) {
                        done.longer.push((wanted.file, size));
                    } else if has(blobs, file.hash, &ChunkRanges::all()).await.local()? {
                        moved.file_is_here();
                    }
                }
                // The next may be there.
                Ok(Received::Absent) => done.absent.push(wanted),
                // The answer ended within this file, which the peer may not be able to read.
                Err(Fault::Link(error)) if session.link.connection_lives() => {
                    tracing::debug!(hash = %file.hash, %error, "a peer stopped giving a file");
                    done.absent.push(wanted);
                    break;
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        done.left = wanted.collect();
        while let Some(added) = adding.join_next().await {
            done.pins.push(joined(added).local()?);
        }
        ended.map(|()| done)
    }
}

/// What of this is not here by now.
async fn lacking(blobs: &Blobs, wanted: Vec<Wanted>) -> Result<Vec<Wanted>> {
    let mut lacking = Vec::new();
    for wanted in wanted {
        if !has(blobs, wanted.file.hash, &wanted.ranges).await? {
            lacking.push(wanted);
        }
    }
    Ok(lacking)
}

fn joined(added: std::result::Result<Result<Pin>, tokio::task::JoinError>) -> Result<Pin> {
    added
        .map_err(|error| Error::new(Kind::Internal, "sync.fetch", "a task failed").because(error))?
}

async fn keep(blobs: &Blobs, received: Received) -> Outcome<Option<Pin>> {
    match received {
        Received::Small(bytes) => add(blobs, bytes).await.map(Some).local(),
        Received::Stored { _pin, .. } => Ok(_pin),
        Received::Absent => Err(Fault::lacks()),
    }
}
