//! Tests that kill processes with SIGKILL at random points, and check the acknowledged data.
#![allow(missing_docs, reason = "tests are named for what they show")]

mod adds;
mod dropped;
mod fetches;
mod power;
mod records;
