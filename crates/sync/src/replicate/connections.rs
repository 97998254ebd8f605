//! Connections to peers: keeps at most one per peer, and serves the streams that peers open on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use larder_store_api::{Kind, PublicKey, RecordId};
use tokio::{io::AsyncReadExt, task::JoinSet, time::Instant};

use super::{
    MAX_CONNECTIONS, MAX_STREAMS, PATIENCE, Shared,
    fault::{Fault, Misconduct, Outcome, lies, lost},
    index::Change,
    limits::{MAX_DIALED, MAX_UNPROVEN, PROVE_WITHIN},
    lock,
    penalties::Avoided,
    wire,
};
use crate::network::{Address, Connection, Stream};

/// If two peers connect to each other within this time, the two connections count as simultaneous.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A connection, with the groups that were proven on it.
pub(crate) struct Link {
    pub(super) id: u64,
    pub(super) connection: Connection,
    /// The side that made the connection: if two peers connect to each other at the same time, the
    /// connection of the lesser key stays.
    dialer: PublicKey,
    side: Side,
    since: Instant,
    /// True once a group was proven on it.
    is_proven: AtomicBool,
    /// The groups that the peer was asked to prove, or has proven.
    asked: Mutex<BTreeSet<RecordId>>,
}

impl Link {
    /// Records that the peer has proven a group.
    pub(super) fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Waits until no group was proven for too long; for ever, if one was proven by then.
    async fn unproven(&self) {
        let within = match self.side {
            Side::Accepted => PROVE_WITHIN,
            // A peer that is asked and does not answer is blamed before that.
            Side::Dialed => 2 * PROVE_WITHIN,
        };
        tokio::time::sleep_until(self.since + within).await;
        if self.is_proven() {
            std::future::pending().await
        }
    }

    pub(super) fn connection_lives(&self) -> bool {
        futures_util::FutureExt::now_or_never(self.connection.closed()).is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialed,
    Accepted,
}

/// The open connections, at most one per peer.
pub(super) struct Connections {
    /// This device's key.
    own: PublicKey,
    next: AtomicU64,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// The peer that last answered at each address.
    answered: Mutex<BTreeMap<Address, PublicKey>>,
}

impl Connections {
    pub(super) fn new(own: PublicKey) -> Self {
        Self {
            own,
            next: AtomicU64::new(0),
            links: Mutex::default(),
            answered: Mutex::default(),
        }
    }

    /// Registers a new connection, unless an existing one takes precedence or there are too many;
    /// closes the one that loses.
    pub(super) fn admit(&self, connection: Connection, side: Side) -> Option<Arc<Link>> {
        let peer = connection.peer();
        let link = Arc::new(Link {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            dialer: match side {
                Side::Dialed => self.own,
                Side::Accepted => peer,
            },
            side,
            connection,
            since: Instant::now(),
            is_proven: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let mut links = lock(&self.links);
        let is_same = |other: &&Arc<Link>| other.connection.peer() == peer;
        let other = links.values().find(is_same).cloned();
        if let Some(other) = &other {
            let at_once = other.since.elapsed() < AT_ONCE;
            if at_once && other.dialer < link.dialer {
                link.connection.close("there is another connection");
                return None;
            }
            // If a peer connects again, it knows that the old connection is gone. The peer may have
            // been killed, which this side notices only after a while.
            other.connection.close("there is a newer connection");
            links.remove(&other.id);
        }
        if !make_room(&mut links, side) {
            link.connection.close("there are too many connections");
            return None;
        }
        links.insert(link.id, Arc::clone(&link));
        Some(link)
    }

    fn remove(&self, link: &Link) {
        lock(&self.links).remove(&link.id);
    }

    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        lock(&self.links).values().cloned().collect()
    }

    /// Returns true if a peer is connected.
    pub(super) fn has(&self, peer: PublicKey) -> bool {
        let links = lock(&self.links);
        links.values().any(|link| link.connection.peer() == peer)
    }

    /// Records which peer answered at an address.
    pub(super) fn answered(&self, address: Address, peer: PublicKey) {
        let mut answered = lock(&self.answered);
        if answered.len() >= MAX_CONNECTIONS {
            answered.clear();
        }
        answered.insert(address, peer);
    }

    /// Returns the peer that last answered at an address.
    pub(super) fn who_answered(&self, address: &Address) -> Option<PublicKey> {
        lock(&self.answered).get(address).copied()
    }

    /// Drops all connections.
    pub(super) fn clear(&self) {
        lock(&self.links).clear();
    }
}

/// Makes room for a connection that this side made: strangers must not keep members out, so that the oldest connection
/// goes on which no group was proven. Returns false if there is none.
fn make_room(links: &mut BTreeMap<u64, Arc<Link>>, side: Side) -> bool {
    let of_side = links.values().filter(|link| link.side == side);
    let unproven: Vec<u64> = of_side
        .clone()
        .filter(|link| !link.is_proven())
        .map(|link| link.id)
        .collect();
    let (most, most_unproven) = match side {
        Side::Accepted => (MAX_CONNECTIONS, MAX_UNPROVEN),
        Side::Dialed => (MAX_DIALED, MAX_DIALED),
    };
    if of_side.count() < most && unproven.len() < most_unproven {
        return true;
    }
    let oldest = unproven.first().and_then(|oldest| links.remove(oldest));
    if let Some(oldest) = &oldest {
        let why = "there are too many connections, and no group was proven on this one";
        oldest.connection.close(why);
    }
    oldest.is_some()
}

impl Shared {
    pub(super) async fn accept(self: Arc<Self>) {
        loop {
            match self.network.accept().await {
                Ok(connection) => self.add_link(connection, None),
                Err(error) if error.kind() == Kind::Closed => return,
                Err(error) => tracing::debug!(%error, "a connection failed"),
            }
        }
    }

