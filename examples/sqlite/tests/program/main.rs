//! The tests of the program `larder`, over SQLite. Left out are those of what redb alone has: its files, its
//! damage and its descriptors; and those that do not depend on the backend.

mod backend;
#[path = "../../../../crates/cli/tests/program/copy.rs"]
mod copy;
#[path = "../../../../crates/cli/tests/program/get.rs"]
mod get;
#[path = "../../../../crates/cli/tests/program/groups.rs"]
mod groups;
#[cfg(unix)]
#[path = "../../../../crates/cli/tests/program/interrupted.rs"]
mod interrupted;
#[cfg(unix)]
#[path = "../../../../crates/cli/tests/program/killed.rs"]
mod killed;
#[path = "../../../../crates/cli/tests/program/meeting.rs"]
mod meeting;
#[path = "../../../../crates/cli/tests/program/network.rs"]
mod network;
#[path = "../../../../crates/cli/tests/program/places.rs"]
mod places;
#[path = "../../../../crates/cli/tests/program/stored.rs"]
mod stored;
#[allow(dead_code, reason = "the tests that are left out use the rest")]
#[path = "../../../../crates/cli/tests/program/support.rs"]
mod support;
#[path = "../../../../crates/cli/tests/program/wants.rs"]
mod wants;
