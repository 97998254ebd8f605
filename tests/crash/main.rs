//! Processes that are killed with SIGKILL at random points, and what they had acknowledged by then.
#![allow(missing_docs, reason = "tests are named for what they show")]

mod adds;
mod dropped;
mod fetches;
mod power;
mod records;
