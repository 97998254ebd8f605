//! Endpoints of iroh, and a store's blobs over them: an engine as a genuine iroh-blobs store, serving and
//! fetching (feature `iroh`).
//!
//! An app has one endpoint, under one key, for all that it does. Serving is one protocol of its router,
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

use larder_store_api::Result;

pub use larder_net_iroh::{
    AcceptError, Endpoint, EndpointOptions, ProtocolHandler, Reach, Router, bind, transport,
};
#[cfg(feature = "iroh")]
pub use larder_store_iroh::*;

use crate::Store;

impl Store {
    /// Binds an endpoint of iroh, for all protocols that the app speaks. Its key is the store's
    /// [identity](Self::identity), so that peers know it again, unless `options` has another.
    ///
    /// # Errors
    /// The errors of [`identity`](Self::identity), and [`Kind::Unavailable`](crate::Kind::Unavailable) where the port
    /// is in use.
    pub async fn endpoint(&self, options: EndpointOptions) -> Result<Endpoint> {
        bind(self.identified(options).await?).await
    }

    /// Gives `options` the store's key where they have none.
    pub(crate) async fn identified(&self, mut options: EndpointOptions) -> Result<EndpointOptions> {
        if options.secret_key.is_none() {
            options.secret_key = Some(self.identity().await?);
        }
        Ok(options)
    }
}
