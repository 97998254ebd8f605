//! Endpoints of iroh, by whom they may talk to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use iroh::{
    Endpoint, RelayMode,
    endpoint::{Builder, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use larder_store_api::{Error, Kind, Result, SecretKey};

/// The most bytes of a stream that may have arrived without being read. Not wider: a burst of loss
/// would leave more gaps than the QUIC library puts up with.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// The most bytes of a connection that may have arrived without being read.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The most bytes of a connection that are sent and not acknowledged: as many as somebody who
/// fetches a blob lets come without having read them.
pub const SEND_WINDOW: u64 = 16 * 1024 * 1024;

/// The most bidirectional streams that each side of a connection may have open at a time.
pub const MAX_STREAMS: u32 = 100;

/// A connection on which nothing comes for so long is lost. iroh gives up a path after half of it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval at which a quiet connection shows that it is still alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The number of free ports that are tried where no port was asked for.
const TRIES: usize = 4;

/// The name under which endpoints of one local network look for each other.
const SERVICE: &str = "larder";

/// The peers that an endpoint talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Processes on this machine: the endpoint is bound to 127.0.0.1 and ::1, or to the one of them that
    /// there is, and to nothing else.
    Loopback,
    /// Peers that have the endpoint's addresses, and peers in the same local network, which find each
    /// other's keys and addresses by multicast DNS. No third party is asked or told of anything: no
    /// relay, no DNS server, no port mapping, no probing. Where the system forbids multicast, there
    /// are only the addresses.
    ///
    /// Of the addresses that members of a group tell, [`IrohNetwork`](crate::IrohNetwork) dials none
    /// that is not private, link-local or of this machine. The addresses in a ticket were chosen by
    /// whoever pastes it, and are all dialled.
    #[default]
    LanOnly,
    /// Everybody, with the relays and the discovery of iroh's makers.
    Public,
}

impl Reach {
    /// Returns the addresses that an endpoint is bound to, one for each family.
    fn addresses(self) -> [IpAddr; 2] {
        match self {
            Self::Loopback => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::LanOnly | Self::Public => {
                [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            }
        }
    }

    /// Returns true if a node may be contacted at this address.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match (self, ip) {
            (Self::Public, _) => true,
            (Self::Loopback, ip) => ip.is_loopback(),
            (Self::LanOnly, IpAddr::V4(ip)) => {
                ip.is_loopback() || ip.is_private() || ip.is_link_local()
            }
            (Self::LanOnly, IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        }
    }
}

/// Options of an endpoint, for [`bind`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EndpointOptions {
    /// The peers that it talks to.
    pub reach: Reach,
    /// Its identity; a fresh one where there is none.
    pub secret_key: Option<SecretKey>,
    /// Its UDP port; 0 for any that is free.
    pub port: u16,
}

impl EndpointOptions {
    /// Makes options for an endpoint with a fresh identity, on any port.
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            ..Self::default()
        }
    }

    /// Sets the identity.
    pub fn with_secret_key(mut self, key: SecretKey) -> Self {
        self.secret_key = Some(key);
        self
    }

    /// Sets the UDP port.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
}

/// Binds an endpoint, for one protocol or for all protocols of an app together. Its connections have the
/// bounds of [`transport`]. It has one port, in each family of addresses (IPv4, IPv6) that the machine has.
///
/// The endpoint accepts no connection until it is given protocols, as `iroh::protocol::Router` does.
///
/// # Errors
/// [`Kind::Unavailable`] if the port is in use, or the machine has no address that the endpoint could have.
pub async fn bind(options: EndpointOptions) -> Result<Endpoint> {
    let all = options.reach.addresses().into_iter();
    let addresses: Vec<_> = all.filter(|ip| UdpSocket::bind((*ip, 0)).is_ok()).collect();
    if addresses.is_empty() {
        return Err(no_address(options.reach));
    }
    if options.port != 0 {
        return bind_to(&options, &addresses, options.port).await;
    }
    let mut tries = 0;
    loop {
        let bound = match free_port(&addresses) {
            Ok(port) => bind_to(&options, &addresses, port).await,
            Err(error) => Err(no_port(0).because(error)),
        };
        tries += 1;
        // Another program may have taken it meanwhile.
        if bound.is_ok() || tries == TRIES {
            return bound;
        }
    }
}

