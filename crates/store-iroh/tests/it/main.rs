//! The crate from outside: through iroh-blobs' public API, over real connections on loopback, and
//! against peers that break the rules. One binary, for linking iroh takes longer than running it.
#![allow(clippy::unwrap_used)]

mod cancel;
mod collections;
mod commands;
mod export;
mod faults;
mod fetch;
mod hostile;
mod interop;
mod protect;
mod strangers;
mod support;
mod tickets;
