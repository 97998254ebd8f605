//! The running sessions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use larder_store_api::RecordId;
use larder_store_engine::metrics::Counter;

use super::{
    connections::Link,
    lock,
    session::{Session, Trust},
};
use crate::groups::Group;

/// The running sessions, in the order in which they began.
#[derive(Default)]
pub(super) struct Sessions {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Session>>>,
}

impl Sessions {
    /// Returns a number that no other session has.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(&self, session: &Arc<Session>) {
        Counter::Sessions.add(1);
        lock(&self.all).insert(session.id, Arc::clone(session));
    }

    pub(super) fn remove(&self, session: &Session) {
        lock(&self.all).remove(&session.id);
    }

    /// Removes the ended sessions of a connection; returns their groups.
    pub(super) fn remove_on(&self, link: &Link) -> Vec<RecordId> {
        let mut ended = Vec::new();
        lock(&self.all).retain(|_, session| {
            let stays = session.link.id != link.id;
            if !stays {
                ended.push(session.group.id());
            }
            stays
        });
        ended
    }

    pub(super) fn clear(&self) {
        lock(&self.all).clear();
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.all).values().cloned().collect()
    }

    /// Returns the sessions of a group with its members.
    pub(super) fn of(&self, group: RecordId) -> Vec<Arc<Session>> {
        let mut of_group = self.any_of(group);
        of_group.retain(|session| session.is_full());
        of_group
    }

    /// Returns the sessions of a group, also with those who are not members yet, or not any more.
    pub(super) fn any_of(&self, group: RecordId) -> Vec<Arc<Session>> {
        let all = lock(&self.all);
        let of_group = all.values().filter(|session| session.group.id() == group);
        of_group.cloned().collect()
    }

    /// Returns the number of a group's running sessions on a connection.
    pub(super) fn count(&self, link: &Link, group: RecordId) -> usize {
        let all = lock(&self.all);
        let on_link = all.values().filter(|session| session.link.id == link.id);
        on_link
            .filter(|session| session.group.id() == group)
            .count()
    }

    /// Returns the group with this id, if the peer has proven on a connection that it is a member, and still is.
    pub(super) fn proven(&self, link: &Link, group: RecordId) -> Option<Group> {
        let all = lock(&self.all);
        let mut on_link = all.values().filter(|session| session.link.id == link.id);
        let found =
            on_link.find(|session| session.group.id() == group && session.trust() == Trust::Member);
        found.map(|session| session.group.clone())
    }
}
