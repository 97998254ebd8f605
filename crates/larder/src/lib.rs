#![cfg_attr(docsrs, feature(doc_cfg))]
//! Storage with pluggable backends for local-first and peer-to-peer apps: one crate to depend on.
//!
//! A [`Store`] is opened by its URL. It offers the same interface over every backend: blobs that are named
//! by their BLAKE3 hash and verified when they are read, tags that keep them, collections with atomic
//! batches, signed records.
//!
//! ```
//! # async fn example() -> larder::Result<()> {
//! let store = larder::Store::open("mem:").await?; // or "redb:/path/to/a/folder"
//! let blobs = store.blobs();
//! let pin = blobs.add("hello, larder".as_bytes()).await?; // durable when it returns
//! blobs.tags().set("greeting", &pin).await?;
//!
//! let root = blobs.tags().get("greeting").await?.expect("it was just set");
//! let bytes = blobs.read_to_bytes(root.hash, 7..).await?; // verified
//! assert_eq!(bytes, "larder");
//! store.close().await
//! # }
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
//! # runtime.block_on(example())?;
//! # larder::Result::<()>::Ok(())
//! ```
//!
//! A debug build of an app is slow unless its dependencies are optimised, as hashing and encryption take most of the
//! time: put `opt-level = 2` under `[profile.dev.package."*"]` into the app's `Cargo.toml`.
//!
//! Features: `redb`, the backend for servers and desktops; `veilid`, the one for phones (off by
//! default); `iroh`, serving and fetching blobs (see [`iroh`](mod@iroh)); `groups`, private
//! [`groups`](mod@groups) that replicate; `metrics`, [counters](engine::metrics::Counter) of the work that is done (off
//! by default).
//!
//! To write a backend of your own, implement two traits of [`api`](mod@api), run the suites of `store-testkit` over
//! them, and register a [`Driver`], so that URLs name it: `examples/backend.rs` is one, whole. [`Store::over`] takes
//! two stores as they are.

mod backend;
mod backends;
#[cfg(all(
    doctest,
    feature = "redb",
    feature = "iroh",
    feature = "groups",
    feature = "files"
))]
mod book;
mod builder;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "groups")]
pub mod groups;
#[cfg(any(feature = "iroh", feature = "groups"))]
pub mod iroh;
mod secrets;
mod store;
mod url;

/// The budget of file descriptors that all stores of a process share.
pub use larder_descriptors as descriptors;
/// The traits that a backend implements, and their types.
pub use larder_store_api as api;
pub use larder_store_api::{
    Batch, Bytes, Change, CollectionId, Durability, Edit, Entry, Error, Expect, IntoBytes,
    IntoCollectionId, KeyRange, Kind, Listing, Order, PublicKey, Result, Revision, Scan, Secret,
    SecretKey, SecretName, Secrets,
};
/// Blobs, collections and records over any backend.
pub use larder_store_engine as engine;
/// Counters of the work that is done, through the `metrics` crate.
#[cfg(feature = "metrics")]
pub use larder_store_engine::metrics;
pub use larder_store_engine::{
    AddOptions, Bitfield, BlobStatus, Blobs, ChunkNum, ChunkRanges, Collected, Collection,
    Collections, Encoded, FileSecrets, Finding, Format, Hash, IntoTagName, Pin, Reader, Records,
    Repair, Root, Scrubbed, Source, Swap, Tag, TagName, Tags, Transaction, Trust, Unlock,
};
/// Keys in memory, for backends that do not last.
pub use larder_store_memory::MemorySecrets;
/// The backend for servers and desktops.
#[cfg(feature = "redb")]
pub use larder_store_redb as redb;
/// The backend for phones: blobs, collections, records and secrets in a Veilid node.
#[cfg(feature = "veilid")]
pub use larder_store_veilid as veilid;
/// The node that the backend for phones needs.
#[cfg(feature = "veilid")]
pub use larder_veilid_node as veilid_node;

pub use self::{
    backend::{Backend, DiskUsage, Driver, Recovered, Unlocker},
    backends::Backends,
    builder::StoreBuilder,
    store::Store,
    url::{DeviceKey, StoreUrl},
};

/// The examples of the README, so that they are tested.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
