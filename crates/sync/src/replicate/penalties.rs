//! Penalties: peers that lied or stalled, and addresses where nobody answers, are avoided for a while.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use larder_store_api::PublicKey;
use tokio::time::Instant;

use super::{Replicator, limits::MAX_CONNECTIONS, lock};
use crate::network::Address;

/// The time for which a peer that lied or could not be reached is avoided the first time; it doubles each time.
pub(super) const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
/// The longest back-off of a peer.
const MAX_PEER_BACK_OFF: Duration = Duration::from_secs(300);
/// The longest back-off of an address: a machine that was off is found soon after it is on.
const MAX_ADDRESS_BACK_OFF: Duration = Duration::from_secs(60);
/// The number of peers and addresses that are remembered besides those that are avoided now.
const MAX_KNOWN: usize = MAX_CONNECTIONS;

/// A peer or an address to avoid for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Avoided {
    Peer(PublicKey),
    Address(Address),
}

impl Avoided {
    fn max_back_off(&self) -> Duration {
        match self {
            Self::Peer(_) => MAX_PEER_BACK_OFF,
            Self::Address(_) => MAX_ADDRESS_BACK_OFF,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct BackOff {
    until: Instant,
    last: Duration,
}

/// The peers and addresses that are avoided, and for how long.
#[derive(Debug, Default)]
pub(super) struct Penalties(Mutex<BTreeMap<Avoided, BackOff>>);

impl Penalties {
    /// Returns true if a peer or an address is avoided now.
    pub(super) fn is_avoided(&self, whom: &Avoided) -> bool {
        let all = lock(&self.0);
        all.get(whom)
            .is_some_and(|back| back.until > Instant::now())
    }

    /// Avoids a peer or an address: twice as long as the last time, unless that is long ago.
    pub(super) fn avoid(&self, whom: Avoided) {
        let mut all = lock(&self.0);
        let now = Instant::now();
        if all.len() >= MAX_KNOWN {
            all.retain(|_, back| back.until > now);
        }
        let max = whom.max_back_off();
        let last = all
            .get(&whom)
            .filter(|back| now < back.until + max)
            .map(|back| back.last * 2);
        let last = last.unwrap_or(FIRST_BACK_OFF).min(max);
        let until = now + last;
        all.insert(whom, BackOff { until, last });
    }

    /// Forgets the penalty of a peer or an address.
    pub(super) fn forgive(&self, whom: &Avoided) {
        lock(&self.0).remove(whom);
    }

    /// Returns the peers that are avoided now.
    fn peers(&self) -> Vec<PublicKey> {
        let now = Instant::now();
        let all = lock(&self.0);
        let avoided = all.iter().filter(|(_, back)| back.until > now);
        let peers = avoided.filter_map(|(whom, _)| match whom {
            Avoided::Peer(peer) => Some(*peer),
            Avoided::Address(_) => None,
        });
        peers.collect()
    }
}

impl Replicator {
    /// Returns the peers that are avoided for a while because they lied or stalled.
    pub fn left_alone(&self) -> Vec<PublicKey> {
        self.0.penalties.peers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_it_again_is_left_alone_for_longer() {
        let penalties = Penalties::default();
        let peer = PublicKey([1; 32]);
        let whom = Avoided::Peer(peer);
        for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert!(!penalties.is_avoided(&whom));
            penalties.avoid(whom.clone());
            pass(seconds - 1).await;
            assert!(penalties.is_avoided(&whom), "{seconds}");
            assert_eq!(penalties.peers(), [peer]);
            pass(1).await;
        }
        // A long time without faults resets the back-off.
        pass(300).await;
        penalties.avoid(whom.clone());
        pass(2).await;
        assert!(!penalties.is_avoided(&whom));
        assert_eq!(penalties.peers(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_no_peer_and_is_forgiven() {
        let penalties = Penalties::default();
        let whom = Avoided::Address("sim:1".parse().expect("an address"));
        penalties.avoid(whom.clone());
        assert!(penalties.is_avoided(&whom));
        assert_eq!(penalties.peers(), []);
        for seconds in [2, 4, 8, 16, 32, 60] {
            assert!(penalties.is_avoided(&whom));
            pass(seconds).await;
            assert!(!penalties.is_avoided(&whom), "{seconds}");
            penalties.avoid(whom.clone());
        }
        penalties.forgive(&whom);
        assert!(!penalties.is_avoided(&whom));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let penalties = Penalties::default();
        for n in 0..2 * MAX_KNOWN {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n as u64).to_be_bytes());
            penalties.avoid(Avoided::Peer(PublicKey(key)));
            pass(3).await;
        }
        assert!(lock(&penalties.0).len() <= MAX_KNOWN);
    }
}
