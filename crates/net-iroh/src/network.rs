//! A node of the network: on an endpoint of its own, or as one protocol of an app's endpoint.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use iroh::{
    Endpoint, TransportAddr, Watcher,
    endpoint::{
        Accepting, ConnectError, ConnectOptions, ConnectWithOptsError, ConnectingError,
        ConnectionError,
    },
    protocol::{AcceptError, ProtocolHandler},
};
use larder_net_api::{Address, AddressWatch, Connection, Network};
use larder_store_api::{Error, Kind, PublicKey, Result};
use tokio::time::timeout;

use crate::{
    accept::{Acceptor, HANDSHAKE_TIMEOUT},
    address::{SCHEMES, parse, render},
    connection::CLOSED,
    endpoint::{EndpointOptions, Reach, bind, transport},
    inbox::{Inbox, Life, Waiting, inbox},
};

/// The protocol, as connections name it.
pub const ALPN: &[u8] = b"larder/sync/1";

/// The time after which a node that does not answer is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS alerts that say that a key is not the one that was asked for, or was not proven.
const WRONG_KEY: [u64; 9] = [42, 43, 44, 45, 46, 47, 48, 49, 51];

/// A node of a network over QUIC.
///
/// [`bind`](Self::bind) gives it an endpoint of its own. [`new`](Self::new) makes it one protocol of an
/// endpoint that an app has, which hands it connections as a [`ProtocolHandler`].
///
/// Dropping it closes it, in the background; whoever wants the others to be told waits for
/// [`close`](Network::close). The port of an endpoint of its own is free a little after it was both
/// closed and dropped. A `Router` holds what is registered with it, so that a network there lives until it
/// is closed or the router is gone.
///
/// iroh remembers where it has met a node, or was told to look for it, and tries all of that together
/// whenever it connects: an address that is out of date does no harm while nobody else is there. Where
/// another node has taken it, [`connect`](Network::connect) may fail with [`Kind::Denied`] though the
/// right one would answer elsewhere.
pub struct IrohNetwork {
    endpoint: Endpoint,
    /// The networks in which nodes are looked for.
    reach: Reach,
    inbox: Inbox,
    waiting: Waiting,
    life: Life,
}

impl IrohNetwork {
    /// Binds an endpoint, and makes a node that owns it: closing the node closes the endpoint.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the port is in use.
    pub async fn bind(options: EndpointOptions) -> Result<Self> {
        let reach = options.reach;
        Ok(Self::owning(bind(options).await?, reach))
    }

    /// Makes a node that owns an endpoint, as [`bind`](Self::bind) does, of one that is there already and
    /// accepts nothing else. `reach` is as in [`new`](Self::new).
    pub fn owning(endpoint: Endpoint, reach: Reach) -> Self {
        let network = Self::new(endpoint, reach);
        network.endpoint.set_alpns(vec![ALPN.to_vec()]);
        let acceptor = Acceptor::new(network.endpoint.clone(), network.inbox.clone());
        let life = &network.life;
        life.tasks.spawn(acceptor.run(life.closing.clone()));
        network
    }

    /// Makes a node that uses an endpoint together with other protocols. Of the addresses that it is told,
    /// it dials those within `reach`: that of the [`EndpointOptions`] where [`bind`] made the endpoint.
    ///
    /// It accepts what an iroh `Router` hands it: register it there for [`ALPN`], in an `Arc` to keep it.
    /// Connections beyond [`MAX_BACKLOG`](crate::MAX_BACKLOG) that nobody has accepted yet are closed at
    /// once. The router bounds neither how many may be proving their key nor who may try: that is for the
    /// app and its `incoming_filter`.
    ///
    /// Closing the node closes its connections; the endpoint, the router and other protocols go on, and
    /// peers that connect from then on are closed at once. Shutting the router down closes the node.
    ///
    /// Connections that it makes have the bounds of [`transport`]; those that it is handed have the bounds of
    /// the endpoint. Of these it lowers what can be lowered: not more than
    /// [`MAX_STREAMS`](crate::MAX_STREAMS) are accepted at a time, and further ones wait. The most bytes that
    /// may have arrived without being read, and the time after which a peer that is gone is noticed, were
    /// decided when the endpoint was bound: with [`bind`], or with [`transport`].
    pub fn new(endpoint: Endpoint, reach: Reach) -> Self {
        let life = Life::default();
        let (inbox, waiting) = inbox(&life);
        Self {
            endpoint,
            reach,
            inbox,
            waiting,
            life,
        }
    }

    /// Returns the address of a node of which only the key is known: it is looked for as
    /// [`Reach`] allows.
    pub fn address_of(node: PublicKey) -> Address {
        Address::new(SCHEMES[0], node).expect("a scheme and a key make an address")
    }

    /// Does `work`, unless the network is closed before it is done.
    async fn unless_closed<R>(&self, work: impl Future<Output = Result<R>>) -> Result<R> {
        let closed = || Error::new(Kind::Closed, "network", "this network was closed");
        let done = self.life.closing.run_until_cancelled(work).await;
        match done {
            // Closing ends this work first, which may look like any failure.
            Some(Err(_)) if self.life.closing.is_cancelled() => Err(closed()),
            Some(done) => done,
            None => Err(closed()),
        }
    }
}

