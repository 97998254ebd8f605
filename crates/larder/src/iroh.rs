//! Endpoints of iroh, and a store's blobs over them: the engine as an iroh-blobs store, serving and
//! fetching (feature `iroh`).
//!
//! An app has one endpoint, under one key, for all its protocols. Serving is one protocol of its router,
//! [groups](mod@crate::groups) another, and protocols of the app's own stand beside them:
//!
//! ```
//! # #[cfg(all(feature = "groups", feature = "iroh"))]
//! # async fn example() -> larder::Result<()> {
//! use std::sync::Arc;
//!
//! use larder::{
//!     Store,
//!     groups::{self, IrohNetwork, ReplicateOptions, Replicator},
//!     iroh::{self, EndpointOptions, Provider, Reach, Router, Shares, ticket},
//! };
//!
//! let store = Store::open("mem:").await?;
//! let reach = Reach::Loopback;
//! let endpoint = store.endpoint(EndpointOptions::new(reach)).await?;
//!
//! let shares = Shares::new(store.blobs());
//! let network = Arc::new(IrohNetwork::new(endpoint.clone(), reach));
//! let router = Router::builder(endpoint.clone())
//!     .accept(iroh::ALPN, Provider::new(store.blobs(), &shares))
//!     .accept(groups::ALPN, network.clone())
//!     // .accept("an-app/1", a protocol of the app's own)
//!     .spawn();
//! let replicator = Replicator::start(store.groups().await?, network, ReplicateOptions::default());
//!
//! // Whoever has the ticket fetches the picture; members of groups replicate; over one endpoint.
//! let picture = store.blobs().add("a picture").await?;
//! shares.allow(picture.root())?;
//! let ticket = ticket(&endpoint, picture.root()).await?;
//! # drop(ticket);
//!
//! replicator.shutdown().await; // what else the router has goes on
//! router.shutdown().await.expect("no protocol panics");
//! store.close().await
//! # }
//! # #[cfg(all(feature = "groups", feature = "iroh"))]
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example())?;
//! # larder::Result::<()>::Ok(())
//! ```

use std::time::Duration;

use larder_store_api::{Bytes, CollectionId, Error, Kind, Result};

pub use larder_net_iroh::{
    AcceptError, Endpoint, EndpointOptions, ProtocolHandler, Reach, Router, bind, transport,
};
#[cfg(feature = "iroh")]
pub use larder_store_iroh::*;

use larder_store_engine::public_key;

use crate::Store;

/// The collection of ports: the key of the store's identity -> the port of its endpoint, u16. A copy of a store is
/// another device, and has none.
const PORTS: CollectionId = CollectionId::from_static("larder-store/ports");

/// The time for which a port that was just let go of may still count as in use.
const LET_GO: Duration = Duration::from_millis(500);
/// The interval at which to try it again.
const AGAIN: Duration = Duration::from_millis(50);

impl Store {
    /// Binds an endpoint of iroh, for all protocols that the app speaks. Its key is the store's
    /// [identity](Self::identity), so that peers know it again, unless `options` has another. It has the
    /// port of [last time](Self::last_port), so that peers find it again, unless `options` has another or that one is
    /// in use.
    ///
    /// # Errors
    /// The errors of [`identity`](Self::identity), and [`Kind::Unavailable`](crate::Kind::Unavailable) if the port
    /// of the options is in use.
    pub async fn endpoint(&self, mut options: EndpointOptions) -> Result<Endpoint> {
        if options.secret_key.is_none() {
            options.secret_key = Some(self.identity().await?);
        }
        let last = self.last_port().await?;
        if let Some(port) = last.filter(|_| options.port == 0) {
            match bind_soon(options.clone().with_port(port)).await {
                Err(error) if is_in_use(&error) => {
                    tracing::warn!(
                        port,
                        "the port of last time is in use; another one is taken"
                    );
                }
                // The remembered port stays for the next time.
                bound => return bound,
            }
        }
        let endpoint = bind(options.clone()).await?;
        let port = endpoint.bound_sockets().first().map(|socket| socket.port());
        // Another program may use the old port only for a moment: peers look for us there, so do not forget it.
        if let Some(port) = port.filter(|port| Some(*port) != last)
            && (last.is_none() || options.port != 0)
        {
            let value = Bytes::copy_from_slice(&port.to_be_bytes());
            let device = public_key(&self.identity().await?);
            self.collections()
                .put(PORTS, device.0.to_vec(), value)
                .await?;
        }
        Ok(endpoint)
    }

    /// Returns the last port of this store's device: the one that was asked for, or the free one
    /// that was found the first time.
    ///
    /// # Errors
    /// The errors of [`identity`](Self::identity); [`Kind::Corrupt`](crate::Kind::Corrupt) if the stored port is
    /// damaged.
    pub async fn last_port(&self) -> Result<Option<u16>> {
        let device = public_key(&self.identity().await?);
        let entry = self.collections().get(PORTS, device.0.to_vec()).await?;
        let Some(entry) = entry else {
            return Ok(None);
        };
        match <[u8; 2]>::try_from(&entry.value[..]) {
            Ok(port) => Ok(Some(u16::from_be_bytes(port))),
            Err(error) => {
                let message = "the remembered port of this store's endpoint is damaged";
                Err(Error::new(Kind::Corrupt, "store.endpoint", message).because(error))
            }
        }
    }
}

/// Binds an endpoint; if its port is in use, tries again for a moment: this program may have had it until now.
async fn bind_soon(options: EndpointOptions) -> Result<Endpoint> {
    let start = tokio::time::Instant::now();
    loop {
        match bind(options.clone()).await {
            Err(error) if is_in_use(&error) && start.elapsed() < LET_GO => {
                tokio::time::sleep(AGAIN).await;
            }
            bound => return bound,
        }
    }
}

fn is_in_use(error: &Error) -> bool {
    error.kind() == Kind::Unavailable && error.operation() == "endpoint.bind"
}
