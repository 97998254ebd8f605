//! Fetches the trees that records name: level by level, from everybody who has them at once.
//!
//! Each level is a number of jobs, one for each page, or for some files of a page; long files are
//! pieces of [`PIECE`]. Each session takes jobs as fast as it can do them. A job that failed goes to
//! another session; towards the end, those who are idle also take what others are slow with.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bao_tree::{ChunkNum, ChunkRanges};
use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use store_api::{Error, Kind, PublicKey, RecordId, Result};
use store_engine::{Blobs, Hash, Pin, Status};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    PATIENCE, Policy, Shared, is_lie, is_stall, lock,
    receive::{MAX_FILE_LEN, Opened, Received, Receiver, add},
    session::Session,
    wire::Get,
};
use crate::{
    groups::{Event, Group, Repo},
    seal,
    tree::{
        FileEntry, Name, Root,
        page::{MAX_ITEMS, MAX_PAGE_LEN},
        walk::{Part, children},
    },
};

/// The longest piece of a file that one request asks for.
const PIECE: u64 = 8 * 1024 * 1024;
/// How many pieces of a file are asked for in one go; what is left then comes in the next.
const MAX_PIECES: usize = 1024;
/// The longest sequence of a page: its own hash, and one for each item.
const MAX_SEQUENCE_LEN: u64 = 32 * (1 + MAX_ITEMS as u64);
/// The longest sealed page.
const MAX_SEALED_LEN: u64 = (MAX_PAGE_LEN + seal::page::OVERHEAD) as u64;
/// How many files of a page one request asks for.
const FILES: usize = 64;
/// How many requests for files run on one session at a time.
const TOGETHER: usize = 4;
/// How many requests for pages: each is short, and who waits for them waits for a round trip.
const PAGES_TOGETHER: usize = 16;
/// How many small blobs of a request are added at a time.
const ADDING: usize = 64;
/// How many repos are fetched at a time.
const REPOS: usize = 16;
/// After how long more than two sessions do the same: who is slow on purpose must not be able to keep a job
/// to itself.
const SLOW: Duration = PATIENCE;
/// How often it is looked in vain whether more of the files of a level is here: all of them is, the first
/// time, unless one is very long or somebody lied about how long one is.
const ROUNDS: usize = 4;
/// How long to wait after nobody could give what is missing.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before a tree that could not be fetched is tried again, if nothing happens.
const AGAIN: Duration = Duration::from_secs(5);

/// Pages from the root down to one.
type Chain = Vec<Hash>;

/// Something to ask for.
#[derive(Debug, Clone)]
struct Job {
    chain: Chain,
    /// Offset below the last page, hash, and what of it.
    wanted: Vec<(u64, Hash, ChunkRanges)>,
    /// Whether it begins with the page itself, whose first child comes with it.
    is_page: bool,
    /// Whether it is for one piece of a long file.
    is_piece: bool,
    /// The sessions that could not do it.
    failed: BTreeSet<u64>,
}

/// What came of a job.
#[derive(Default)]
struct Done {
    /// Long files, of which more is to be asked for: offset, hash and length.
    longer: Vec<(u64, Hash, u64)>,
    /// Keeps what came.
    pins: Vec<Pin>,
}