    /// Registers a connection, which this device has made if it has the `dialed` address.
    pub(super) fn add_link(self: &Arc<Self>, connection: Connection, dialed: Option<Address>) {
        if self.penalties.is_avoided(&Avoided::Peer(connection.peer())) {
            connection.close("not now");
            return;
        }
        let side = match dialed {
            Some(_) => Side::Dialed,
            None => Side::Accepted,
        };
        let Some(link) = self.connections.admit(connection, side) else {
            return;
        };
        let shared = Arc::clone(self);
        self.spawn(async move {
            if side == Side::Dialed {
                shared.greet(&link);
            }
            tokio::select! {
                biased;
                () = shared.answer_streams(&link) => {}
                () = link.unproven() => link.connection.close("no group was proven in time"),
            }
            // No member may be at that address any more.
            if let Some(address) = dialed.map(Avoided::Address) {
                match link.is_proven() {
                    true => shared.penalties.forgive(&address),
                    false => shared.penalties.avoid(address),
                }
            }
            shared.connections.remove(&link);
            for group in shared.sessions.remove_on(&link) {
                shared.tell(Change::Session { group });
            }
        });
    }

    /// Opens a session for each group that has none on this connection yet.
    pub(super) fn greet(self: &Arc<Self>, link: &Arc<Link>) {
        for group in self.groups.groups() {
            let id = group.id();
            if self.sessions.count(link, id) > 0
                || !group.is_hopeful()
                || !lock(&link.asked).insert(id)
            {
                continue;
            }
            let (shared, link) = (Arc::clone(self), Arc::clone(link));
            self.spawn(async move {
                let ended = shared.ask(&link, group).await;
                lock(&link.asked).remove(&id);
                match ended {
                    Ok(()) => {}
                    // It may be a member of another of our groups.
                    Err(fault) if fault.is_peers(Misconduct::Refuses) => {
                        tracing::debug!(%fault, "a group could not be proven");
                    }
                    Err(fault) => shared.end_session(&link, &fault),
                }
            });
        }
    }

    async fn answer_streams(self: &Arc<Self>, link: &Arc<Link>) {
        let mut answering = JoinSet::new();
        loop {
            if answering.len() >= MAX_STREAMS {
                answering.join_next().await;
                continue;
            }
            let stream = tokio::select! {
                biased;
                Some(_) = answering.join_next() => continue,
                stream = link.connection.accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    let (shared, link) = (Arc::clone(self), Arc::clone(link));
                    answering.spawn(async move {
                        if let Err(fault) = shared.answer(&link, stream).await {
                            shared.blame(&link, &fault);
                        }
                    });
                }
                Err(_) => return,
            }
        }
    }

