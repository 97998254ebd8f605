//! Groups, as the command line names and shows them.

mod find;
mod invites;
mod network;
mod put;
mod shown;
mod watch;

pub(crate) use self::{
    find::{Place, known, pick, place},
    invites::{Kind, print as print_invite},
    network::{Network, start},
    put::{Put, Puts, put},
    shown::{label, of_file, of_group, of_repo, short},
    watch::{Watch, watch},
};
