//! Endpoints, by whom they may talk to; and tickets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey, Watcher,
    endpoint::{Builder, Connection, PortmapperConfig, QuicTransportConfig, presets},
};
use iroh_blobs::ticket::BlobTicket;
use n0_future::StreamExt;
use store_api::{Error, Kind, Result};
use store_engine::Root;
use tokio::time::timeout;

use crate::convert::to_iroh_root;

/// How long a ticket waits for an address at which its endpoint can be reached.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes of a connection may have come without anybody having read them. Who fetches
/// widens it for its own connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How many bytes of a connection may be sent without having been acknowledged.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;

/// How many requests of a connection may be open.
const REQUESTS: u32 = 64;

/// Whom an endpoint talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Processes on this machine: it is bound to 127.0.0.1 and nothing else.
    Loopback,
    /// Whoever has its addresses. No third party is asked or told of anything: no relay, no DNS, no
    /// discovery, no port mapping, no probing.
    #[default]
    LanOnly,
    /// Anybody, with the relays and the discovery of iroh's makers.
    Public,
}

/// How to bind an endpoint.
#[derive(Debug, Clone, Default)]
pub struct EndpointOptions {
    /// Whom it talks to.
    pub reach: Reach,
    /// Its identity; a fresh one where there is none.
    pub secret_key: Option<SecretKey>,
    /// Its UDP port; 0 for any that is free.
    pub port: u16,
}

/// Binds an endpoint, with windows that bound what strangers can make it keep in memory.
/// [`Kind::Unavailable`] where the port is in use.
pub async fn bind(options: EndpointOptions) -> Result<Endpoint> {
    let EndpointOptions {
        reach,
        secret_key,
        port,
    } = options;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(
            Kind::Unavailable,
            "endpoint.bind",
            "the UDP port cannot be used; is another program using it?",
        )
        .with("port", port)
        .because(error)
    };
    let mut builder = match reach {
        Reach::Loopback => quiet()
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(|error| failed(error.into()))?,
        Reach::LanOnly => on_port(quiet(), port).map_err(|error| failed(error.into()))?,
        Reach::Public => {
            on_port(Endpoint::builder(presets::N0), port).map_err(|error| failed(error.into()))?
        }
    };
    // A stream's own window stays as it is: with a wider one, a burst of loss leaves more gaps than
    // the QUIC library puts up with, and it gives up the connection.
    let transport = QuicTransportConfig::builder()
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(REQUESTS.into());
    builder = builder.transport_config(transport.build());
    if let Some(key) = secret_key {
        builder = builder.secret_key(key);
    }
    builder.bind().await.map_err(|error| failed(error.into()))
}

/// An endpoint that talks to no third party.
fn quiet() -> Builder {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
}

fn on_port(builder: Builder, port: u16) -> Result<Builder, iroh::endpoint::InvalidSocketAddr> {
    if port == 0 {
        return Ok(builder);
    }
    builder.bind_addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
}

/// What a peer needs to fetch `root` from here: this endpoint's addresses, and the root.
///
/// Waits up to ten seconds for an address; [`Kind::Unavailable`] where there is none.
pub async fn ticket(endpoint: &Endpoint, root: Root) -> Result<BlobTicket> {
    let mut addresses = endpoint.watch_addr().stream();
    let reachable = async {
        loop {
            match addresses.next().await {
                Some(address) if !address.is_empty() => break Some(address),
                Some(_) => {}
                None => break None,
            }
        }
    };
    let Ok(Some(address)) = timeout(ADDRESS_TIMEOUT, reachable).await else {
        return Err(Error::new(
            Kind::Unavailable,
            "endpoint.ticket",
            "this machine has no address at which others can reach it",
        ));
    };
    let root = to_iroh_root(root);
    Ok(BlobTicket::new(address, root.hash, root.format))
}

/// Connects to a peer that serves iroh-blobs' protocol. [`Kind::Unavailable`] where it does not
/// answer within `limit`.
pub async fn connect(
    endpoint: &Endpoint,
    addr: impl Into<EndpointAddr>,
    limit: Duration,
) -> Result<Connection> {
    let addr = addr.into();
    let peer = addr.id;
    let unreachable = |message: &'static str| {
        Error::new(Kind::Unavailable, "endpoint.connect", message).with("peer", peer.fmt_short())
    };
    match timeout(limit, endpoint.connect(addr, iroh_blobs::ALPN)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(unreachable("the peer cannot be reached").because(error)),
        Err(_) => Err(unreachable(
            "the peer does not answer; is it still running?",
        )),
    }
}