async fn bind_to(options: &EndpointOptions, addresses: &[IpAddr], port: u16) -> Result<Endpoint> {
    let builder = match options.reach {
        Reach::Loopback | Reach::LanOnly => quiet(),
        Reach::Public => Endpoint::builder(presets::N0),
    };
    let mut builder = builder.clear_ip_transports().transport_config(transport());
    for ip in addresses {
        let bound = builder.bind_addr(SocketAddr::from((*ip, port)));
        builder = bound.map_err(|error| no_port(port).because(error))?;
    }
    if let Some(key) = &options.secret_key {
        builder = builder.secret_key(iroh::SecretKey::from_bytes(key.expose()));
    }
    let endpoint = builder.bind().await;
    let endpoint = endpoint.map_err(|error| no_port(port).because(error))?;
    if options.reach == Reach::LanOnly {
        find_neighbours(&endpoint);
    }
    Ok(endpoint)
}

/// Returns a port that is free on each of these addresses, and hardly taken by another program in a moment.
fn free_port(addresses: &[IpAddr]) -> std::io::Result<u16> {
    let mut tries = 0;
    loop {
        let mut sockets = Vec::with_capacity(addresses.len());
        let mut port = 0;
        let taken = addresses.iter().try_for_each(|ip| {
            // A socket for all addresses of IPv6 would have those of IPv4 too.
            let ip = match ip {
                IpAddr::V6(ip) if ip.is_unspecified() && port != 0 => Ipv6Addr::LOCALHOST.into(),
                ip => *ip,
            };
            let socket = match UdpSocket::bind((ip, port)) {
                Ok(socket) => socket,
                // Without the address of its loopback, nobody there can have the port.
                Err(error) if port != 0 && error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            port = socket.local_addr()?.port();
            sockets.push(socket);
            Ok(())
        });
        tries += 1;
        match taken {
            Ok(()) => return Ok(port),
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => {}
        }
    }
}

fn no_port(port: u16) -> Error {
    Error::new(
        Kind::Unavailable,
        "endpoint.bind",
        "the UDP port cannot be used; is another program using it?",
    )
    .with("port", port)
}

fn no_address(reach: Reach) -> Error {
    let message = match reach {
        Reach::Loopback => {
            "this machine has neither 127.0.0.1 nor ::1; set its loopback interface up"
        }
        _ => "this machine has neither IPv4 nor IPv6; set one of its network interfaces up",
    };
    Error::new(Kind::Unavailable, "endpoint.addresses", message)
}

/// Returns the bounds of the connections of an endpoint that [`bind`] made. An app that binds its endpoint
/// itself gives it these, or bounds of its own: they say how much memory a peer can make it use, and after
/// what time a peer that is gone is noticed.
pub fn transport() -> QuicTransportConfig {
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    QuicTransportConfig::builder()
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_idle_timeout(Some(idle.into()))
        .keep_alive_interval(KEEP_ALIVE)
        .build()
}

/// An endpoint that talks to no third party.
fn quiet() -> Builder {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
}

fn find_neighbours(endpoint: &Endpoint) {
    let neighbours = MdnsAddressLookup::builder()
        .service_name(SERVICE)
        .build(endpoint.id());
    match (neighbours, endpoint.address_lookup()) {
        (Ok(neighbours), Ok(lookup)) => lookup.add(neighbours),
        // Those who have its addresses reach it all the same.
        (Err(error), _) => tracing::warn!(%error, "nobody is found by multicast DNS"),
        (_, Err(error)) => tracing::warn!(%error, "nobody is found by multicast DNS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_further_than_the_reach_is_not_dialled() {
        let near = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"];
        let lan = [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ];
        let far = [
            "8.8.8.8",
            "172.32.0.1",
            "192.169.0.1",
            "2001:db8::1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
        ];
        let all = |ips: &[&str], reach: Reach| {
            let within = |ip: &&str| reach.contains(ip.parse().unwrap());
            ips.iter().filter(|ip| within(ip)).count()
        };
        for (ips, expected) in [
            (&near[..], [near.len(), near.len(), near.len()]),
            (&lan, [0, lan.len(), lan.len()]),
            (&far, [0, 0, far.len()]),
        ] {
            let found = [Reach::Loopback, Reach::LanOnly, Reach::Public].map(|r| all(ips, r));
            assert_eq!(found, expected, "{ips:?}");
        }
    }
}
