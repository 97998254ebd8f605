//! Tests with unmodified nodes of iroh-blobs, with their memory store and their file store, and ours in
//! a folder.
#![allow(missing_docs, reason = "tests are named for what they show")]

#[macro_use]
mod nodes;

mod from_them;
mod from_us;
