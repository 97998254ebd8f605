//! Tests of full, failing and decaying disks, of lying peers, and of the memory that handling them
//! needs.
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
