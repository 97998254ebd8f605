//! Every public call of the engine, dropped at every one of its awaits, over stores that finish what
//! a dropped call began: nothing acknowledged is lost, what is claimed is there, nothing stays that
//! nobody claims, and the call can be made again.

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
