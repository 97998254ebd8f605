//! The task that accepts for an endpoint that belongs to a network alone.
//!
//! An iroh `Router` would do, but that it begins any number of handshakes at once: here each has a place
//! in the queue kept for it, and who would have none is refused before any work is done.

use std::time::Duration;

use iroh::{Endpoint, endpoint::Incoming};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::inbox::{Inbox, MAX_BACKLOG};

/// The time that a connecting peer has to prove its key.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that the other sides of connections have to answer that they heard of the end. They are told at
/// once; an answer that is waited for longer comes from nobody.
pub(crate) const GOOD_BYE: Duration = Duration::from_millis(500);

/// While so many wait, whoever connects first has to prove that its address is its own.
const TRUSTING_BACKLOG: usize = MAX_BACKLOG / 2;

pub(crate) struct Acceptor {
    endpoint: Endpoint,
    inbox: Inbox,
    /// There are as many as have a place in the queue.
    handshakes: JoinSet<()>,
}

impl Acceptor {
    pub(crate) fn new(endpoint: Endpoint, inbox: Inbox) -> Self {
        Self {
            endpoint,
            inbox,
            handshakes: JoinSet::new(),
        }
    }

    /// Accepts until `closing`, and then closes the endpoint. Where the endpoint is closed first, all of
    /// the network ends too.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        // However this ends, nobody waits for it any more.
        let _closing = closing.clone().drop_guard();
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                Some(_) = self.handshakes.join_next() => {}
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.begin(incoming),
                    None => break,
                },
            }
        }
        closing.cancel();
        self.handshakes.shutdown().await;
        if timeout(GOOD_BYE, self.endpoint.close()).await.is_err() {
            tracing::debug!("not everybody has answered that the endpoint closes");
        }
    }

    fn begin(&mut self, incoming: Incoming) {
        let Some(place) = self.inbox.place() else {
            return incoming.refuse();
        };
        // Packets from addresses that are made up hold no places.
        let is_crowded = self.inbox.places_left() < MAX_BACKLOG - TRUSTING_BACKLOG;
        if is_crowded && !incoming.remote_addr_validated() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            return;
        }
        self.handshakes.spawn(async move {
            let accepting = match incoming.accept() {
                Ok(accepting) => accepting,
                Err(error) => return tracing::debug!(%error, "a connection was not accepted"),
            };
            match timeout(HANDSHAKE_TIMEOUT, accepting).await {
                Ok(Ok(connection)) => place.take(connection),
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not accepted"),
                Err(_) => tracing::debug!("who connected did not prove its key in time"),
            }
        });
    }
}
