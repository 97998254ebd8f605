//! The program from outside: what it prints, what it leaves, how it ends.

mod backend;
mod bench;
mod copy;
mod demo;
#[cfg(unix)]
mod descriptors;
mod errors;
mod folders;
mod found_again;
mod get;
mod groups;
#[cfg(unix)]
mod interrupted;
mod invites;
#[cfg(unix)]
mod killed;
mod meeting;
mod network;
mod output;
mod places;
mod stored;
mod support;
mod verify;
mod walkthrough;
mod wants;
