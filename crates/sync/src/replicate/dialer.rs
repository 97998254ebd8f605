//! Connects to members that are not connected; avoids those that lied or cannot be reached.

use std::sync::Arc;

use larder_store_engine::metrics::Counter;
use tokio::task::JoinSet;

use super::{
    MAX_STREAMS, Shared,
    connections::{Link, Side},
    fault::{Fault, Misconduct},
    penalties::{Avoided, FIRST_BACK_OFF},
};
use crate::network::Address;

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
        Counter::Dials.add(1);
        match self.network.connect(&address, None).await {
            Ok(connection) => {
                self.penalties.forgive(&avoided);
                self.connections.answered(address, connection.peer());
                self.add_link(connection, Side::Dialed);
            }
            Err(error) => {
                Counter::DialFailures.add(1);
                tracing::debug!(%address, %error, "a member cannot be reached");
                self.penalties.avoid(avoided);
            }
        }
    }

    /// Returns the addresses of members that are worth a try.
    fn candidates(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        let own = self.network.addresses();
        let now = self.groups.0.now();
        for group in self.groups.groups() {
            let mut texts = group.addresses();
            self.index.look(group.id(), |index| {
                let routes = index.routes.values();
                let valid = routes.filter(|route| route.expires > now);
                texts.extend(valid.map(|route| route.address.clone()));
            });
            for text in texts {
                // Members may announce addresses of several networks.
                let Ok(address) = text.parse::<Address>() else {
                    continue;
                };
                if self.network.understands(&address)
                    && !own.contains(&address)
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
