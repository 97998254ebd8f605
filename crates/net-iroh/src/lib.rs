//! The [`Network`](sync::network::Network) between members over [iroh]'s QUIC.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> store_api::Result<()> {
//! use net_iroh::{IrohNetwork, IrohOptions, Reach};
//! use sync::network::Network;
//!
//! let options = || IrohOptions { reach: Reach::Loopback, ..Default::default() };
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
//! # Addresses
//!
//! `iroh:<key>?ip=<address:port>&ip=…&relay=<url>`: the key in hexadecimal, up to [`MAX_IPS`] socket
//! addresses, and at last at most one relay. All but the key may be missing: the node is then looked
//! for where its [`Reach`] allows.
//!
//! The key is part of the address, and iroh proves it: whoever expects another is refused before
//! anything is sent.

mod address;
mod connection;
mod network;
mod options;
mod stream;

pub use address::{MAX_IPS, MAX_RELAY_LEN};
pub use network::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, IrohNetwork, MAX_BACKLOG};
pub use options::{
    ALPN, CONNECTION_WINDOW, IDLE_TIMEOUT, IrohOptions, KEEP_ALIVE, MAX_STREAMS, Reach,
    SEND_WINDOW, STREAM_WINDOW,
};