impl Shared {
    /// Fetches whatever of the newest trees is not here, for ever.
    pub(super) async fn fetch_all(self: Arc<Self>) {
        let mut fetching: FuturesUnordered<BoxFuture<'static, RecordId>> = FuturesUnordered::new();
        let mut under_way = BTreeSet::new();
        let (mut tried, mut turns) = (BTreeMap::new(), 0_u64);
        loop {
            let stirred = self.stirred.notified();
            let mut all = self.to_fetch().await;
            // Who has waited longest is next, so that those whom nobody can give hold up no others.
            tried.retain(|id, _| all.iter().any(|(_, repo)| repo.id() == *id));
            all.sort_by_key(|(_, repo)| tried.get(&repo.id()).copied());
            for (group, repo) in all {
                if under_way.len() < REPOS && under_way.insert(repo.id()) {
                    turns += 1;
                    tried.insert(repo.id(), turns);
                    let shared = Arc::clone(&self);
                    fetching.push(Box::pin(async move {
                        shared.fetch_repo(&group, &repo).await;
                        repo.id()
                    }));
                }
            }
            tokio::select! {
                biased;
                Some(repo) = fetching.next() => {
                    under_way.remove(&repo);
                }
                () = stirred => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// The repos whose newest trees are not here, of groups that somebody is connected for. What is
    /// wrong with one holds up no other: its owner may have written what is no root.
    async fn to_fetch(&self) -> Vec<(Group, Repo)> {
        let mut all = Vec::new();
        for group in self.groups.groups() {
            if self.sessions_of(group.id()).is_empty() {
                continue;
            }
            let repos = match group.repos().await {
                Ok(repos) => repos,
                Err(error) => {
                    tracing::warn!(group = %group.id(), %error, "a group cannot be read");
                    continue;
                }
            };
            for repo in repos {
                match repo.is_behind(self.options.policy).await {
                    Ok(true) => all.push((group.clone(), repo)),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(repo = %repo.key(), %error, "a repo has no root"),
                }
            }
        }
        all
    }

    async fn fetch_repo(&self, group: &Group, repo: &Repo) {
        let fetched = async {
            if repo.is_ours() {
                return self.fetch_other(group, repo).await;
            }
            match repo.readable_root().await? {
                Some(known) => self.fetch_root(group, repo, known.root).await,
                None => Ok(()),
            }
        };
        match fetched.await {
            Ok(()) => {}
            // Somebody else may have it later.
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::NotFound) => {
                tracing::debug!(repo = %repo.key(), %error, "a tree could not be fetched yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(repo = %repo.key(), %error, "a tree could not be fetched");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Fetches what of a tree is not here, and makes it the one that is held.
    async fn fetch_root(&self, group: &Group, repo: &Repo, root: Root) -> Result<()> {
        let inner = &self.groups.0;
        let held = inner.held(repo.id()).await?;
        let whole = inner.whole(repo.id()).await?;
        let old = match self.options.policy {
            Policy::Names => held,
            Policy::Everything if held.hash == whole.hash => held,
            // Only names came before: of every page it is looked which files are missing.
            Policy::Everything => Root::EMPTY,
        };
        if self.options.policy == Policy::Names && whole.hash != root.hash {
            // From now on nothing keeps those files.
            inner.forget_whole(repo.id()).await?;
        }
        let turn = repo.turn().await;
        if group.is_ours(repo.id()) {
            // It became ours just now.
            return Ok(());
        }
        // From now on what comes stays, also over a restart.
        repo.keep(root).await?;
        // What came of roots in between, which were never whole, goes.
        repo.keep_only(&[held, root]).await?;
        drop(turn);
        if !root.is_empty() {
            self.fetch_tree(group, repo, root, old).await?;
        }
        let turn = repo.turn().await;
        if group.is_ours(repo.id()) {
            return Ok(());
        }
        inner.keep_held(repo.id(), root).await?;
        if self.options.policy == Policy::Everything {
            inner.keep_whole(repo.id(), root).await?;
        }
        repo.keep_only(&[root]).await?;
        drop(turn);
        inner.tell(Event::Held {
            group: group.id(),
            repo: repo.id(),
        });
        Ok(())
    }

    /// Fetches what of another device's tree is not here, and goes on from both.
    async fn fetch_other(&self, group: &Group, repo: &Repo) -> Result<()> {
        let Some(other) = repo.other().await? else {
            return Ok(());
        };
        let root = other.root.root;
        // Also if a newer one comes meanwhile, whose tree is then kept in its place.
        let _pin = group.blobs().pin(root.keep()).await;
        let ours = {
            let turn = repo.turn().await;
            repo.keep_both(&turn).await?
        };
        if !root.is_empty() {
            self.fetch_tree(group, repo, root, ours).await?;
        }
        repo.settle(&other).await?;
        self.groups.0.tell(Event::Held {
            group: group.id(),
            repo: repo.id(),
        });
        Ok(())
    }

    /// Fetches what of a tree is not here, as far as the policy wants it. All of `held` is here so far.
    async fn fetch_tree(&self, group: &Group, repo: &Repo, root: Root, held: Root) -> Result<()> {
        let blobs = group.blobs();
        let mut new: Vec<Chain> = Vec::new();
        let mut old: HashSet<Hash> = HashSet::new();
        let mut pins = Vec::new();
        for level in (0..=root.level.max(held.level)).rev() {
            if level == root.level {
                new.push(vec![root.hash]);
            }
            if level == held.level && !held.is_empty() {
                old.insert(held.hash);
            }
            let last = |chain: &Chain| *chain.last().expect("a chain has a page");
            let shared: HashSet<Hash> = new
                .iter()
                .map(last)
                .filter(|hash| old.contains(hash))
                .collect();
            new.retain(|chain| !shared.contains(&last(chain)));
            old.retain(|hash| !shared.contains(hash));

            let mut jobs = Vec::new();
            for chain in &new {
                let page = last(chain);
                if !is_page_here(blobs, page, level).await? {
                    jobs.push(Job::page(chain.clone(), page));
                }
            }
            pins.extend(self.run(group, repo, jobs).await?);

            let (mut old_below, mut old_files) = (HashSet::new(), HashSet::new());
            for page in std::mem::take(&mut old) {
                let known = match children(blobs, page, level).await {
                    Ok(known) => known,
                    // A page that was damaged and is gone: what is below is looked for one by one.
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                for child in known {
                    match child.part {
                        Part::Sequence { .. } => drop(old_below.insert(child.hash)),
                        Part::File => drop(old_files.insert(child.hash)),
                        Part::Page => {}
                    }
                }
            }
            let mut below = Vec::new();
            let mut files = Vec::new();
            for chain in std::mem::take(&mut new) {
                let mut named = Vec::new();
                for (offset, child) in (1..).zip(children(blobs, last(&chain), level).await?) {
                    match child.part {
                        Part::Sequence { .. } => {
                            let mut chain = chain.clone();
                            chain.push(child.hash);
                            below.push(chain);
                        }
                        Part::File if self.options.policy == Policy::Names => {}
                        Part::File if old_files.contains(&child.hash) => {}
                        Part::File => named.push((offset, child.hash)),
                        Part::Page => {}
                    }
                }
                if let Some(files_of) = Files::missing(blobs, chain, named).await? {
                    files.push(files_of);
                }
            }
            pins.extend(self.fetch_files(group, repo, files).await?);
            (new, old) = (below, old_below);
        }
        drop(pins);
        Ok(())
    }

    /// Fetches what of these files is not here.
    async fn fetch_files(
        &self,
        group: &Group,
        repo: &Repo,
        mut files: Vec<Files>,
    ) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        let mut rounds = 0..ROUNDS;
        let mut least = u64::MAX;
        while !files.is_empty() {
            let left = files.iter().map(Files::left).fold(0, u64::saturating_add);
            if left < least {
                (least, rounds) = (left, 0..ROUNDS);
            } else if rounds.next().is_none() {
                let message = "files are not whole, whoever is asked";
                let error = Error::new(Kind::Unavailable, "sync.fetch", message);
                return Err(error.with("repo", repo.key()));
            }
            let jobs = files.iter().flat_map(Files::jobs).collect();
            pins.extend(self.run(group, repo, jobs).await?);
            let mut left = Vec::new();
            for known in files {
                let named = known
                    .missing
                    .into_iter()
                    .map(|(offset, hash, _)| (offset, hash));
                left.extend(Files::missing(group.blobs(), known.chain, named).await?);
            }
            files = left;
        }
        Ok(pins)
    }

    /// Fetches one file of the tree that reads see, and says what is said of it.
    pub(super) async fn fetch_file(&self, repo: &Repo, path: &str) -> Result<FileEntry> {
        const OPERATION: &str = "sync.read";
        let group = repo.group();
        let (tree, root) = (group.tree(OPERATION)?, repo.root().await?);
        // It may be replaced meanwhile.
        let _tree = group.blobs().pin(root.keep()).await;
        let located = tree.locate(root, &Name::new(path)?).await?;
        let (chain, offset, entry) = located.ok_or_else(|| {
            Error::new(Kind::NotFound, OPERATION, "there is no such file")
                .with("path", path.escape_debug())
        })?;
        let named = [(offset, entry.blob)];
        let missing = Files::missing(group.blobs(), chain, named).await?;
        // From now on the tree keeps it.
        let files = missing.into_iter().collect();
        drop(self.fetch_files(group, repo, files).await?);
        Ok(entry)
    }

    /// Does jobs with all sessions of the group, until all are done. [`Kind::Unavailable`] where
    /// nobody can do what is left.
    async fn run(&self, group: &Group, repo: &Repo, jobs: Vec<Job>) -> Result<Vec<Pin>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let work = Work {
            left: Mutex::new(Left {
                waiting: jobs.into(),
                running: BTreeMap::new(),
                next: 0,
            }),
            changed: Notify::new(),
            opened: Opened::default(),
        };
        let done = self.run_all(&work, group, repo).await;
        let finished = work.opened.finish().await;
        done.and_then(|pins| finished.map(|()| pins))
    }

    async fn run_all(&self, work: &Work, group: &Group, repo: &Repo) -> Result<Vec<Pin>> {
        let together = match work.is_of_pages() {
            true => PAGES_TOGETHER,
            false => TOGETHER,
        };
        let mut pins = Vec::new();
        let mut workers: FuturesUnordered<BoxFuture<'_, Result<Vec<Pin>>>> =
            FuturesUnordered::new();
        let mut known = BTreeSet::new();
        loop {
            let stirred = self.stirred.notified();
            for session in self.sessions_of(group.id()) {
                if known.insert(session.id) {
                    for _ in 0..together {
                        let session = Arc::clone(&session);
                        workers.push(Box::pin(self.work(work, session, group, repo)));
                    }
                }
            }
            if work.is_done() {
                return Ok(pins);
            }
            if workers.is_empty() {
                let message = "nobody who is connected can give what is missing";
                return Err(
                    Error::new(Kind::Unavailable, "sync.fetch", message).with("repo", repo.key())
                );
            }
            tokio::select! {
                biased;
                Some(ended) = workers.next() => pins.extend(ended?),
                () = stirred => {}
            }
        }
    }

    /// Does jobs on one session until there are none for it.
    async fn work(
        &self,
        work: &Work,
        session: Arc<Session>,
        group: &Group,
        repo: &Repo,
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
                done = self.do_job(&job, &session, group, repo.key(), &work.opened) => done,
            };
            match done {
                Ok(done) => {
                    pins.extend(done.pins);
                    let rest = ChunkRanges::all() - first_piece();
                    let more = done.longer.iter();
                    let more = more.flat_map(|long| pieces(&job.chain, *long, &rest));
                    work.finish(number, more.collect());
                }
                Err(error) => {
                    work.fail(number, session.id);
                    match error.kind() {
                        // Our own disk's errors are not the peer's.
                        Kind::Full | Kind::Corrupt | Kind::Closed | Kind::Internal => {
                            if session.link.connection_lives() {
                                return Err(error);
                            }
                            return Ok(pins);
                        }
                        Kind::NotFound => {}
                        _ if is_lie(&error) => {
                            self.avoid_peer(&session.link, &error);
                            return Ok(pins);
                        }
                        _ if is_stall(&error) => {
                            self.give_up(&session.link, &error);
                            return Ok(pins);
                        }
                        _ => return Ok(pins),
                    }
                }
            }
        }
    }

    async fn do_job(
        &self,
        job: &Job,
        session: &Session,
        group: &Group,
        repo: PublicKey,
        opened: &Opened,
    ) -> Result<Done> {
        let blobs = group.blobs();
        let page = *job.chain.last().expect("a chain has a page");
        let peer = session.link.connection.peer();
        let running = self.requests.begin(group.id(), page, peer);
        let mut ranges: Vec<_> = job
            .wanted
            .iter()
            .map(|(offset, _, ranges)| (*offset, ranges.clone()))
            .collect();
        if job.is_page {
            ranges = vec![(0, ChunkRanges::all()), (1, ChunkRanges::all())];
        }
        let get = Get {
            group: group.id(),
            repo,
            chain: job.chain.clone(),
            ranges,
        };
        let mut receiver = Receiver::ask(&session.link, &get).await?;
        let mut done = Done::default();
        if job.is_page {
            let all = ChunkRanges::all();
            let first = receiver
                .next(blobs, page, &all, MAX_SEQUENCE_LEN, &running, None)
                .await?;
            done.pins.extend(keep(blobs, first).await?);
            let sealed = children(blobs, page, 0).await?;
            let sealed = sealed.first().map(|child| child.hash).ok_or_else(|| {
                Error::new(Kind::Invalid, "sync.fetch", "the page is none").with("page", page)
            })?;
            let second = receiver
                .next(blobs, sealed, &all, MAX_SEALED_LEN, &running, None)
                .await?;
            done.pins.extend(keep(blobs, second).await?);
            return Ok(done);
        }
        let opened = job.is_piece.then_some(opened);
        let mut adding: JoinSet<Result<Pin>> = JoinSet::new();
        let mut ended = Ok(());
        for (offset, hash, ranges) in &job.wanted {
            match receiver
                .next(blobs, *hash, ranges, MAX_FILE_LEN, &running, opened)
                .await
            {
                Ok(Received::Small(bytes)) => {
                    let blobs = blobs.clone();
                    adding.spawn(async move { add(&blobs, bytes).await });
                    if adding.len() >= ADDING
                        && let Some(added) = adding.join_next().await
                    {
                        done.pins.push(joined(added)?);
                    }
                }
                Ok(Received::Stored { size, _pin }) => {
                    done.pins.extend(_pin);
                    if size > PIECE && ranges.is_subset(&first_piece()) {
                        done.longer.push((*offset, *hash, size));
                    }
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        while let Some(added) = adding.join_next().await {
            done.pins.push(joined(added)?);
        }
        ended.map(|()| done)
    }
}

/// The files of a page of which something is not here.
struct Files {
    chain: Chain,
    /// Offset below the page, hash, and what of it.
    missing: Vec<(u64, Hash, Missing)>,
}

impl Files {
    /// Those of `named` that are not whole; `None` where all are.
    async fn missing(
        blobs: &Blobs,
        chain: Chain,
        named: impl IntoIterator<Item = (u64, Hash)>,
    ) -> Result<Option<Self>> {
        let mut found = stream::iter(named)
            .map(|(offset, hash)| async move {
                missing_of(blobs, hash)
                    .await
                    .map(|of_file| (offset, hash, of_file))
            })
            .buffered(FILES);
        let mut missing = Vec::new();
        while let Some((offset, hash, of_file)) = found.try_next().await? {
            missing.extend(of_file.map(|of_file| (offset, hash, of_file)));
        }
        drop(found);
        Ok((!missing.is_empty()).then_some(Self { chain, missing }))
    }

    /// How many chunks are missing, as far as that is known.
    fn left(&self) -> u64 {
        let of_file = |missing: &Missing| match missing {
            Missing::All => u64::MAX / 2,
            Missing::Of(_, ranges) => ranges
                .boundaries()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[start, end]| end.0 - start.0)
                .sum(),
        };
        let left = self.missing.iter().map(|(_, _, missing)| of_file(missing));
        left.fold(0, u64::saturating_add)
    }

    fn jobs(&self) -> Vec<Job> {
        let (mut jobs, mut new) = (Vec::new(), Vec::new());
        for (offset, hash, missing) in &self.missing {
            match missing {
                Missing::All => new.push((*offset, *hash, first_piece())),
                Missing::Of(size, ranges) => {
                    jobs.extend(pieces(&self.chain, (*offset, *hash, *size), ranges));
                }
            }
        }
        let new = new.chunks(FILES);
        jobs.extend(new.map(|wanted| Job::files(self.chain.clone(), wanted.to_vec())));
        jobs
    }
}

fn joined(added: std::result::Result<Result<Pin>, tokio::task::JoinError>) -> Result<Pin> {
    added
        .map_err(|error| Error::new(Kind::Internal, "sync.fetch", "a task failed").because(error))?
}

async fn keep(blobs: &Blobs, received: Received) -> Result<Option<Pin>> {
    match received {
        Received::Small(bytes) => add(blobs, bytes).await.map(Some),
        Received::Stored { _pin, .. } => Ok(_pin),
    }
}

fn first_piece() -> ChunkRanges {
    ChunkRanges::from(..ChunkNum(PIECE / 1024))
}

async fn is_here(blobs: &Blobs, hash: Hash) -> Result<bool> {
    let status = blobs.status(hash).await?;
    Ok(hash == Hash::EMPTY || matches!(status, Some(Status::Complete { .. })))
}

/// Whether a page and its sealed page are here.
async fn is_page_here(blobs: &Blobs, page: Hash, level: u8) -> Result<bool> {
    if !is_here(blobs, page).await? {
        return Ok(false);
    }
    match children(blobs, page, level).await?.first() {
        Some(sealed) => is_here(blobs, sealed.hash).await,
        None => Ok(true),
    }
}

/// What of a file's blob is not here.
enum Missing {
    /// All of it; the first piece says how long it is.
    All,
    /// Of so many bytes these chunks.
    Of(u64, ChunkRanges),
}

async fn missing_of(blobs: &Blobs, hash: Hash) -> Result<Option<Missing>> {
    if hash == Hash::EMPTY {
        return Ok(None);
    }
    Ok(match blobs.status(hash).await? {
        Some(Status::Complete { .. }) => None,
        Some(Status::Partial { size, .. }) => {
            let field = blobs.bitfield(hash).await?;
            let all = ChunkRanges::from(..ChunkNum(size.div_ceil(1024)));
            Some(Missing::Of(size, all - field.ranges.clone()))
        }
        None => Some(Missing::All),
    })
}

/// Jobs for these chunks of a long file, one a piece.
fn pieces(chain: &Chain, wanted: (u64, Hash, u64), missing: &ChunkRanges) -> Vec<Job> {
    let (offset, hash, size) = wanted;
    let mut jobs = Vec::new();
    for start in (0..size).step_by(PIECE as usize) {
        let end = (start + PIECE).min(size);
        let piece = ChunkRanges::from(ChunkNum(start / 1024)..ChunkNum(end.div_ceil(1024)));
        let ranges = &piece & missing;
        if jobs.len() >= MAX_PIECES {
            break;
        }
        if !ranges.is_empty() {
            jobs.push(Job {
                is_piece: true,
                ..Job::files(chain.clone(), vec![(offset, hash, ranges)])
            });
        }
    }
    jobs
}

impl Job {
    fn page(chain: Chain, page: Hash) -> Self {
        Self {
            chain,
            wanted: vec![(0, page, ChunkRanges::all())],
            is_page: true,
            is_piece: false,
            failed: BTreeSet::new(),
        }
    }

    fn files(chain: Chain, wanted: Vec<(u64, Hash, ChunkRanges)>) -> Self {
        Self {
            chain,
            wanted,
            is_page: false,
            is_piece: false,
            failed: BTreeSet::new(),
        }
    }
}

/// The jobs of one level.
struct Work {
    left: Mutex<Left>,
    changed: Notify,
    opened: Opened,
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

enum Take {
    Job(u64, Job, Arc<Notify>),
    /// There may be something later.
    Wait,
    /// There will be nothing for this session.
    Nothing,
}

impl Work {
    /// Whether the jobs are for pages; those of one level are all of one kind.
    fn is_of_pages(&self) -> bool {
        lock(&self.left)
            .waiting
            .front()
            .is_some_and(|job| job.is_page)
    }

    fn is_done(&self) -> bool {
        let left = lock(&self.left);
        left.waiting.is_empty() && left.running.is_empty()
    }

    fn take(&self, session: u64) -> Take {
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

    fn finish(&self, number: u64, more: Vec<Job>) {
        let mut left = lock(&self.left);
        if let Some(run) = left.running.remove(&number) {
            run.over.notify_waiters();
            // First, so that a file that was begun is soon whole.
            for job in more.into_iter().rev() {
                left.waiting.push_front(job);
            }
        }
        drop(left);
        self.changed.notify_waiters();
    }

    fn fail(&self, number: u64, session: u64) {
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
}
