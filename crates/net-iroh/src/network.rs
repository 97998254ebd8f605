//! A node: it connects, and one task accepts for it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use iroh::{
    Endpoint, TransportAddr, Watcher,
    endpoint::{
        ConnectError, ConnectOptions, ConnectWithOptsError, ConnectingError, ConnectionError,
        Incoming, ServerConfig,
    },
};
use net_api::{Address, AddressWatch, Connection, Network};
use store_api::{Error, Kind, PublicKey, Result};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    address::{SCHEMES, parse, render},
    connection::IrohConnection,
    error::ended,
    options::{ALPN, IrohOptions, Reach, bind, transport},
};

/// How long a node is waited for that does not answer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long who connects may take to prove its key.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted, including those that have not proven their key yet.
/// More are refused.
pub const MAX_BACKLOG: usize = 64;

/// While so many wait, whoever connects first has to prove that its address is its own.
const TRUSTING_BACKLOG: usize = MAX_BACKLOG / 2;

/// TLS alerts that say that a key is not the one that was asked for, or was not proven.
const WRONG_KEY: [u64; 9] = [42, 43, 44, 45, 46, 47, 48, 49, 51];

/// A node of a network over QUIC.
///
/// Dropping it closes it, in the background; whoever wants the others to be told waits for
/// [`close`](Network::close). Its port is free a little after it was both closed and dropped.
///
/// iroh remembers where it has met a node, or was told to look for it, and tries all of that together
/// whenever it connects: an address that is out of date does no harm while nobody else is there. Where
/// another node has taken it, [`connect`](Network::connect) may fail with [`Kind::Denied`] though the
/// right one would answer elsewhere.
pub struct IrohNetwork {
    endpoint: Endpoint,
    /// Where nodes are looked for.
    reach: Reach,
    waiting: Mutex<mpsc::Receiver<IrohConnection>>,
    /// Everything is to end.
    closing: CancellationToken,
    /// Everything has ended.
    closed: CancellationToken,
}

impl IrohNetwork {
    /// Binds a node. [`Kind::Unavailable`] where the port is in use.
    pub async fn bind(options: IrohOptions) -> Result<Self> {
        let reach = options.reach;
        Ok(Self::new(bind(options).await?, reach))
    }

    /// A node over an endpoint that is there already, and that is the network's from here on: every
    /// connection that reaches it is taken, those of protocols other than [`ALPN`] are refused, and
    /// closing the network closes it. Its own protocols and limits do not matter.
    ///
    /// # Panics
    ///
    /// Outside of a runtime of tokio.
    pub fn over(endpoint: Endpoint) -> Self {
        Self::new(endpoint, Reach::Public)
    }

    /// Returns the address of a node of which only the key is known: it is looked for as
    /// [`Reach`] allows.
    pub fn address_of(node: PublicKey) -> Address {
        Address::new(SCHEMES[0], node).expect("a scheme and a key make an address")
    }

    fn new(endpoint: Endpoint, reach: Reach) -> Self {
        let (ready, waiting) = mpsc::channel(MAX_BACKLOG);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let door = Door {
            endpoint: endpoint.clone(),
            ready,
            handshakes: JoinSet::new(),
        };
        tokio::spawn(door.run(closing.clone(), closed.clone()));
        Self {
            endpoint,
            reach,
            waiting: Mutex::new(waiting),
            closing,
            closed,
        }
    }

    /// What `work` comes to, unless the network is closed before.
    async fn unless_closed<R>(&self, work: impl Future<Output = Result<R>>) -> Result<R> {
        let closed = || Error::new(Kind::Closed, "network", "it was closed");
        let done = self.closing.run_until_cancelled(work).await;
        match done {
            // Who closes ends this first, which may look like any failure.
            Some(Err(_)) if self.closing.is_cancelled() => Err(closed()),
            Some(done) => done,
            None => Err(closed()),
        }
    }
}

impl Drop for IrohNetwork {
    fn drop(&mut self) {
        self.closing.cancel();
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
        if self.closing.is_cancelled() {
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
        Box::pin(changed.take_until(self.closing.clone().cancelled_owned()))
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
        // What members tell must not lead us further than we want to go.
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
                    let why = "nobody answers";
                    let error = Error::new(Kind::Unavailable, "network.connect", why);
                    return Err(error.with("address", to));
                }
            };
            Ok(Arc::new(IrohConnection::new(inner)?) as Connection)
        })
        .await
    }

    async fn accept(&self) -> Result<Connection> {
        self.unless_closed(async {
            let mut waiting = self.waiting.lock().await;
            loop {
                match waiting.recv().await {
                    Some(gone) if gone.has_ended() => {}
                    Some(connection) => return Ok(Arc::new(connection) as Connection),
                    None => return Err(Error::new(Kind::Closed, "network", "it was closed")),
                }
            }
        })
        .await
    }

    async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}

/// Why a connection was not made.
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
        } => (Kind::Closed, "it was closed"),
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
            (Kind::Denied, "another node answers")
        }
        ConnectionError::TimedOut => (Kind::Unavailable, "nobody answers"),
        ConnectionError::LocallyClosed => (Kind::Closed, "it was closed"),
        _ => (Kind::Unavailable, "the other side refuses"),
    }
}

/// What takes connections in: those who connect do not wait for each other.
struct Door {
    endpoint: Endpoint,
    ready: mpsc::Sender<IrohConnection>,
    /// There are as many as have a place in `ready` kept for them.
    handshakes: JoinSet<()>,
}

impl Door {
    async fn run(self, closing: CancellationToken, closed: CancellationToken) {
        // However this ends, nobody waits for it any more.
        let (_closed, _closing) = (closed.drop_guard(), closing.clone().drop_guard());
        self.serve(&closing).await;
    }

    async fn serve(mut self, closing: &CancellationToken) {
        let config = self
            .endpoint
            .create_server_config_builder(vec![ALPN.to_vec()])
            .set_transport_config(transport())
            .build();
        let config = Arc::new(config);
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                Some(_) = self.handshakes.join_next() => {}
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.begin(incoming, config.clone()),
                    None => break,
                },
            }
        }
        closing.cancel();
        self.handshakes.shutdown().await;
        self.endpoint.close().await;
    }

    fn begin(&mut self, incoming: Incoming, config: Arc<ServerConfig>) {
        let Ok(place) = self.ready.clone().try_reserve_owned() else {
            return incoming.refuse();
        };
        // Packets from addresses that are made up hold no places.
        let is_crowded = self.ready.capacity() < MAX_BACKLOG - TRUSTING_BACKLOG;
        if is_crowded && !incoming.remote_addr_validated() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            return;
        }
        self.handshakes.spawn(async move {
            let made = async {
                let accepting = incoming
                    .accept_with(config)
                    .map_err(|error| ended(&error))?;
                let inner = accepting.await.map_err(|error| {
                    Error::new(Kind::Denied, "network.accept", "no handshake").because(error)
                })?;
                IrohConnection::new(inner)
            };
            match timeout(HANDSHAKE_TIMEOUT, made).await {
                Ok(Ok(connection)) => drop(place.send(connection)),
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not accepted"),
                Err(_) => tracing::debug!("who connected did not prove its key in time"),
            }
        });
    }
}
