//! An engine and iroh: any engine as a genuine iroh-blobs store, served to whom the app chose, and
//! filled from peers.
//!
//! * [`iroh_store`] makes an engine a store that everything made for iroh-blobs takes.
//! * [`serve`] answers peers, for what [`Shares`] opens; nothing is open at first.
//! * [`fetch`] gets a blob, or all that a hash sequence names, from a peer: verified, resumable, and
//!   durable when it returns.
//! * [`store_collection`] and [`load_collection`] are folders as iroh knows them.
//! * [`bind`] makes an endpoint that talks to whom it is told to, and [`ticket`] says how to reach it.
//!
//! An engine's names and iroh's are the same bytes; [`to_iroh_hash`] and its siblings translate.

mod collection;
mod convert;
mod door;
mod endpoint;
mod fetch;
mod serve;
mod store;
mod temp_tags;

pub use iroh::{Endpoint, EndpointAddr, SecretKey, endpoint::Connection, protocol::Router};
pub use iroh_blobs::{ALPN, ticket::BlobTicket};

pub use self::{
    collection::{MAX_ENTRIES, MAX_NAMES_LEN, load_collection, store_collection},
    convert::{to_engine_hash, to_engine_root, to_iroh_hash, to_iroh_root},
    endpoint::{EndpointOptions, Reach, bind, connect, ticket},
    fetch::{
        FetchOptions, FetchProgress, FetchProgressFn, Fetched, MAX_HASH_SEQ_LEN, MAX_STREAMS, fetch,
    },
    serve::{
        MAX_CONNECTIONS, MAX_OPEN_CHILDREN, MAX_REQUESTS, MAX_SHARES, Provider, REQUEST_TIMEOUT,
        Share, Shares, serve,
    },
    store::{OnShutdown, iroh_store, iroh_store_with},
};
