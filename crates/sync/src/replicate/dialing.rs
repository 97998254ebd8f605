//! Connects to members that are not connected, and leaves those alone who lied or cannot be reached.

use std::{sync::Arc, time::Duration};

use store_api::{Error, PublicKey};
use tokio::{task::JoinSet, time::Instant};

use super::{
    MAX_CONNECTIONS, MAX_STREAMS, Shared, is_stall,
    links::{Link, Side},
    lock,
};
use crate::network::Address;

/// How long a peer that lied, or could not be reached, is left alone the first time; then twice as
/// long, and so on.
const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
/// The longest that it is.
const MAX_BACK_OFF: Duration = Duration::from_secs(300);

/// Whom to leave alone for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Avoided {
    Peer(PublicKey),
    Address(Address),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BackOff {
    until: Instant,
    last: Duration,
}

impl Shared {
    /// Connects to members that are not connected, and keeps our own routes fresh.
    pub(super) async fn dial(self: Arc<Self>) {
        let mut addresses = self.network.watch_addresses();
        loop {
            if let Err(error) = self.announce_routes().await {
                tracing::warn!(%error, "our routes could not be announced");
            }
            let mut dialing = JoinSet::new();
            for address in self.candidates().await {
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
        match self.network.connect(&address, None).await {
            Ok(connection) => {
                lock(&self.avoided).remove(&avoided);
                let mut peers = lock(&self.peers);
                if peers.len() >= MAX_CONNECTIONS {
                    peers.clear();
                }
                peers.insert(address, connection.peer());
                drop(peers);
                self.add_link(connection, Side::Dialed);
            }
            Err(error) => {
                tracing::debug!(%address, %error, "a member cannot be reached");
                self.avoid(avoided);
            }
        }
    }

    /// Addresses of members that may be worth a try.
    async fn candidates(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        let own = self.network.addresses();
        let now = self.groups.0.now();
        for group in self.groups.groups() {
            let mut texts = group.addresses();
            match group.routes().await {
                Ok(routes) => texts.extend(
                    routes
                        .into_iter()
                        .filter(|(_, route)| route.expires > now)
                        .map(|(_, route)| route.address),
                ),
                Err(error) => tracing::warn!(%error, "a group's routes cannot be read"),
            }
            for text in texts {
                // A group may tell addresses of several networks.
                let Ok(address) = text.parse::<Address>() else {
                    continue;
                };
                if self.network.understands(&address)
                    && !own.contains(&address)
                    && !all.contains(&address)
                    && !self.is_avoided(&Avoided::Address(address.clone()))
                {
                    all.push(address);
                }
            }
        }
        let peers = lock(&self.peers).clone();
        let links = lock(&self.links);
        let is_of_no_use = |address: &Address| {
            let peer = self.network.peer_of(address);
            let peer = peer.or_else(|| peers.get(address).copied());
            peer.is_some_and(|peer| {
                self.is_avoided(&Avoided::Peer(peer))
                    || links.values().any(|l| l.connection.peer() == peer)
            })
        };
        all.retain(|address| !is_of_no_use(address));
        drop(links);
        all
    }

    pub(super) fn is_avoided(&self, whom: &Avoided) -> bool {
        let avoided = lock(&self.avoided);
        avoided
            .get(whom)
            .is_some_and(|back| back.until > Instant::now())
    }

    fn avoid(&self, whom: Avoided) {
        let mut avoided = lock(&self.avoided);
        if avoided.len() >= MAX_CONNECTIONS {
            let now = Instant::now();
            avoided.retain(|_, back| back.until > now);
        }
        let now = Instant::now();
        // Who has done well for long begins anew.
        let last = avoided
            .get(&whom)
            .filter(|back| now < back.until + MAX_BACK_OFF)
            .map(|back| back.last * 2);
        let last = last.unwrap_or(FIRST_BACK_OFF).min(MAX_BACK_OFF);
        let until = now + last;
        avoided.insert(whom, BackOff { until, last });
    }

    /// Ends a connection with who lied, and leaves it alone for a while.
    pub(super) fn avoid_peer(&self, link: &Link, error: &Error) {
        // What several of its streams suffer from is one lie.
        if link.connection_lives() {
            let peer = link.connection.peer();
            tracing::warn!(%peer, %error, "a peer lied");
            self.avoid(Avoided::Peer(peer));
            link.connection.close("that was not right");
        }
    }

    /// Ends a connection whose session ended: only a new one begins it anew. Who was silent for too long
    /// is left alone for a while; others may just have been started again.
    pub(super) fn give_up(&self, link: &Link, error: &Error) {
        if link.connection_lives() {
            let peer = link.connection.peer();
            tracing::debug!(%peer, %error, "a session ended");
            if is_stall(error) {
                self.avoid(Avoided::Peer(peer));
            }
            link.connection.close("a session ended");
        }
    }
}
