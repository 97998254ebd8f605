//! Tests that drop every public call of the engine at every one of its awaits, over stores that
//! complete what a dropped call began: nothing acknowledged is lost, claimed data is there, no
//! unclaimed data stays, and the call can be repeated.

#[path = "../common/mod.rs"]
mod common;

mod adds;
mod fetches;
mod imports;
mod others;
#[path = "../fetch/peers.rs"]
#[allow(dead_code, reason = "here all peers are honest")]
mod peers;
mod said;
mod secrets;
mod world;

use world::{ALL, After, World, at_every_await};
