//! The work under way, and the progress of all members.

mod contacts;
mod members;
mod requests;

use std::{sync::Arc, time::Duration};

use larder_store_api::{Error, Kind, PublicKey, RecordId, Result};

pub(super) use self::{
    contacts::Contacts,
    requests::{Requests, Running},
};
pub use self::{
    members::{Lack, MemberStatus},
    requests::Request,
};
use super::{
    Replicator, Shared,
    index::{GroupIndex, until},
    lock,
    session::{Session, Slots},
};
use crate::{
    groups::{GroupId, Missing, Repo, RepoState},
    tree::Root,
};

/// The progress of a repo of a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RepoStatus {
    /// The repo.
    pub repo: PublicKey,
    /// True if the repo is ours.
    pub is_ours: bool,
    /// The parts of the repo that are here.
    pub state: RepoState,
    /// The wanted files that no connected member could give.
    pub missing: Missing,
    /// The connected members that hold the newest, as far as they want it.
    pub holders: Vec<PublicKey>,
}

impl RepoStatus {
    /// Returns true if nothing more of the repo can come from connected peers: its newest tree is
    /// here, except what is [missing](Self::missing).
    pub fn is_settled(&self) -> bool {
        self.state.announced.hash == self.state.wanted.hash
    }
}

/// The progress of a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The connected members, by the keys of their devices.
    pub peers: Vec<PublicKey>,
    /// True if all peers have said what they have, and have our values of the records.
    pub compared: bool,
    /// The repos.
    pub repos: Vec<RepoStatus>,
}

impl GroupStatus {
    /// Returns true if everything that we know of is here.
    pub fn has_all(&self) -> bool {
        self.repos.iter().all(|repo| repo.state.is_here())
    }

    /// Returns the number of files that no connected peer could give.
    pub fn missing_files(&self) -> u64 {
        let missing = self.repos.iter().map(|repo| repo.missing.files);
        missing.fold(0, u64::saturating_add)
    }

    /// Returns true if every connected member holds the newest of everything.
    pub fn all_have(&self) -> bool {
        let is_there = |repo: &RepoStatus| {
            repo.state.announced.is_empty()
                || self.peers.iter().all(|peer| repo.holders.contains(peer))
        };
        self.repos.iter().all(is_there)
    }
}

/// The condition under which a group counts as in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// Everything that any connected member knows of is here.
    Here,
    /// And every connected member has it too.
    Everywhere,
}

impl Shared {
    /// Returns true if all sessions of a group have said what their peers have, and both sides have
    /// the same values.
    fn has_compared(&self, group: RecordId, sessions: &[Arc<Session>]) -> bool {
        let waits = |index: &mut GroupIndex| index.repos.values().any(|repo| repo.waits);
        let is_level =
            |session: &Arc<Session>| session.has_compared() && session.is_level(Slots::All);
        !sessions.is_empty()
            && self.index.look(group, waits) == Some(false)
            && sessions.iter().all(is_level)
    }

    /// Returns true if a group is in sync, as far as the index says.
    fn is_synced(&self, group: RecordId, synced: Synced) -> bool {
        let sessions = self.sessions.of(group);
        let is_there = |key: PublicKey, newest: Root| {
            let holds = |session: &Arc<Session>| {
                let holds = session.holds(key);
                holds.is_some_and(|holds| holds.is_all_of(newest.hash))
            };
            synced == Synced::Here || newest.is_empty() || sessions.iter().all(holds)
        };
        let is_here = self.index.look(group, |index| {
            let mut repos = index.repos.iter();
            repos.all(|(key, repo)| repo.is_here && is_there(*key, repo.newest))
        });
        is_here == Some(true) && self.has_compared(group, &sessions)
    }
}

impl Replicator {
    /// Returns the progress of a group.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the group is not here.
    pub async fn status(&self, group: impl Into<GroupId>) -> Result<GroupStatus> {
        let GroupId(group) = group.into();
        let group = self.0.groups.group(group).ok_or_else(|| {
            Error::new(Kind::NotFound, "sync.status", "there is no such group here")
                .with("group", group)
        })?;
        self.0.caught_up().await;
        let sessions = self.0.sessions.of(group.id());
        let compared = self.0.has_compared(group.id(), &sessions);
        let mut repos = Vec::new();
        for repo in group.repos().await? {
            let state = repo.state(&self.0.options.policy).await?;
            let newest = state.announced.hash;
            let holds = |s: &&Arc<Session>| {
                let holds = s.holds(repo.key());
                holds.is_some_and(|holds| holds.is_all_of(newest))
            };
            let holders = sessions.iter().filter(holds);
            let given_up = lock(&self.0.given_up).get(&repo.id()).cloned();
            let missing = match given_up {
                Some((root, missing)) if root == newest => missing,
                _ => repo.missing(&self.0.options.policy).await?,
            };
            repos.push(RepoStatus {
                repo: repo.key(),
                is_ours: repo.is_ours(),
                state,
                missing,
                holders: holders.map(|s| s.link.connection.peer()).collect(),
            });
        }
        let peers = sessions.iter().map(|s| s.link.connection.peer());
        Ok(GroupStatus {
            peers: peers.collect(),
            compared,
            repos,
        })
    }

    /// The connected members that say that they hold a repo's newest tree.
    ///
    /// # Errors
    /// The errors of [`status`](Self::status).
    pub async fn holders(&self, repo: &Repo) -> Result<Vec<PublicKey>> {
        let status = self.status(repo.group()).await?;
        let mut repos = status.repos.into_iter();
        let found = repos.find(|found| found.repo == repo.key());
        Ok(found.map_or(Vec::new(), |found| found.holders))
    }

    /// Waits until the group is in sync with at least one connected member, and says how far it is.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if it is not within `limit`; if only files are missing that no
    /// connected member has, the error says so, and [`status`](Self::status) names them.
    pub async fn wait_synced(
        &self,
        group: impl Into<GroupId>,
        synced: Synced,
        limit: Duration,
    ) -> Result<GroupStatus> {
        let GroupId(group) = group.into();
        let waiting = async {
            let mut changes = self.0.changes.subscribe();
            loop {
                self.0.caught_up().await;
                // A look at the index costs little.
                if self.0.is_synced(group, synced) || self.0.groups.group(group).is_none() {
                    let status = self.status(group).await?;
                    let is_synced = status.compared
                        && status.has_all()
                        && (synced == Synced::Here || status.all_have());
                    if is_synced {
                        return Ok(status);
                    }
                }
                until(&mut changes, |change| change.is_of(group)).await;
            }
        };
        if let Ok(status) = tokio::time::timeout(limit, waiting).await {
            return status;
        }
        let missing = self.status(group).await?.missing_files();
        let message = match missing {
            0 => "the group is not in sync yet".into(),
            n => format!("the group is not in sync: nobody who is connected has {n} file(s) of it"),
        };
        Err(Error::new(Kind::Unavailable, "sync.wait", message)
            .with("group", group)
            .with("limit", format_args!("{limit:?}")))
    }
}
