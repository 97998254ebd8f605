//! Fetches the trees that records name: level by level, from everybody who has them at once.
//!
//! Each level is a number of jobs, one for each page, or for some files of a page; long files are
//! pieces of [`PIECE`]. Each session takes jobs as fast as it can do them. A job that failed goes to
//! another session; towards the end, those who are idle also take what others are slow with.

mod jobs;
mod missing;
mod run;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use store_api::{Kind, RecordId, Result};
use store_engine::Hash;

pub(super) use self::missing::{has, wanted_of};
use super::{PATIENCE, Shared, is_lie, is_stall, lock, progress, receive, session, status, wire};
use crate::{
    groups::{Event, Group, Repo, Wants, Whole},
    tree::Root,
};

/// How many repos are fetched at a time.
const REPOS: usize = 16;
/// How long to wait after nobody could give what is missing.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before a tree that could not be fetched is tried again, if nothing happens.
const AGAIN: Duration = Duration::from_secs(5);

/// Pages from the root down to one.
type Chain = Vec<Hash>;

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
                match repo.is_behind(&self.options.policy).await {
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
            let _one = repo.fetching().await;
            match repo.readable_root().await? {
                Some(known) => {
                    let wants = repo.wants(&self.options.policy).await?;
                    self.fetch_root(repo, known.root, &wants).await.map(drop)
                }
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

    /// Fetches what of a tree is not here, and makes it the one that is held. One at a time. False
    /// where something was freed meanwhile: then it is to be done again.
    pub(super) async fn fetch_root(&self, repo: &Repo, root: Root, wants: &Wants) -> Result<bool> {
        let group = repo.group();
        let inner = &self.groups.0;
        let wanted = wants.digest()?;
        let freed = self.freed();
        let held = inner.held(repo.id()).await?;
        let whole = inner.whole(repo.id()).await?;
        let old = match whole {
            _ if wants.none() => held,
            Some(whole) if whole.wanted == wanted => whole.root,
            // Something else was wanted before: of every page it is looked which files are missing.
            _ => Root::EMPTY,
        };
        if wants.none() && whole.is_some_and(|whole| whole.root.hash != root.hash) {
            // From now on nothing keeps those files.
            inner.forget_whole(repo.id()).await?;
        }
        let turn = repo.turn().await;
        if group.is_ours(repo.id()) {
            // It became ours just now.
            return Ok(true);
        }
        // From now on what comes stays, also over a restart.
        repo.keep(root).await?;
        // What came of roots in between, which were never whole, goes.
        repo.keep_only(&[held, old, root]).await?;
        drop(turn);
        if !root.is_empty() {
            self.fetch_tree(repo, root, old, wants, &self.begin_moving(repo))
                .await?;
        }
        let _one = self.freeing.lock().await;
        if freed != self.freed() {
            // What was looked at may not be here any more.
            return Ok(false);
        }
        let turn = repo.turn().await;
        if group.is_ours(repo.id()) {
            return Ok(true);
        }
        inner.keep_held(repo.id(), root).await?;
        if !wants.none() {
            inner.keep_whole(repo.id(), Whole { root, wanted }).await?;
        }
        repo.keep_only(&[root]).await?;
        drop(turn);
        inner.tell(Event::Held {
            group: group.id(),
            repo: repo.id(),
        });
        Ok(true)
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
        let freed = self.freed();
        if !root.is_empty() {
            self.fetch_tree(
                repo,
                root,
                ours,
                &Wants::EVERYTHING,
                &self.begin_moving(repo),
            )
            .await?;
        }
        let _one = self.freeing.lock().await;
        if freed != self.freed() {
            return Ok(());
        }
        repo.settle(&other).await?;
        self.groups.0.tell(Event::Held {
            group: group.id(),
            repo: repo.id(),
        });
        Ok(())
    }
}
