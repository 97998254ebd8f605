//! Tests of groups, on every kind of store and network: each scenario is written once, and runs on
//! stores in memory, on strict ones and on disk, over a simulated network and over iroh on the
//! loopback.
#![allow(missing_docs, reason = "tests are named for what they show")]

mod device;
mod members;
mod refusals;
mod sharing;
mod space;
mod status;
mod stores;
mod wants;
mod world;

/// Defines a module for each scenario, with a test for each world.
macro_rules! scenarios {
    ($($file:ident: $($name:ident),+;)+) => {$($(
        mod $name {
            use crate::{stores::StoreKind::*, world::{NetworkKind::*, run}};

            scenarios!(@ $file $name memory_on_simulated: Memory, Simulated);
            scenarios!(@ $file $name memory_on_iroh: Memory, Iroh);
            scenarios!(@ $file $name strict_on_simulated: Strict, Simulated);
            scenarios!(@ $file $name strict_on_iroh: Strict, Iroh);
            scenarios!(@ $file $name redb_on_simulated: Redb, Simulated);
            scenarios!(@ $file $name redb_on_iroh: Redb, Iroh);
        }
    )+)+};
    (@ $file:ident $name:ident $world:ident: $store:ident, $network:ident) => {
        #[test]
        fn $world() {
            run($store, $network, crate::$file::$name);
        }
    };
}

scenarios! {
    sharing:
        everybody_sees_everything_and_a_replica_nothing,
        who_joins_later_gets_all_from_a_replica,
        without_pushing_it_converges_too,
        what_was_acknowledged_survives_a_crash,
        values_of_the_app_come_to_all_who_may_read;
    members:
        what_two_devices_write_at_once_is_merged,
        who_leaves_keeps_nothing;
    refusals:
        who_may_not_is_refused_and_nothing_changes,
        a_stranger_learns_nothing;
    wants:
        what_is_selected_comes_and_nothing_else,
        what_is_pinned_comes_whatever_else_is_wanted,
        contents_come_when_they_are_read,
        what_was_freed_comes_again,
        all_of_a_repo_comes_and_says_how_far_it_is;
    status:
        members_say_what_either_side_lacks,
        who_has_a_file_shows_it;
    space:
        what_was_removed_frees_the_disk;
}
