//! Fetches the trees that records name: level by level, from everybody who has them at once.
//!
//! A level of pages is one [fetch](larder_store_engine::fetch) of the engine, and all files are one.

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

/// The most bytes of files that are waited for before the names are shown.
const SOON: u64 = 256 * 1024;

/// Pages from the root down to one.
type Chain = Vec<Hash>;

fn last(chain: &Chain) -> Hash {
    *chain.last().expect("a chain has a page")
}

/// The outcome of fetching a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// All that is wanted is here.
    All,
    /// Nobody who is connected could give some of it.
    Some,
    /// Something changed meanwhile: it is to be done again.
    Again,
}

impl Shared {
    /// Fetches whatever of the newest trees is not here, for ever.
    pub(super) async fn fetch_all(self: Arc<Self>) {
        // Each is a task of its own: it may have the turn of a repo that is waited for here.
        let mut fetching: JoinSet<(RecordId, Fetched)> = JoinSet::new();
        let mut attempts = Attempts::new();
        let mut changes = self.changes.subscribe();
        loop {
            // What was just fetched is not behind any more.
            self.caught_up().await;
            let mut all = self.to_fetch();
            attempts.retain(|id| {
                let mut all = all.iter();
                all.any(|(_, repo, _)| records::repo_id(*repo) == id)
            });
            let now = Instant::now();
            let mut next = now + AT_THE_LATEST;
            all.retain(|(_, repo, tried)| {
                let due = attempts.due(records::repo_id(*repo), tried);
                let is_due = due.is_some_and(|at| at <= now);
                if let Some(at) = due.filter(|_| !is_due) {
                    next = next.min(at);
                }
                is_due
            });
            // Who has waited longest is next, so that those whom nobody can give hold up no others.
            all.sort_by_key(|(_, repo, _)| attempts.turn(records::repo_id(*repo)));
            for (group, repo, tried) in all {
                if attempts.count_running() >= REPOS {
                    break;
                }
                let id = records::repo_id(repo);
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
                    // The runtime ends.
                    Err(Err(_)) => return,
                },
                () = until(&mut changes, is_of_fetching) => {
                    self.give_up_all_damaged().await;
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// The repos whose newest trees are not here, of groups that somebody is connected for.
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

    /// Returns what is to be fetched of a repo; `None` if all that is wanted of it is here.
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
        // Nothing was ever wanted of an empty tree.
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

    /// Makes what could not be read of a repo's tree missing, so that it is fetched: but only where somebody
    /// is connected who says to have all of the tree.
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
            tracing::warn!(repo = %repo.key(), %blob, "what is damaged is fetched again");
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

    /// Makes damaged files missing that somebody may have.
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
            // Its owner wrote what is no tree.
            Err(error) if error.operation() == MALFORMED => {
                tracing::debug!(%repo, %error, "a tree cannot be fetched");
                Fetched::Some
            }
            // No peer is to blame: what they do wrong ends their part of it.
            Err(error) => {
                self.troubles.note(Some(group.id()), "fetch", &error);
                Fetched::Some
            }
        }
    }

    /// Fetches what of a tree is not here, shows it as soon as its names are here, and remembers what
    /// nobody could give. One at a time.
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
        let local = {
            let turn = repo.turn().await;
            if group.is_ours(repo.id()) {
                // It became ours just now.
                return Ok(Fetched::Again);
            }
            let local = inner.local(repo.id()).await?;
            let transaction = group.blobs().transaction()?;
            repo.follow_in(&transaction, root).await?;
            // It is durable before anything that comes after it.
            transaction.commit_with(Durability::OnSync).await?;
            drop(turn);
            local
        };
        let before = local.settled_for(wanted);
        let progress = Arc::<Transferred>::default();
        let mut pages = self.fetch_pages(repo, root, &before, &progress).await?;
        let lost = std::mem::take(&mut pages.missing);
        let files = self
            .missing_files(repo, &mut pages, wants, &progress)
            .await?;
        let bytes = files.iter().map(|files| files.sum().1);
        let is_long = bytes.fold(0, u64::saturating_add) > SOON;
        // What comes soon is shown with its files, in one commit.
        if lost.is_empty() && local.shown != root && is_long {
            let turn = repo.turn().await;
            if group.is_ours(repo.id()) {
                return Ok(Fetched::Again);
            }
            let mut local = inner.local(repo.id()).await?;
            local.shown = root;
            // What must be kept is kept already.
            inner.keep_local(repo.id(), &local).await?;
            drop(turn);
            self.tell_held(repo);
        }
        let missing = self.fetch_missing(repo, pages, files, &progress).await?;
        let _one = self.freeing.lock().await;
        if freed != self.freed() {
            // What was looked at may not be here any more.
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

    /// Remembers what of a tree nobody could give where that is too much to be written, or pages.
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

    /// Tells that there is more or less of a repo's tree here than before.
    pub(super) fn tell_held(&self, repo: &Repo) {
        self.groups.0.tell(Event::Held {
            group: repo.group().id(),
            repo: repo.key(),
        });
    }

    /// Fetches what of another device's tree is not here, and goes on from both; and what of ours is
    /// damaged.
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
        // Also if a newer one comes meanwhile, whose tree is then kept in its place.
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
            // It is looked for again: what is merged has other pages.
            let nothing = Settled::NOTHING;
            self.groups.0.keep_damage(repo.id(), &nothing).await?;
        }
        repo.settle(&other).await?;
        self.tell_held(repo);
        Ok(Fetched::Again)
    }

    /// Fetches what of a repo of ours was lost here.
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

    /// Returns the part of a repo's tree that this device tells others it has.
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
