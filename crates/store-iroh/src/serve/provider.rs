//! Answers peers: reads each request within bounds, asks the shares, and lets iroh-blobs answer what
//! is permitted.

use std::{sync::Arc, time::Duration};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::{
    api::Store,
    protocol::{ERR_LIMIT, ERR_PERMISSION},
    provider::{
        StreamPair,
        events::{ConnectMode, EventMask, EventSender, ObserveMode, RequestMode, ThrottleMode},
        handle_stream,
    },
};
use larder_store_engine::Blobs;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{debug, error};

use super::{
    request::{NoRequest, Request},
    shares::Shares,
};
use crate::store::iroh_store;

/// The most connections that are served at once; further ones are closed with `ERR_LIMIT`.
pub const MAX_CONNECTIONS: usize = 256;

/// The most requests of one connection that are answered at once. Further ones wait, and QUIC
/// bounds how many can, and how many bytes: the endpoint's transport config says so.
/// `larder_net_iroh::transport` is one.
pub const MAX_REQUESTS: usize = 32;

/// The most long requests that are read at once, over all connections.
const MAX_LONG_REQUESTS: usize = 64;

/// The time within which a peer must send its request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// For requests that `Shares` has permitted; writing is never.
const PERMITTED: EventMask = EventMask {
    connected: ConnectMode::None,
    get: RequestMode::None,
    get_many: RequestMode::None,
    observe: ObserveMode::None,
    push: RequestMode::Disabled,
    throttle: ThrottleMode::None,
};

/// Serves iroh-blobs' protocol for what [`Shares`] opens; for apps that have a `Router` of their
/// own. Register it for [`ALPN`](crate::ALPN).
///
/// A request for anything else, and every request to write, is refused with `ERR_PERMISSION`.
#[derive(Debug, Clone)]
pub struct Provider {
    store: Store,
    shares: Shares,
    connections: Arc<Semaphore>,
    long_requests: Arc<Semaphore>,
}

impl Provider {
    /// A provider of what `shares` opens, from the engine that it was made for.
    pub fn new(blobs: &Blobs, shares: &Shares) -> Self {
        Self {
            store: iroh_store(blobs),
            shares: shares.clone(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            long_requests: Arc::new(Semaphore::new(MAX_LONG_REQUESTS)),
        }
    }

    async fn serve(&self, connection: Connection) {
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        loop {
            let Ok(permit) = requests.clone().acquire_owned().await else {
                return;
            };
            let Ok((send, recv)) = connection.accept_bi().await else {
                return;
            };
            let id = connection.stable_id() as u64;
            tokio::spawn(self.clone().answer(id, send, recv, permit));
        }
    }

    async fn answer(
        self,
        connection: u64,
        mut send: SendStream,
        mut recv: RecvStream,
        _permit: OwnedSemaphorePermit,
    ) {
        let request = Request::read(&mut recv, &self.long_requests);
        let request = timeout(REQUEST_TIMEOUT, request).await;
        let request = match request.unwrap_or(Err(NoRequest::Gone)) {
            Ok(request) => request,
            Err(why) => return refuse(&mut send, &mut recv, &why),
        };
        if !self.shares.permit(&request.asked).await {
            debug!(connection, "refused a request for what is not open");
            // Resetting a stream that the peer has already given up fails, which is harmless.
            send.reset(ERR_PERMISSION).ok();
            return;
        }
        let (events, _) = EventSender::channel(1, PERMITTED);
        let pair = StreamPair::new(connection, request.bytes, send, events);
        if let Err(error) = handle_stream(pair, self.store).await {
            debug!(connection, %error, "a request was not answered to its end");
        }
    }
}

fn refuse(send: &mut SendStream, recv: &mut RecvStream, why: &NoRequest) {
    debug!(?why, "refused what is no permitted request");
    let code = match why {
        NoRequest::Push => ERR_PERMISSION,
        NoRequest::Malformed | NoRequest::Gone => VarInt::from_u32(0),
    };
    send.reset(code).ok();
    recv.stop(code).ok();
}

impl ProtocolHandler for Provider {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        match self.connections.clone().try_acquire_owned() {
            Ok(_permit) => self.serve(connection).await,
            Err(_) => connection.close(ERR_LIMIT, b"limit"),
        }
        Ok(())
    }

    async fn shutdown(&self) {
        if let Err(error) = self.store.shutdown().await {
            error!(%error, "the served store did not shut down");
        }
    }
}
