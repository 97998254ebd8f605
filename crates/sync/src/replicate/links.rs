//! Connections: of two with one peer one stays, and what peers begin on them is answered.

use std::{sync::Arc, time::Duration};

use store_api::{Kind, PublicKey};
use tokio::{io::AsyncReadExt, task::JoinSet, time::Instant};

use super::{
    MAX_CONNECTIONS, MAX_STREAMS, PATIENCE, Shared,
    fault::{Fault, Misconduct, Outcome, lost},
    index::Change,
    lock,
    penalties::Avoided,
    session::Session,
    wire,
};
use crate::network::{Connection, Stream};

/// Two connections that two peers make to each other within this time were made at the same time.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A connection, with the groups that were proven on it.
pub(crate) struct Link {
    pub(super) id: u64,
    pub(super) connection: Connection,
    /// Who made the connection: of two that two peers make at the same time, that of the lesser key
    /// stays.
    dialer: PublicKey,
    since: Instant,
}

impl Link {
    pub(super) fn connection_lives(&self) -> bool {
        futures_util::FutureExt::now_or_never(self.connection.closed()).is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialed,
    Accepted,
}

impl Shared {
    pub(super) async fn accept(self: Arc<Self>) {
        loop {
            match self.network.accept().await {
                Ok(connection) => self.add_link(connection, Side::Accepted),
                Err(error) if error.kind() == Kind::Closed => return,
                Err(error) => tracing::debug!(%error, "a connection failed"),
            }
        }
    }

    pub(super) fn add_link(self: &Arc<Self>, connection: Connection, side: Side) {
        let peer = connection.peer();
        let link = Arc::new(Link {
            id: self.number(),
            dialer: match side {
                Side::Dialed => self.network.key(),
                Side::Accepted => peer,
            },
            connection,
            since: Instant::now(),
        });
        {
            let mut links = lock(&self.links);
            let is_same = |other: &&Arc<Link>| other.connection.peer() == peer;
            let other = links.values().find(is_same).cloned();
            if let Some(other) = &other {
                let at_once = other.since.elapsed() < AT_ONCE;
                if at_once && other.dialer < link.dialer {
                    link.connection.close("there is another connection");
                    return;
                }
                // A peer that connects again, or later on, knows that the other one is gone: it may
                // have been killed, which is noticed here only after a while.
                other.connection.close("there is a newer connection");
                links.remove(&other.id);
            }
            if links.len() >= MAX_CONNECTIONS || self.penalties.is_avoided(&Avoided::Peer(peer)) {
                link.connection.close("not now");
                return;
            }
            links.insert(link.id, Arc::clone(&link));
        }
        let shared = Arc::clone(self);
        self.spawn(async move {
            if side == Side::Dialed {
                shared.greet(&link);
            }
            shared.answer_streams(&link).await;
            lock(&shared.links).remove(&link.id);
            let mut ended = Vec::new();
            lock(&shared.sessions).retain(|_, session| {
                let stays = session.link.id != link.id;
                if !stays {
                    ended.push(session.group.id());
                }
                stays
            });
            for group in ended {
                shared.tell(Change::Session { group });
            }
        });
    }

    /// Opens a session for each group that has none on this connection yet.
    pub(super) fn greet(self: &Arc<Self>, link: &Arc<Link>) {
        for group in self.groups.groups() {
            let has = |session: &Arc<Session>| {
                session.link.id == link.id && session.group.id() == group.id()
            };
            if lock(&self.sessions).values().any(has) {
                continue;
            }
            let (shared, link) = (Arc::clone(self), Arc::clone(link));
            self.spawn(async move {
                match shared.ask(&link, group).await {
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
            other => {
                Err(Fault::lies("the peer's stream begins with an unknown byte")
                    .with("what", other))
            }
        }
    }
}
