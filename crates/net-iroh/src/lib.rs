//! The [`Network`](net_api::Network) between members over [iroh]'s QUIC.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> store_api::Result<()> {
//! use net_iroh::{IrohNetwork, IrohOptions, Reach};
//! use net_api::Network;
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
//!
//! # Streams
//!
//! A stream that its opener gave up before the other side accepted it may be passed over in silence.
//! It counts among the [`MAX_STREAMS`] until the other side has come to it, so that whoever never
//! accepts is opened [`MAX_STREAMS`] streams and no more.
//!
//! # Closing
//!
//! Whatever waits ends at once. [`close`](net_api::Network::close) itself then waits until the
//! others have heard of it, up to about three seconds where they do not answer; cancelled, it goes on
//! in the background.

mod address;
mod connection;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod network;
mod options;
mod stream;

pub use address::{MAX_IPS, MAX_RELAY_LEN};
pub use network::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, IrohNetwork, MAX_BACKLOG};
pub use options::{
    ALPN, CONNECTION_WINDOW, IDLE_TIMEOUT, IrohOptions, KEEP_ALIVE, MAX_STREAMS, Reach,
    SEND_WINDOW, STREAM_WINDOW,
};
