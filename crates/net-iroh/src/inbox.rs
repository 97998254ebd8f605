//! Connections that wait to be accepted, and the end that comes to all connections of a network at once.

use iroh::endpoint::Connection;
use tokio::sync::{Mutex, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::connection::{CLOSED, IrohConnection};

/// The most connections that wait to be accepted. [`IrohNetwork::bind`](crate::IrohNetwork::bind) counts
/// those that have not proven their key yet. More are refused.
pub const MAX_BACKLOG: usize = 64;

/// The life of a network, which ends all that belongs to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// All of it is to end.
    pub(crate) closing: CancellationToken,
    /// Tasks that end once it is closing.
    pub(crate) tasks: TaskTracker,
}

impl Life {
    /// Makes a connection part of the network: it ends with it.
    pub(crate) fn adopt(&self, connection: Connection) -> larder_store_api::Result<IrohConnection> {
        let (weak, ended) = (connection.weak_handle(), connection.weak_handle().closed());
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => {
                    if let Some(connection) = weak.upgrade() {
                        connection.close(CLOSED, b"the network was closed");
                    }
                }
                _ = ended => {}
            }
        });
        IrohConnection::new(connection)
    }

    /// Ends all, and waits until it has ended.
    pub(crate) async fn end(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Makes the two ends of the queue of connections that wait.
pub(crate) fn inbox(life: &Life) -> (Inbox, Waiting) {
    let (ready, waiting) = mpsc::channel(MAX_BACKLOG);
    let life = life.clone();
    (Inbox { ready, life }, Waiting(Mutex::new(waiting)))
}

/// The end at which connections arrive.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    ready: mpsc::Sender<IrohConnection>,
    life: Life,
}

impl Inbox {
    /// Takes a place, where there is one.
    pub(crate) fn place(&self) -> Option<Place> {
        let place = self.ready.clone().try_reserve_owned().ok()?;
        let life = self.life.clone();
        Some(Place { place, life })
    }

    /// Returns how many places are left.
    pub(crate) fn places_left(&self) -> usize {
        self.ready.capacity()
    }
}

/// A place in the queue.
pub(crate) struct Place {
    place: mpsc::OwnedPermit<IrohConnection>,
    life: Life,
}

impl Place {
    /// Lets a connection wait there.
    pub(crate) fn take(self, connection: Connection) {
        match self.life.adopt(connection) {
            Ok(connection) => drop(self.place.send(connection)),
            Err(error) => tracing::debug!(%error, "a connection was not accepted"),
        }
    }
}

/// The end at which connections are accepted.
#[derive(Debug)]
pub(crate) struct Waiting(Mutex<mpsc::Receiver<IrohConnection>>);

impl Waiting {
    /// Returns the next connection that has not ended meanwhile; `None` once nobody can put one there.
    pub(crate) async fn next(&self) -> Option<IrohConnection> {
        let mut waiting = self.0.lock().await;
        loop {
            let next = waiting.recv().await?;
            if !next.has_ended() {
                return Some(next);
            }
        }
    }
}