impl Drop for IrohNetwork {
    fn drop(&mut self) {
        self.life.closing.cancel();
    }
}

impl fmt::Debug for IrohNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IrohNetwork({})", self.key())
    }
}

#[async_trait]
impl Network for IrohNetwork {
    fn schemes(&self) -> &[&str] {
        &SCHEMES
    }

    fn key(&self) -> PublicKey {
        PublicKey(*self.endpoint.id().as_bytes())
    }

    fn addresses(&self) -> Vec<Address> {
        if self.life.closing.is_cancelled() {
            return Vec::new();
        }
        render(&self.endpoint.addr()).into_iter().collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PublicKey> {
        let peer = parse(address).ok()?;
        Some(PublicKey(*peer.id.as_bytes()))
    }

    fn watch_addresses(&self) -> AddressWatch {
        let mut last = None;
        let changed = self.endpoint.watch_addr().stream().filter_map(move |addr| {
            let now: Vec<_> = render(&addr).into_iter().collect();
            let is_new = last.as_ref() != Some(&now);
            last = Some(now.clone());
            std::future::ready(is_new.then_some(now))
        });
        Box::pin(changed.take_until(self.life.closing.clone().cancelled_owned()))
    }

    async fn connect(&self, to: &Address, expect: Option<PublicKey>) -> Result<Connection> {
        let mut peer = parse(to)?;
        if peer.id == self.endpoint.id() {
            let why = "it is the address of this node";
            return Err(Error::new(Kind::Invalid, "network.connect", why));
        }
        if expect.is_some_and(|key| key.0 != *peer.id.as_bytes()) {
            let why = "it is the address of another node than expected";
            return Err(Error::new(Kind::Denied, "network.connect", why).with("address", to));
        }
        // Addresses that members tell must not lead us outside our reach.
        peer.addrs.retain(|addr| match addr {
            TransportAddr::Ip(addr) => self.reach.contains(addr.ip()),
            _ => self.reach == Reach::Public,
        });
        self.unless_closed(async {
            let options = ConnectOptions::new().with_transport_config(transport());
            let attempt = async {
                let connecting = self.endpoint.connect_with_opts(peer, ALPN, options).await?;
                Ok(connecting.await?)
            };
            let inner = match timeout(CONNECT_TIMEOUT, attempt).await {
                Ok(made) => made.map_err(|error| not_made(error).with("address", to))?,
                Err(_) => {
                    let why = "nobody answers at this address";
                    let error = Error::new(Kind::Unavailable, "network.connect", why);
                    return Err(error.with("address", to));
                }
            };
            Ok(Arc::new(self.life.adopt(inner)?) as Connection)
        })
        .await
    }

    async fn accept(&self) -> Result<Connection> {
        self.unless_closed(async {
            match self.waiting.next().await {
                Some(connection) => Ok(Arc::new(connection) as Connection),
                None => Err(Error::new(
                    Kind::Closed,
                    "network",
                    "this network was closed",
                )),
            }
        })
        .await
    }

    async fn close(&self) {
        self.life.end().await;
    }
}

impl ProtocolHandler for IrohNetwork {
    async fn on_accepting(
        &self,
        accepting: Accepting,
    ) -> Result<iroh::endpoint::Connection, AcceptError> {
        match timeout(HANDSHAKE_TIMEOUT, accepting).await {
            Ok(made) => Ok(made?),
            Err(late) => Err(AcceptError::from_err(late)),
        }
    }

    async fn accept(&self, connection: iroh::endpoint::Connection) -> Result<(), AcceptError> {
        match self.inbox.place() {
            Some(place) => place.take(connection),
            None => connection.close(CLOSED, b"too many connections wait to be accepted"),
        }
        Ok(())
    }

    async fn shutdown(&self) {
        self.close().await;
    }
}

/// Returns the error that says why a connection was not made.
fn not_made(error: ConnectError) -> Error {
    let (kind, why) = match &error {
        ConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        }
        | ConnectError::Connection { source, .. } => why_not(source),
        ConnectError::Connecting {
            source: ConnectingError::HandshakeFailure { .. },
            ..
        } => (Kind::Denied, "the other side did not prove its key"),
        ConnectError::Connect {
            source: ConnectWithOptsError::NoAddress { .. },
            ..
        } => (Kind::Unavailable, "it is not known where that node is"),
        ConnectError::Connect {
            source: ConnectWithOptsError::EndpointClosed { .. },
            ..
        } => (Kind::Closed, "this network was closed"),
        _ => (Kind::Unavailable, "no connection can be made"),
    };
    Error::new(kind, "network.connect", why).because(error)
}

fn why_not(error: &ConnectionError) -> (Kind, &'static str) {
    match error {
        ConnectionError::TransportError(error)
            if WRONG_KEY
                .map(|alert| 0x100 | alert)
                .contains(&error.code.into()) =>
        {
            (Kind::Denied, "another node answers at this address")
        }
        ConnectionError::TimedOut => (Kind::Unavailable, "nobody answers at this address"),
        ConnectionError::LocallyClosed => (Kind::Closed, "this network was closed"),
        _ => (Kind::Unavailable, "the other side refuses"),
    }
}