    async fn answer(self: &Arc<Self>, link: &Arc<Link>, mut stream: Stream) -> Outcome<()> {
        let first = tokio::time::timeout(PATIENCE, stream.recv.read_u8()).await;
        let first = first.map_err(|_| Fault::stalls())?.map_err(lost)?;
        match first {
            wire::HELLO => self.answer_hello(link, stream).await,
            wire::GET | wire::SHOW => self.answer_get(link, first, stream).await,
            other => Err(lies("the peer's stream begins with an unknown byte").with("what", other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_store_api::{Error, Result};

    use super::*;

    /// A connection without a peer behind it.
    #[derive(Debug)]
    struct Dummy {
        peer: PublicKey,
        closed: Arc<Mutex<bool>>,
    }

    #[async_trait::async_trait]
    impl crate::network::ConnectionApi for Dummy {
        fn peer(&self) -> PublicKey {
            self.peer
        }

        fn binding(&self) -> [u8; 32] {
            [0; 32]
        }

        async fn open(&self) -> Result<Stream> {
            Err(self.closed().await)
        }

        async fn accept(&self) -> Result<Stream> {
            Err(self.closed().await)
        }

        fn close(&self, _reason: &str) {
            *lock(&self.closed) = true;
        }

        async fn closed(&self) -> Error {
            Error::new(Kind::Closed, "test.connection", "there is nobody")
        }
    }

    fn dummy(n: u16) -> (Connection, Arc<Mutex<bool>>) {
        let mut peer = [0; 32];
        peer[..2].copy_from_slice(&n.to_be_bytes());
        let closed = Arc::default();
        let dummy = Dummy {
            peer: PublicKey(peer),
            closed: Arc::clone(&closed),
        };
        (Arc::new(dummy), closed)
    }

    fn own() -> PublicKey {
        let mut own = [0; 32];
        own[..2].copy_from_slice(&500_u16.to_be_bytes());
        PublicKey(own)
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_made_at_once_that_of_the_lesser_key_stays() {
        for (peer, first, second, stays) in [
            (1, Side::Dialed, Side::Accepted, 1),
            (1, Side::Accepted, Side::Dialed, 0),
            (900, Side::Dialed, Side::Accepted, 0),
            (900, Side::Accepted, Side::Dialed, 1),
        ] {
            let connections = Connections::new(own());
            let made = [dummy(peer), dummy(peer)];
            let closed = made.each_ref().map(|(_, closed)| Arc::clone(closed));
            let sides = [first, second];
            let admitted: Vec<_> = made
                .into_iter()
                .zip(sides)
                .map(|((connection, _), side)| connections.admit(connection, side).is_some())
                .collect();
            assert_eq!(connections.all().len(), 1);
            assert_eq!(admitted, [true, stays == 1]);
            assert!(
                !*lock(&closed[stays]) && *lock(&closed[1 - stays]),
                "{peer}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_again_later_takes_the_old_one_s_place() {
        let connections = Connections::new(own());
        let (old, closed) = dummy(1);
        let old = connections.admit(old, Side::Accepted).unwrap();
        tokio::time::sleep(AT_ONCE).await;
        let (new, _) = dummy(1);
        let new = connections.admit(new, Side::Dialed).unwrap();
        assert!(*lock(&closed) && connections.has(new.connection.peer()));
        // The end of the old connection does not end the new one.
        connections.remove(&old);
        assert_eq!(connections.all().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_than_so_many() {
        let connections = Connections::new(own());
        for n in 0..2 * MAX_CONNECTIONS as u16 {
            let admitted = connections.admit(dummy(n).0, Side::Accepted);
            assert_eq!(admitted.is_some(), usize::from(n) < MAX_CONNECTIONS);
            admitted.inspect(|link| link.prove());
            let address: Address = format!("sim:{n}").parse().unwrap();
            connections.answered(address.clone(), own());
            assert_eq!(connections.who_answered(&address), Some(own()));
        }
        assert!(lock(&connections.answered).len() <= MAX_CONNECTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_keep_no_member_out() {
        let connections = Connections::new(own());
        let (member, stays) = dummy(0);
        connections.admit(member, Side::Accepted).unwrap().prove();
        let (stranger, closed) = dummy(1);
        connections.admit(stranger, Side::Accepted).unwrap();
        for n in 2..2 * MAX_CONNECTIONS as u16 {
            assert!(connections.admit(dummy(n).0, Side::Accepted).is_some());
        }
        assert!(*lock(&closed) && !*lock(&stays));
        assert_eq!(connections.all().len(), 1 + MAX_UNPROVEN);
        // Those that this device makes have places of their own.
        for n in 2000..2000 + 2 * MAX_DIALED as u16 {
            let dialed = connections.admit(dummy(n).0, Side::Dialed);
            assert!(dialed.is_some() && !*lock(&stays));
        }
        assert_eq!(connections.all().len(), 1 + MAX_UNPROVEN + MAX_DIALED);
    }
}
