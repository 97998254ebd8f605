//! Fetches the trees that records name, level by level, from all members that have them at once.
//!
//! The engine fetches each level of pages with one [fetch](larder_store_engine::fetch), and all files
//! with another one.

mod attempts;
mod everything;
mod member;
mod missing;
mod tree;

use std::sync::Arc;

use larder_store_api::{Durability, PublicKey, RecordId, Result};
use larder_store_engine::{Hash, Repair};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use self::attempts::{AT_THE_LATEST, Attempts, Tried};
pub(super) use self::missing::has;
use self::progress::Transferred;
use super::{
    PATIENCE, Shared, fault,
    index::{self, Behind, Change, until},
    lock, progress, receive, session, status, wire,
};
use crate::{
    groups::{
        Event, Group, Holding, Repo, Wants,
        local_trees::{Place, Settled},
    },
    records::{self, FIRST_ROUTE},
    tree::{MALFORMED, Root},
};

/// The number of repos that are fetched at a time.
const REPOS: usize = 16;

/// The most missing bytes of files for which a new tree's names wait, so that both are shown together.
const SOON: u64 = 256 * 1024;

/// The pages on the path from the root down to one page.
type Chain = Vec<Hash>;

fn last(chain: &Chain) -> Hash {
    *chain.last().expect("a chain has a page")
}

/// The outcome of fetching a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// All that is wanted is here.
    All,
    /// Some of it could not be provided by any connected member.
    Some,
    /// Something changed meanwhile: the fetch must be repeated.
    Again,
}

