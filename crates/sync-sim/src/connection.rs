//! One side of a simulated connection.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use larder_store_api::{Error, Kind, PublicKey, Result};

use super::{
    anchor::Anchor,
    pipe::Pipe,
    settings::MAX_STREAMS,
    stream::stream,
    trace::Happening,
    world::{Shared, Streams, World},
};
use larder_net_api::{Connection, ConnectionApi, Stream};

pub(super) struct SimConnection {
    anchor: Arc<Anchor>,
    peer: PublicKey,
    binding: [u8; 32],
}

impl SimConnection {
    /// Returns a side of a connection that exists.
    pub(super) fn of_side(
        sim: &Arc<Shared>,
        world: &World,
        id: u64,
        side: usize,
    ) -> Option<Connection> {
        let conn = world.connections.get(&id)?;
        let keys = conn.nodes.map(|node| world.nodes[node].key);
        let mut binding = blake3::Hasher::new();
        binding.update(b"simulated connection");
        binding.update(&keys[0].0).update(&keys[1].0);
        binding
            .update(&world.seed.to_be_bytes())
            .update(&id.to_be_bytes());
        Some(Arc::new(Self {
            anchor: Arc::new(Anchor {
                sim: sim.clone(),
                id,
                side,
                state: conn.sides[side].clone(),
            }),
            peer: keys[1 - side],
            binding: *binding.finalize().as_bytes(),
        }))
    }

    /// Waits until `look` returns a value or the connection has ended.
    async fn wait<R>(&self, look: impl Fn(&mut World) -> Option<R>) -> Result<R> {
        let state = &self.anchor.state;
        loop {
            let changed = state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.anchor.sim.with(|world| match state.ended.get() {
                Some(error) => Some(Err(error.clone())),
                None => look(world).map(Ok),
            });
            if let Some(found) = found {
                return found;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, side) = (self.anchor.id, self.anchor.side);
        write!(f, "SimConnection({id}, side {side}, with {})", self.peer)
    }
}

#[async_trait]
impl ConnectionApi for SimConnection {
    fn peer(&self) -> PublicKey {
        self.peer
    }

    fn binding(&self) -> [u8; 32] {
        self.binding
    }

    async fn open(&self) -> Result<Stream> {
        let Anchor { id, side, .. } = *self.anchor;
        let number = self.wait(|world| {
            let now = world.now;
            let conn = world.connections.get_mut(&id)?;
            if conn.opened[side] >= MAX_STREAMS {
                return None;
            }
            conn.opened[side] += 1;
            let stream = conn.next_stream;
            conn.next_stream += 1;
            let streams = Streams {
                opener: side,
                pipes: [Pipe::new(now), Pipe::new(now)],
                announced: false,
                halves: 4,
            };
            conn.streams.insert(stream, streams);
            let node = conn.nodes[side];
            world.nodes[node].traffic.streams += 1;
            world.say(Happening::Opened {
                connection: id,
                stream,
                side,
            });
            Some(stream)
        });
        Ok(stream(&self.anchor, number.await?, side))
    }

    async fn accept(&self) -> Result<Stream> {
        let Anchor { id, side, .. } = *self.anchor;
        let number = self.wait(|world| {
            let conn = world.connections.get_mut(&id)?;
            conn.incoming[side].pop_front()
        });
        Ok(stream(&self.anchor, number.await?, 1 - side))
    }

    fn close(&self, reason: &str) {
        self.anchor.close(reason);
    }

    async fn closed(&self) -> Error {
        match self.wait(|_| None::<Error>).await {
            Err(error) => error,
            Ok(_) => Error::new(
                Kind::Internal,
                "network.connection",
                "the connection ended without a reason",
            ),
        }
    }
}
