//! Connects to members that are not connected; avoids those that lied or cannot be reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use larder_store_api::{Error, PublicKey, RecordId};
use larder_store_engine::metrics::Counter;
use tokio::task::JoinSet;

use super::{
    MAX_STREAMS, Replicator, Shared,
    connections::Link,
    fault::{Fault, Misconduct},
    lock,
    penalties::{Avoided, FIRST_BACK_OFF},
};
use crate::{groups::Group, network::Address};

/// An address at which a member is looked for, and how it is going.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The address.
    pub address: String,
    /// The repo of the member who tells the address; `None` for one of an invite.
    pub repo: Option<PublicKey>,
    /// The device that is expected there, as far as the address tells this network.
    pub device: Option<PublicKey>,
    /// True if that device is connected, at this address or another.
    pub connected: bool,
    /// The reason why the last attempt that ended has failed; `None` before the first has ended, and after
    /// one that succeeded.
    pub failure: Option<Error>,
}

/// The failures of the last attempts, by address. There are no more than addresses of members.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<BTreeMap<Address, Error>>);

impl Replicator {
    /// Returns the addresses at which members of a group are looked for, and how the last attempts have ended.
    pub fn attempts(&self, group: RecordId) -> Vec<Attempt> {
        let known = self.0.groups.group(group);
        let known = known.map_or(Vec::new(), |group| self.0.told_by(&group));
        let own = self.0.network.addresses();
        let failures = lock(&self.0.failures.0);
        let mut all: Vec<Attempt> = Vec::new();
        for (repo, address) in known {
            let device = self.0.network.peer_of(&address);
            let device = device.or_else(|| self.0.connections.who_answered(&address));
            if own.contains(&address) || device == Some(self.0.network.key()) {
                continue;
            }
            let text = address.as_str();
            match all.iter_mut().find(|attempt| attempt.address == text) {
                Some(same) => same.repo = same.repo.or(repo),
                None => all.push(Attempt {
                    address: text.to_owned(),
                    repo,
                    device,
                    connected: device.is_some_and(|device| self.0.connections.has(device)),
                    failure: failures.get(&address).cloned(),
                }),
            }
        }
        all
    }
}

impl Shared {
    /// Connects to members that are not connected, and keeps our own routes fresh.
    pub(super) async fn dial(self: Arc<Self>) {
        let mut addresses = self.network.watch_addresses();
        loop {
            match self.announce_routes().await {
                Ok(()) => self.troubles.clear(None, "routes"),
                Err(error) => self.troubles.note(None, "routes", &error),
            }
            let mut dialing = JoinSet::new();
            self.forget_failures();
            for address in self.candidates() {
                let shared = Arc::clone(&self);
                dialing.spawn(async move { shared.dial_one(address).await });
                if dialing.len() >= MAX_STREAMS {
                    dialing.join_next().await;
                }
            }
            while dialing.join_next().await.is_some() {}
            let pause = tokio::time::sleep(self.options.compare_every.min(FIRST_BACK_OFF));
            tokio::select! {
                biased;
                changed = futures_util::StreamExt::next(&mut addresses) => {
                    if changed.is_none() {
                        // The network was closed.
                        return;
                    }
                }
                () = self.met.notified() => {}
                () = pause => {}
            }
        }
    }

    async fn dial_one(self: &Arc<Self>, address: Address) {
        let avoided = Avoided::Address(address.clone());
        tracing::debug!(%address, "a member is looked for");
        Counter::Dials.add(1);
        match self.network.connect(&address, None).await {
            Ok(connection) => {
                tracing::debug!(%address, peer = %connection.peer(), "a member was reached");
                lock(&self.failures.0).remove(&address);
                self.connections
                    .answered(address.clone(), connection.peer());
                self.add_link(connection, Some(address));
            }
            Err(error) => {
                Counter::DialFailures.add(1);
                tracing::debug!(%address, %error, "a member cannot be reached");
                self.penalties.avoid(avoided);
                lock(&self.failures.0).insert(address, error);
            }
        }
    }

    /// Returns the addresses of a group's members that this network understands: those of its invites, and
    /// those that members tell, with their repos.
    fn told_by(&self, group: &Group) -> Vec<(Option<PublicKey>, Address)> {
        let now = self.groups.0.now();
        let mut texts: Vec<_> = group
            .addresses()
            .into_iter()
            .map(|text| (None, text))
            .collect();
        self.index.look(group.id(), |index| {
            let valid = index.routes.iter().filter(|(_, route)| route.expires > now);
            texts.extend(valid.map(|((repo, _), route)| (Some(*repo), route.address.clone())));
        });
        // A group may tell addresses of several networks.
        let parsed = texts
            .into_iter()
            .filter_map(|(repo, text)| Some((repo, text.parse().ok()?)));
        parsed
            .filter(|(_, address)| self.network.understands(address))
            .collect()
    }

    /// Forgets how looking at addresses went that nobody tells any more.
    fn forget_failures(&self) {
        let groups = self.groups.groups();
        let told: BTreeSet<Address> = groups
            .iter()
            .flat_map(|group| self.told_by(group))
            .map(|(_, address)| address)
            .collect();
        lock(&self.failures.0).retain(|address, _| told.contains(address));
    }

    /// Returns the addresses of members that are worth a try.
    fn candidates(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        let own = self.network.addresses();
        for group in self.groups.groups() {
            for (_, address) in self.told_by(&group) {
                if !own.contains(&address)
                    && !all.contains(&address)
                    && !self
                        .penalties
                        .is_avoided(&Avoided::Address(address.clone()))
                {
                    all.push(address);
                }
            }
        }
        let is_of_no_use = |address: &Address| {
            let peer = self.network.peer_of(address);
            let peer = peer.or_else(|| self.connections.who_answered(address));
            peer.is_some_and(|peer| {
                self.penalties.is_avoided(&Avoided::Peer(peer)) || self.connections.has(peer)
            })
        };
        all.retain(|address| !is_of_no_use(address));
        all
    }

    /// Acts on a fault of one of a connection's streams. A peer that lied or stalled is avoided for a
    /// while. A failure of our own store has no consequences for the peer, and neither does a lost
    /// stream.
    pub(super) fn blame(&self, link: &Link, fault: &Fault) {
        let peer = link.connection.peer();
        match fault {
            // Several streams may report the same lie; penalise it once.
            Fault::Peer(Misconduct::Lies, error) if link.connection_lives() => {
                Counter::Misconduct.add(1);
                tracing::warn!(%peer, %error, "a peer lied");
                self.penalties.avoid(Avoided::Peer(peer));
                link.connection.close("that was not right");
            }
            Fault::Peer(Misconduct::Stalls, error) if link.connection_lives() => {
                Counter::Misconduct.add(1);
                tracing::debug!(%peer, %error, "a peer stalls");
                self.penalties.avoid(Avoided::Peer(peer));
                link.connection.close("nothing came any more");
            }
            fault => tracing::debug!(%peer, %fault, "a peer's stream ended"),
        }
    }

    /// Marks a session as ended for good: only a new connection starts it again.
    pub(super) fn end_session(&self, link: &Link, fault: &Fault) {
        self.blame(link, fault);
        if link.connection_lives() {
            link.connection.close("a session ended");
        }
    }
}
