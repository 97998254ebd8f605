//! An engine and iroh: any engine as a genuine iroh-blobs store, served to whom the app chose, and
//! filled from peers.
//!
//! * [`iroh_store`] makes an engine a store that everything made for iroh-blobs takes.
//! * [`serve`] answers peers, for what [`Shares`] opens; nothing is open at first.
//! * [`fetch`] gets a blob, or all that a hash sequence names, from a peer: verified, resumable, and
//!   durable when it returns.
//! * [`store_collection`] and [`load_collection`] are folders as iroh knows them.
//! * [`ticket`] says how to reach an endpoint and what to fetch there, and [`connect`] connects to one.
//!
//! The endpoint is the app's, which may serve and fetch other things on it too: [`Provider`] is a protocol
//! for its router. `larder_net_iroh::bind` makes one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_store_api::Result<()> {
//! use std::{sync::Arc, time::Duration};
//! use larder_net_iroh::{EndpointOptions, Reach, bind};
//! use larder_store_engine::Blobs;
//! use larder_store_iroh::{
//!     FetchOptions, Shares, connect, fetch, serve, store_collection, ticket, to_engine_root,
//! };
//! use larder_store_testkit::MemoryStore;
//!
//! # async fn open() -> larder_store_api::Result<Blobs> {
//! #     let store = Arc::new(MemoryStore::new());
//! #     Blobs::open(store.clone(), store).await
//! # }
//! let options = EndpointOptions::new(Reach::Loopback);
//! let (here, there) = (open().await?, open().await?);
//!
//! // One opens a folder of one file to whoever asks, and says how to get it.
//! let file = here.add("hello").await?;
//! let folder = store_collection(&here, vec![("hello.txt".into(), file.hash())], None).await?;
//! let shares = Shares::new(&here);
//! shares.allow(folder.root())?;
//! let router = serve(&bind(options.clone()).await?, &here, &shares);
//! let ticket = ticket(router.endpoint(), folder.root()).await?;
//!
//! // The other fetches it.
//! let endpoint = bind(options).await?;
//! let limit = Duration::from_secs(10);
//! let connection = connect(&endpoint, ticket.addr().clone(), limit).await?;
//! let root = to_engine_root(ticket.hash_and_format());
//! fetch(&there, &connection, root, FetchOptions::default()).await?;
//! assert_eq!(there.read_to_bytes(file.hash(), 0..5).await?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! An engine's names and iroh's are the same bytes; [`to_iroh_hash`] and its siblings translate.

mod adapter;
mod collection;
mod convert;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod serve;
mod store;
mod temp_tags;
mod ticket;

pub use iroh::{Endpoint, EndpointAddr, endpoint::Connection, protocol::Router};
pub use iroh_blobs::{ALPN, ticket::BlobTicket};

pub use self::{
    collection::{
        MAX_ENTRIES, MAX_NAMES_LEN, folder_name, load_collection, load_folder, store_collection,
        store_folder,
    },
    convert::{to_engine_hash, to_engine_root, to_iroh_hash, to_iroh_root},
    fetch::{
        FetchOptions, FetchProgress, FetchProgressFn, Fetched, MAX_HASH_SEQ_LEN, MAX_STREAMS,
        fetch, fetch_from,
    },
    serve::{
        MAX_CONNECTIONS, MAX_OPEN_CHILDREN, MAX_REQUESTS, MAX_SHARES, Provider, REQUEST_TIMEOUT,
        Share, Shares, serve,
    },
    store::{OnShutdown, iroh_store, iroh_store_with},
    ticket::{connect, ticket},
};
