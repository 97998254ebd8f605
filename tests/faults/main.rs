//! Disks that are full, fail or rot, peers that lie, and how much memory any of it takes.
#![allow(missing_docs, reason = "tests are named for what they show")]

mod damage;
#[cfg(unix)]
mod descriptors;
mod full;
mod hostile;
mod memory;
#[cfg(target_os = "linux")]
mod read_only;
mod reads;
mod veilid;
