//! One side of a connection.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use larder_net_api::{ConnectionApi, Stream, cut_reason};
use larder_store_api::{Error, Kind, PublicKey, Result};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    endpoint::{CONNECTION_WINDOW, MAX_STREAMS},
    error::ended,
    stream::{Place, incoming, stream},
};

/// The label that separates the binding of a connection from all other values derived from it.
const BINDING_LABEL: &[u8] = b"larder sync binding v1";

/// The code of every connection that is closed. The reason says more.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(0);

pub(crate) struct IrohConnection {
    /// The library closes a connection when its last handle and stream are dropped.
    inner: Arc<Connection>,
    binding: [u8; 32],
    /// Places for streams that the other side has opened. An endpoint that was bound with other limits
    /// than ours lets it open more; those wait, as they would have waited to be opened.
    places: Arc<Semaphore>,
    /// Streams that the other side has opened, until their first byte arrives: the accepting side does not see a
    /// stream that was merely opened, or that a later one opened implicitly. Each takes a place.
    silent: Mutex<FuturesUnordered<BoxFuture<'static, Option<Stream>>>>,
}

impl IrohConnection {
    /// [`Kind::Internal`] if the connection has nothing to bind proofs to.
    pub(crate) fn new(inner: Connection) -> Result<Self> {
        let mut binding = [0; 32];
        inner
            .export_keying_material(&mut binding, BINDING_LABEL, &[])
            .map_err(|error| {
                let why = format!("it has no keying material: {error:?}");
                Error::new(Kind::Internal, "network.connection", why)
            })?;
        // The endpoint may have been bound with other limits. They bind the other side from the start:
        // lower ones hold for what it is granted from here on.
        inner.set_max_concurrent_bi_streams(MAX_STREAMS.into());
        inner.set_max_concurrent_uni_streams(VarInt::from_u32(0));
        inner.set_receive_window(CONNECTION_WINDOW.into());
        Ok(Self {
            inner: Arc::new(inner),
            binding,
            places: Arc::new(Semaphore::new(MAX_STREAMS as usize)),
            silent: Mutex::default(),
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.inner.close_reason().is_some()
    }

    /// Waits for the next stream that the other side opens, and for a place for it.
    async fn next_opened(&self) -> Result<(SendStream, RecvStream, Place)> {
        let place = tokio::select! {
            biased;
            place = self.places.clone().acquire_owned() => place.expect("places are never closed"),
            error = self.inner.closed() => return Err(ended(&error)),
        };
        let opened = self.inner.accept_bi().await;
        let (send, recv) = opened.map_err(|error| ended(&error))?;
        Ok((send, recv, Arc::new(place)))
    }
}

impl fmt::Debug for IrohConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IrohConnection(with {})", self.peer())
    }
}

#[async_trait]
impl ConnectionApi for IrohConnection {
    fn peer(&self) -> PublicKey {
        PublicKey(*self.inner.remote_id().as_bytes())
    }

    fn binding(&self) -> [u8; 32] {
        self.binding
    }

    async fn open(&self) -> Result<Stream> {
        let (send, recv) = self.inner.open_bi().await.map_err(|error| ended(&error))?;
        Ok(stream(&self.inner, send, recv))
    }

    async fn accept(&self) -> Result<Stream> {
        let mut silent = self.silent.lock().await;
        loop {
            tokio::select! {
                biased;
                Some(first) = silent.next() => if let Some(stream) = first {
                    return Ok(stream);
                },
                opened = self.next_opened() => {
                    let (send, recv, place) = opened?;
                    silent.push(incoming(self.inner.clone(), send, recv, place).boxed());
                }
            }
        }
    }

    fn close(&self, reason: &str) {
        self.inner.close(CLOSED, cut_reason(reason).as_bytes());
    }

    async fn closed(&self) -> Error {
        ended(&self.inner.closed().await)
    }
}
