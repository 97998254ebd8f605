//! Endpoints of [iroh], and the [`Network`](larder_net_api::Network) between members over its QUIC.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_store_api::Result<()> {
//! use larder_net_iroh::{EndpointOptions, IrohNetwork, Reach};
//! use larder_net_api::Network;
//!
//! let options = || EndpointOptions::new(Reach::Loopback);
//! let (here, there) = (IrohNetwork::bind(options()).await?, IrohNetwork::bind(options()).await?);
//! let address = there.addresses().remove(0);
//! let (out, back) = tokio::join!(here.connect(&address, Some(there.key())), there.accept());
//! assert_eq!(out?.binding(), back?.binding());
//! here.close().await;
//! there.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # One endpoint for all protocols
//!
//! [`IrohNetwork::bind`] binds an endpoint for the network alone. An app with other protocols binds one
//! itself, by [`bind`] or otherwise, and registers a network of [`IrohNetwork::new`] for [`ALPN`] with its
//! `iroh::protocol::Router`, beside them: peers meet one key at one address.
//!
//! # Addresses
//!
//! `iroh:<key>?ip=<address:port>&ip=…&relay=<url>`: the key in hexadecimal, up to [`MAX_IPS`] socket
//! addresses, and at last at most one relay. All but the key may be missing: the node is then looked
//! for where its [`Reach`] allows.
//!
//! The key is part of the address, and iroh proves it: whoever expects another is refused before
//! anything is sent.
//!
//! # Streams
//!
//! A stream that its opener gave up before the other side accepted it may be passed over in silence.
//! It counts among the [`MAX_STREAMS`] until the other side has come to it, so that whoever never
//! accepts is opened [`MAX_STREAMS`] streams and no more.
//!
//! # Closing
//!
//! All calls that wait end at once. [`close`](larder_net_api::Network::close) of a network with an endpoint of its
//! own then waits until the others have heard of it, up to half a second where they do not answer;
//! cancelled, it goes on in the background. On an app's endpoint it does not wait: the endpoint goes on,
//! and tells them.

mod accept;
mod address;
mod connection;
mod endpoint;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod inbox;
mod network;
mod stream;

pub use iroh::{
    Endpoint,
    protocol::{AcceptError, ProtocolHandler, Router},
};

pub use accept::HANDSHAKE_TIMEOUT;
pub use address::{MAX_IPS, MAX_RELAY_LEN};
pub use endpoint::{
    CONNECTION_WINDOW, EndpointOptions, IDLE_TIMEOUT, KEEP_ALIVE, MAX_STREAMS, Reach, SEND_WINDOW,
    STREAM_WINDOW, bind, transport,
};
pub use inbox::MAX_BACKLOG;
pub use network::{ALPN, CONNECT_TIMEOUT, IrohNetwork};
