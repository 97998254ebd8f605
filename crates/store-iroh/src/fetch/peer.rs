//! A peer that speaks iroh-blobs' protocol, as the engine's fetch sees it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use iroh::endpoint::{Connection, RecvStream};
use iroh_blobs::protocol::Request;
use larder_store_api::{Error, Kind};
use larder_store_engine::{
    Hash,
    fetch::{Answer, Fault, Provider, Wanted},
};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    failure::{connection_failed, stream_failed},
    observe::observe,
    progress::Progress,
    request::{of_what_is_had, request},
};

/// The number of blobs that a peer is asked about at once.
const OBSERVED: usize = 16;

/// A connection to a peer, of which blobs are asked through a root.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) progress: Arc<Progress>,
}

impl Provider for Peer {
    /// The root.
    type Of = Hash;
    type Answer = Body;

    async fn ask(&self, root: &Hash, wanted: &[Wanted]) -> Result<Body, Fault> {
        let request = Request::Get(request(*root, wanted));
        let request = postcard::to_stdvec(&request).map_err(|error| {
            let message = "a request cannot be written";
            Fault::Local(Error::new(Kind::Internal, "blobs.fetch", message).because(error))
        })?;
        let opened = self.connection.open_bi().await;
        let (mut send, recv) = opened.map_err(connection_failed)?;
        let sent = send.write_all(&request).await;
        sent.map_err(|error| stream_failed(error.into()))?;
        // It fails only where the peer has stopped it, which the answer says too.
        send.finish().ok();
        let progress = self.progress.clone();
        Ok(Body { recv, progress })
    }

    async fn has(&self, _root: &Hash, wanted: &[Wanted]) -> Result<Vec<Wanted>, Fault> {
        let asks = wanted.iter().map(|one| async move {
            match one.hash {
                Some(hash) => of_what_is_had(one, &observe(&self.connection, hash).await),
                None => Vec::new(),
            }
        });
        let asks: Vec<_> = asks.collect();
        let had = stream::iter(asks).buffered(OBSERVED).map(Ok::<_, Fault>);
        let had: Vec<Vec<Wanted>> = had.try_collect().await?;
        Ok(had.into_iter().flatten().collect())
    }
}

/// The answer to a request.
pub(super) struct Body {
    recv: RecvStream,
    progress: Arc<Progress>,
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl Answer for Body {
    /// Nobody asks for the empty blob: this is how a peer says that it has nothing.
    fn is_absent(size: u64) -> bool {
        size == 0
    }

    fn fault(error: io::Error) -> Fault {
        stream_failed(error)
    }

    fn verified(&mut self, bytes: u64) {
        self.progress.received(bytes);
    }
}
