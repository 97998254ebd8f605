//! A simulated network in memory, for tests: it can be slow, lossy, partitioned and dishonest.
//!
//! The seed determines everything that happens. On a single-threaded runtime whose clock is paused from
//! the start (`#[tokio::test(start_paused = true)]`), and without other threads or randomness (groups
//! use none within a `larder_store_engine::simulation`), two runs with the same seed have the same
//! [trace](SimNetwork::trace). `tokio::select!` has randomness of its own unless it is `biased`.
//!
//! The end of a connection discards everything that its sides have not read, so that code which relies
//! on more than [`Network`] promises is found out. Time is measured in milliseconds, like tokio's
//! timers, but bandwidths are exact over many chunks.
//!
//! ```
//! # use std::time::Duration;
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder_store_api::PublicKey;
//! use larder_net_api::Network;
//! use larder_sync_sim::{Link, SimNetwork};
//!
//! let sim = SimNetwork::new(7);
//! sim.set_default_link(Link { latency: Duration::from_millis(50), ..Link::default() });
//! let (ada, bob) = (sim.node(PublicKey([1; 32])), sim.node(PublicKey([2; 32])));
//! let to_bob = ada.connect(&bob.addresses()[0], Some(bob.key())).await?;
//! let mut stream = to_bob.open().await?;
//! stream.send.write_all(b"hello").await?;
//! stream.send.shutdown().await?;
//!
//! let from_ada = bob.accept().await?;
//! assert_eq!(from_ada.peer(), ada.key());
//! let mut heard = Vec::new();
//! from_ada.accept().await?.recv.read_to_end(&mut heard).await?;
//! assert_eq!(heard, b"hello");
//! # Ok(())
//! # }
//! ```

mod anchor;
mod connection;
mod error;
mod flow;
mod garble;
mod life;
mod node;
mod pipe;
mod random;
mod search;
mod settings;
mod stream;
mod trace;
mod world;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use larder_store_api::{PublicKey, Result};

pub use garble::garble;
pub use search::{Finding, MAX_FINDINGS, MAX_PATTERN_LEN, MAX_PATTERNS, MIN_PATTERN_LEN};
pub use settings::{
    CONNECT_TIMEOUT, Flow, Held, IDLE_TIMEOUT, Limits, Link, MAX_BACKLOG, MAX_CHUNK_LEN,
    MAX_STREAMS, STREAM_WINDOW, Traffic,
};
pub use trace::TRACE_LEN;

use error::lost;
use larder_net_api::Network;
use node::SimNode;
use search::Search;
use trace::Happening;
use world::{Shared, World};

/// The position of the bytes that a [`Tamper`] gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// The key of the sender.
    pub from: PublicKey,
    /// The key of the receiver.
    pub to: PublicKey,
    /// The number of the connection, counted from 0 in the whole network.
    pub connection: u64,
    /// The number of the stream, counted from 0 in the connection.
    pub stream: u64,
    /// 0 is the direction from the side that opened the stream, 1 is the answer.
    pub direction: usize,
    /// The number of bytes that were sent before in this direction of the stream.
    pub offset: u64,
}

/// Rewrites the bytes that a node sends, in chunks of at most [`MAX_CHUNK_LEN`]; the link determines
/// how a stream is cut into chunks. The result may have another length. It must not use the network
/// itself.
///
/// [`garble`] makes one.
pub type Tamper = Box<dyn FnMut(&Crossing, Bytes) -> Bytes + Send>;

/// A simulated network, and its controls. Clones are handles to the same network.
///
/// Nodes are named by their keys. Settings of a node that was never started apply once it starts.
#[derive(Debug, Clone)]
pub struct SimNetwork(Arc<Shared>);

impl SimNetwork {
    /// Creates a perfect network without nodes. Call this inside the runtime that uses the network: it
    /// starts one task there, which ends with the network.
    pub fn new(seed: u64) -> Self {
        Self(Shared::new(seed))
    }

    /// Starts the node with this key. If the node is up, this returns another handle to it; if it
    /// crashed or was closed, it starts again, and handles of its earlier life stay closed.
    ///
    /// The network trusts that the caller holds the key.
    pub fn node(&self, key: PublicKey) -> Arc<dyn Network> {
        Arc::new(SimNode::start(&self.0, key))
    }

    /// Sets all links that have no settings of their own.
    pub fn set_default_link(&self, link: Link) {
        self.0.with(|world| {
            world.default_link = link;
            world.say(Happening::Changed {
                what: format!("default {link:?}"),
            });
            world.relink();
        });
    }

    /// Sets the link from one node to another, in this direction.
    pub fn set_link(&self, from: PublicKey, to: PublicKey, link: Link) {
        self.0.with(|world| set_link(world, from, to, link));
    }

    /// Sets the link between two nodes, in both directions.
    pub fn set_links(&self, a: PublicKey, b: PublicKey, link: Link) {
        self.0.with(|world| {
            set_link(world, a, b, link);
            set_link(world, b, a, link);
        });
    }

    /// Sets the limits of a node over all its links.
    pub fn set_limits(&self, node: PublicKey, limits: Limits) {
        self.0.with(|world| {
            let node = world.node(node);
            world.nodes[node].limits = limits;
            world.say(Happening::Changed {
                what: format!("n{node} {limits:?}"),
            });
        });
    }

