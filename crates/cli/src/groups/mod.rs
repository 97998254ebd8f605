//! Groups, as the command line names and shows them.

mod fetch;
mod find;
mod invites;
mod looking;
mod missing;
mod names;
mod network;
mod progress;
mod put;
mod shown;
mod watch;

pub(crate) use self::{
    fetch::{Absent, ONLINE, fetch},
    find::{Place, known, pick, place},
    invites::{
        As, INPUT, Kind, print as print_invite, read as read_invite, read_all as read_invites,
    },
    looking::{NOBODY_JOINED, is_alone, places, sought, text as sought_text},
    missing::{say_missing, some_of},
    names::{MemberName, free_name},
    network::{Network, start},
    put::{PutOptions, put},
    shown::{
        label, labels, member_name, member_names, name_of_group, of_file, of_group, of_repo, short,
        told_apart,
    },
    watch::{Watch, until_next_look},
};