impl Shared {
    /// Fetches whatever is missing of the newest trees, for ever.
    pub(super) async fn fetch_all(self: Arc<Self>) {
        // Each runs in a task of its own: it may hold the turn of a repo that this loop waits for.
        let mut fetching: JoinSet<(RecordId, Fetched)> = JoinSet::new();
        let mut attempts = Attempts::new();
        let mut changes = self.changes.subscribe();
        loop {
            // Wait for the index, so that a repo that was just fetched no longer counts as behind.
            self.caught_up().await;
            let mut all = self.to_fetch();
            attempts.retain(|id| {
                let mut all = all.iter();
                all.any(|(group, repo, _)| records::repo_id(group.id(), *repo) == id)
            });
            let now = Instant::now();
            let mut next = now + AT_THE_LATEST;
            all.retain(|(group, repo, tried)| {
                let due = attempts.due(records::repo_id(group.id(), *repo), tried);
                let is_due = due.is_some_and(|at| at <= now);
                if let Some(at) = due.filter(|_| !is_due) {
                    next = next.min(at);
                }
                is_due
            });
            // The repo that has waited longest is next, so that repos that nobody can provide do not
            // hold up others.
            all.sort_by_key(|(group, repo, _)| attempts.turn(records::repo_id(group.id(), *repo)));
            for (group, repo, tried) in all {
                if attempts.count_running() >= REPOS {
                    break;
                }
                let id = records::repo_id(group.id(), repo);
                attempts.begin(id, tried);
                let shared = Arc::clone(&self);
                fetching.spawn(async move { (id, shared.fetch_repo(&group, repo).await) });
            }
            let is_of_fetching = |change| {
                !matches!(change, Change::Peer { .. })
                    && !matches!(change, Change::Record { slot, .. } if slot >= FIRST_ROUTE)
            };
            tokio::select! {
                biased;
                Some(ended) = fetching.join_next() => match ended.map_err(JoinError::try_into_panic) {
                    Ok((repo, fetched)) => attempts.end(repo, fetched),
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down.
                    Err(Err(_)) => return,
                },
                () = until(&mut changes, is_of_fetching) => {
                    self.give_up_all_damaged().await;
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Returns the repos whose newest trees are incomplete, in groups that have a connected member.
    fn to_fetch(&self) -> Vec<(Group, PublicKey, Tried)> {
        let mut all = Vec::new();
        for group in self.groups.groups() {
            let sessions = self.sessions.of(group.id());
            if sessions.is_empty() {
                continue;
            }
            let behind = self.index.look(group.id(), |index| {
                let repos = index.repos.iter();
                let behind = repos.filter_map(|(key, repo)| Some((*key, repo.behind?)));
                behind.collect::<Vec<_>>()
            });
            for (repo, behind) in behind.unwrap_or_default() {
                let holders = sessions.iter();
                let holders = holders.map(|session| (session.id, session.holds(repo)));
                let tried = Tried {
                    behind,
                    holders: holders.collect(),
                };
                all.push((group.clone(), repo, tried));
            }
        }
        all
    }

    /// Returns what is missing of a repo; `None` if all that is wanted of it is here.
    pub(super) async fn is_behind(&self, repo: &Repo) -> Result<Option<Behind>> {
        let wants = repo.wants(&self.options.policy).await?;
        let wanted = wants.digest()?;
        let inner = &self.groups.0;
        if repo.is_ours() {
            let root = repo.other().await?.map(|other| other.root.root.hash);
            let is_damaged = inner.damage(repo.id()).await?.is_some();
            return Ok((root.is_some() || is_damaged).then_some(Behind { root, wanted }));
        }
        let Some(known) = repo.readable_root().await? else {
            return Ok(None);
        };
        let local = inner.local(repo.id()).await?;
        let settled = local.settled_for(wanted);
        // An empty tree has nothing to fetch.
        let is_here = local.settled_for == wanted || known.root.is_empty();
        let is_here = is_here
            && settled.root.hash == known.root.hash
            && local.shown.hash == known.root.hash
            && settled.missing.is_empty();
        Ok((!is_here).then_some(Behind {
            root: Some(known.root.hash),
            wanted,
        }))
    }

    /// Marks the unreadable parts of a repo's tree as missing, so that they are fetched, but only if a
    /// connected member says that it has the whole tree.
    async fn give_up_damaged(&self, repo: &Repo, wants: &Wants) -> Result<()> {
        let inner = &self.groups.0;
        let root = repo.settled(wants).await?.root;
        let damaged = inner.damaged.of((repo.group().id(), repo.key()), root.hash);
        let is_whole = |session: &Arc<session::Session>| {
            let holds = session.holds(repo.key());
            holds.is_some_and(|holds| holds.is_all_of(root.hash))
        };
        if damaged.is_empty() || !self.sessions.of(repo.group().id()).iter().any(is_whole) {
            return Ok(());
        }
        let _turn = repo.turn().await;
        for (_, blob) in &damaged {
            tracing::warn!(repo = %repo.key(), %blob, "a damaged blob is fetched again");
            repo.group().blobs().scrub_one(*blob, Repair::Yes).await?;
        }
        if repo.is_ours() {
            inner.keep_damage(repo.id(), &Settled::NOTHING).await?;
        } else {
            let mut local = inner.local(repo.id()).await?;
            local.forget_files();
            inner.keep_local(repo.id(), &local).await?;
        }
        for (_, blob) in &damaged {
            inner.damaged.forget(*blob);
        }
        self.tell_held(repo);
        Ok(())
    }

    /// Marks damaged files as missing if a member may have them.
    async fn give_up_all_damaged(&self) {
        for (group, repo) in self.groups.0.damaged.repos() {
            let given_up = async {
                let Some(group) = self.groups.group(group) else {
                    return Ok(());
                };
                match group.repo(repo).await? {
                    Some(repo) => {
                        let wants = repo.wants(&self.options.policy).await?;
                        self.give_up_damaged(&repo, &wants).await
                    }
                    None => Ok(()),
                }
            };
            if let Err(error) = given_up.await {
                self.troubles.note(Some(group), "repair", &error);
            }
        }
    }

    async fn fetch_repo(&self, group: &Group, repo: PublicKey) -> Fetched {
        let fetched = async {
            let found = group.repo(repo).await?;
            let Some(repo) = &found else {
                return Ok(Fetched::All);
            };
            if repo.is_ours() {
                return self.fetch_ours(group, repo).await;
            }
            let _one = repo.fetching().await;
            match repo.readable_root().await? {
                Some(known) => {
                    let wants = repo.wants(&self.options.policy).await?;
                    self.fetch_root(repo, known.root, &wants).await
                }
                None => Ok(Fetched::All),
            }
        };
        match fetched.await {
            Ok(fetched) => {
                self.troubles.clear(Some(group.id()), "fetch");
                fetched
            }
            // Its owner wrote a malformed tree.
            Err(error) if error.operation() == MALFORMED => {
                tracing::debug!(%repo, %error, "a tree cannot be fetched");
                Fetched::Some
            }
            // No peer is to blame: a peer's fault ends only that peer's part of the fetch.
            Err(error) => {
                self.troubles.note(Some(group.id()), "fetch", &error);
                Fetched::Some
            }
        }
    }

    /// Fetches the missing parts of a tree, shows the tree as soon as its names are here, and remembers
    /// what nobody could provide. Must run once at a time per repo.
    pub(super) async fn fetch_root(
        &self,
        repo: &Repo,
        root: Root,
        wants: &Wants,
    ) -> Result<Fetched> {
        let group = repo.group();
        let inner = &self.groups.0;
        let wanted = wants.digest()?;
        let freed = self.freed();
        let progress = Arc::<Transferred>::default();
        // Whatever a tag names is kept: so it is set when the topmost page is here, and is one.
        let Some(top) = self.fetch_top(repo, root, &progress).await? else {
            let top = Place::of_page(vec![root.hash]);
            self.remember_missing(repo, root, &[top], &[], wants)
                .await?;
            return Ok(Fetched::Some);
        };
        let local = {
            let turn = repo.turn().await;
            if group.is_ours(repo.id()) {
                // The repo became ours just now.
                return Ok(Fetched::Again);
            }
            let local = inner.local(repo.id()).await?;
            let transaction = group.blobs().transaction()?;
            repo.follow_in(&transaction, root).await?;
            // It is durable before anything that is committed after it.
            transaction.commit_with(Durability::OnSync).await?;
            drop(turn);
            local
        };
        drop(top);
        let before = local.settled_for(wanted);
        let mut pages = self.fetch_pages(repo, root, &before, &progress).await?;
        let lost = std::mem::take(&mut pages.missing);
        let files = self
            .missing_files(repo, &mut pages, wants, &progress)
            .await?;
        let bytes = files.iter().map(|files| files.sum().1);
        let is_long = bytes.fold(0, u64::saturating_add) > SOON;
        // If the files arrive soon, they are shown together with the names, in one commit.
        if lost.is_empty() && local.shown != root && is_long {
            let turn = repo.turn().await;
            if group.is_ours(repo.id()) {
                return Ok(Fetched::Again);
            }
            let mut local = inner.local(repo.id()).await?;
            local.shown = root;
            // The blobs that must stay are pinned already.
            inner.keep_local(repo.id(), &local).await?;
            drop(turn);
            self.tell_held(repo);
        }
        let missing = self.fetch_missing(repo, pages, files, &progress).await?;
        let _one = self.freeing.lock().await;
        if freed != self.freed() {
            // The blobs that were checked may be gone by now.
            return Ok(Fetched::Again);
        }
        let _turn = repo.turn().await;
        if group.is_ours(repo.id()) {
            return Ok(Fetched::Again);
        }
        self.remember_missing(repo, root, &lost, &missing, wants)
            .await?;
        if !lost.is_empty() {
            return Ok(Fetched::Some);
        }
        let fetched = match missing.is_empty() {
            true => Fetched::All,
            false => Fetched::Some,
        };
        let mut local = inner.local(repo.id()).await?;
        let before = local.clone();
        local.shown = root;
        if fetched == Fetched::All {
            (local.complete_for, local.complete) = (wanted, root);
        }
        if Settled::fits(&missing) {
            local.settled_for = wanted;
            local.settled = Settled { root, missing };
        }
        if local != before {
            let transaction = group.blobs().transaction()?;
            transaction.edit(inner.local_edit(repo.id(), &local))?;
            repo.keep_only_in(&transaction, &local.roots()).await?;
            transaction.commit().await?;
            self.tell_held(repo);
        }
        Ok(fetched)
    }

    /// Remembers what nobody could provide of a tree, if that is too much to be stored, or includes
    /// pages.
    async fn remember_missing(
        &self,
        repo: &Repo,
        root: Root,
        pages: &[Place],
        files: &[Place],
        wants: &Wants,
    ) -> Result<()> {
        if pages.is_empty() && Settled::fits(files) {
            lock(&self.given_up).remove(&repo.id());
            return Ok(());
        }
        let missing = repo.name_missing(&[pages, files].concat(), wants).await?;
        let mut given_up = lock(&self.given_up);
        if given_up.len() >= progress::MAX_COUNTED {
            given_up.clear();
        }
        given_up.insert(repo.id(), (root.hash, missing));
        Ok(())
    }

    /// Tells peers that more or less of a repo's tree is here than before.
    pub(super) fn tell_held(&self, repo: &Repo) {
        self.groups.0.tell(Event::Held {
            group: repo.group().id(),
            repo: repo.key(),
        });
    }

    /// Fetches what is missing of another own device's tree and merges both, and fetches the damaged
    /// parts of ours.
    async fn fetch_ours(&self, group: &Group, repo: &Repo) -> Result<Fetched> {
        match repo.other().await? {
            Some(_) => self.fetch_other(group, repo).await,
            None => self.fetch_damaged(repo).await,
        }
    }

    async fn fetch_other(&self, group: &Group, repo: &Repo) -> Result<Fetched> {
        let Some(other) = repo.other().await? else {
            return Ok(Fetched::Again);
        };
        let root = other.root.root;
        // Keep it even if a newer one arrives meanwhile, whose tree is then tagged in its place.
        let _pin = group.blobs().pin(root.keep()).await;
        let ours = {
            let turn = repo.turn().await;
            repo.keep_both(&turn).await?
        };
        let freed = self.freed();
        let before = Settled {
            root: ours,
            missing: Vec::new(),
        };
        let progress = Arc::<Transferred>::default();
        let pages = self.fetch_pages(repo, root, &before, &progress).await?;
        if !pages.missing.is_empty() {
            return Ok(Fetched::Some);
        }
        let missing = self.fetch_files_of(repo, pages, &progress).await?;
        let _one = self.freeing.lock().await;
        if freed != self.freed() {
            return Ok(Fetched::Again);
        }
        if !missing.is_empty() {
            // The missing parts are computed again: the merged tree has other pages.
            let nothing = Settled::NOTHING;
            self.groups.0.keep_damage(repo.id(), &nothing).await?;
        }
        repo.settle(&other).await?;
        self.tell_held(repo);
        Ok(Fetched::Again)
    }

    /// Fetches the parts of a repo of ours that were lost here.
    async fn fetch_damaged(&self, repo: &Repo) -> Result<Fetched> {
        let inner = &self.groups.0;
        let Some(before) = inner.damage(repo.id()).await? else {
            return Ok(Fetched::All);
        };
        let root = repo.root().await?;
        let _pin = repo.group().blobs().pin(root.keep()).await;
        let progress = Arc::<Transferred>::default();
        let mut pages = self
            .fetch_pages(repo, root, &Settled::NOTHING, &progress)
            .await?;
        let mut missing = std::mem::take(&mut pages.missing);
        missing.extend(self.fetch_files_of(repo, pages, &progress).await?);
        let _turn = repo.turn().await;
        if repo.root().await? != root {
            return Ok(Fetched::Again);
        }
        if missing.is_empty() {
            inner.forget_damage(repo.id()).await?;
            self.tell_held(repo);
            return Ok(Fetched::All);
        }
        if Settled::fits(&missing) {
            let damage = Settled { root, missing };
            if damage != before {
                inner.keep_damage(repo.id(), &damage).await?;
                self.tell_held(repo);
            }
        }
        Ok(Fetched::Some)
    }

    /// Returns the part of a repo's tree that this device announces to others.
    pub(super) async fn holding(&self, repo: &Repo) -> Result<Holding> {
        let wants = repo.wants(&self.options.policy).await?;
        let settled = repo.settled(&wants).await?;
        let missing = repo.missing_of(&settled, &wants).await?;
        Ok(Holding {
            root: settled.root.hash,
            lacks_files: missing.files,
            lacks_bytes: missing.bytes,
        })
    }
}
