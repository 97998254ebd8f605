//! Every public call of the engine, dropped at every one of its awaits, over stores that finish what
//! a dropped call began: nothing acknowledged is lost, what is claimed is there, nothing stays that
//! nobody claims, and the call can be made again.

#[path = "../common/mod.rs"]
mod common;

mod adds;
mod imports;
mod others;
mod said;
mod secrets;
mod world;

use world::{ALL, After, World, at_every_await};