    /// Cuts these nodes from all others, as [`Flow::Cut`] does, until [`heal`](Self::heal). Further
    /// partitions are added to it.
    pub fn partition(&self, nodes: &[PublicKey]) {
        self.0.with(|world| {
            let island: BTreeSet<_> = nodes.iter().map(|key| world.node(*key)).collect();
            world.say(Happening::Changed {
                what: format!("cut off: nodes {island:?}"),
            });
            world.islands.push(island);
            world.relink();
        });
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.0.with(|world| {
            world.islands.clear();
            world.say(Happening::Changed {
                what: "healed".to_owned(),
            });
            world.relink();
        });
    }

    /// Breaks all connections between two nodes, at once and for both.
    pub fn break_connections(&self, a: PublicKey, b: PublicKey) {
        self.0.with(|world| {
            let (a, b) = (world.node(a), world.node(b));
            let between = world.connections.iter();
            let between = between.filter(|(_, c)| c.nodes == [a, b] || c.nodes == [b, a]);
            let ids: Vec<_> = between.map(|(id, _)| *id).collect();
            for id in ids {
                world.break_connection(id);
            }
        });
    }

    /// Ends a node like a killed process: its handles are closed, and its peers learn of it as soon as
    /// its system can tell them. Bytes that had left it may still arrive. [`node`](Self::node) starts
    /// it again.
    pub fn crash(&self, node: PublicKey) {
        self.0.with(|world| {
            let node = world.node(node);
            world.take_down(node, "crashes", Some(&lost("the other side crashed")));
        });
    }

    /// Ends a node like a loss of power: as [`crash`](Self::crash), but its peers are not told, and
    /// find out after [`IDLE_TIMEOUT`].
    pub fn unplug(&self, node: PublicKey) {
        self.0.with(|world| {
            let node = world.node(node);
            world.take_down(node, "loses its power", None);
        });
    }

    /// Gives a node another address, whether it is up or down. The previous address is never reachable
    /// again; connections continue.
    pub fn readdress(&self, node: PublicKey) {
        self.0.with(|world| {
            let node = world.node(node);
            world.readdress(node);
        });
    }

    /// Sets a function that rewrites everything that a node sends; `None` removes it.
    pub fn set_tamper(&self, node: PublicKey, tamper: Option<Tamper>) {
        let old = self.0.with(|world| {
            let node = world.node(node);
            std::mem::replace(&mut world.nodes[node].tamper, tamper)
        });
        drop(old);
    }

    /// Makes a node stop sending after this many bytes on each stream, without telling its peers that
    /// it ends. Connections continue, and the node still receives. `None` removes the limit; streams
    /// that have lost bytes by then continue without them.
    pub fn set_stall(&self, node: PublicKey, after: Option<u64>) {
        self.0.with(|world| {
            let node = world.node(node);
            world.nodes[node].stall = after;
            world.say(Happening::Changed {
                what: format!("n{node} stalls after {after:?}"),
            });
        });
    }

    /// Returns the traffic of a node, over all its lives.
    pub fn traffic(&self, node: PublicKey) -> Traffic {
        self.0.with(|world| {
            let node = world.node(node);
            world.nodes[node].traffic
        })
    }

    /// Returns the traffic of all nodes together.
    pub fn total(&self) -> Traffic {
        self.0.with(|world| {
            let each = world.nodes.iter().map(|node| node.traffic);
            each.fold(Traffic::default(), |sum, node| Traffic {
                sent: sum.sent + node.sent,
                received: sum.received + node.received,
                connections: sum.connections + node.connections,
                streams: sum.streams + node.streams,
            })
        })
    }

    /// Returns the resources that the network holds now.
    pub fn held(&self) -> Held {
        self.0.with(|world| {
            let streams = world.connections.values().flat_map(|c| c.streams.values());
            let pipes = streams.clone().flat_map(|stream| &stream.pipes);
            Held {
                bytes: pipes.map(|pipe| pipe.held()).sum(),
                connections: world.connections.len(),
                streams: streams.count(),
            }
        })
    }

    /// Searches everything that is sent from now on for patterns, after tampering, across chunks of a
    /// stream, and in the reasons of closes. Earlier findings are discarded.
    ///
    /// At most [`MAX_PATTERNS`] patterns, each of [`MIN_PATTERN_LEN`] to [`MAX_PATTERN_LEN`] bytes.
    pub fn search_for(&self, patterns: &[impl AsRef<[u8]>]) -> Result<()> {
        let search = Search::new(patterns)?;
        self.0.with(|world| world.search = Some(search));
        Ok(())
    }

    /// Returns the first [`MAX_FINDINGS`] findings of the search.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.with(|world| {
            let search = world.search.as_ref();
            search
                .map(|search| search.findings.clone())
                .unwrap_or_default()
        })
    }

    /// Adds a line to the trace.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.0.with(|world| world.say(Happening::Note { text }));
    }

    /// Returns the latest [`TRACE_LEN`] lines of the trace, with times in seconds since the network was
    /// made. Nodes are numbered in the order in which they were first mentioned.
    pub fn trace(&self) -> Vec<String> {
        self.0.with(|world| world.trace.lines())
    }

    /// Returns a hash of the whole trace: two runs with different hashes were different.
    pub fn fingerprint(&self) -> u64 {
        self.0.with(|world| world.trace.fingerprint())
    }
}

fn set_link(world: &mut World, from: PublicKey, to: PublicKey, link: Link) {
    let (from, to) = (world.node(from), world.node(to));
    world.route(from, to).link = Some(link);
    world.say(Happening::Changed {
        what: format!("n{from} to n{to}: {link:?}"),
    });
    world.relink();
}
