//! Ids of groups and repos, and the slots of their records.

use larder_store_api::{PublicKey, RecordDescriptor, RecordId, Slot};
use larder_store_engine::record_id;

/// The number of slots of a group's record.
pub const GROUP_SLOTS: u16 = 1024;

/// The number of slots of a repo's record.
pub const REPO_SLOTS: u16 = 64;

/// The slot of a group's name.
pub const GROUP_NAME: Slot = 0;

/// The first slot of a member's repo. The slots of members end before [`FIRST_APP`].
pub const FIRST_MEMBER: Slot = 1;

/// The slot of a repo's profile.
pub const REPO_PROFILE: Slot = 0;

/// The slot of a repo's root.
pub const REPO_ROOT: Slot = 1;

/// The first slot of a route. The slots of routes extend to the end of the repo's record.
pub const FIRST_ROUTE: Slot = 2;

/// The first slot of the app's values. Their slots extend to the end of the group's record. Members
/// used to be allowed in these slots; a member that is found in one keeps it.
pub const FIRST_APP: Slot = 960;

/// The number of slots of a group's record that belong to the app.
pub const APP_SLOTS: u16 = GROUP_SLOTS - FIRST_APP;

/// Returns the descriptor of the record of the group with this key.
pub fn group_record(group: PublicKey) -> RecordDescriptor {
    descriptor(group, GROUP_SLOTS)
}

/// Returns the descriptor of the record of the repo with this key.
pub fn repo_record(repo: PublicKey) -> RecordDescriptor {
    descriptor(repo, REPO_SLOTS)
}

/// Returns the id of the group with this key, which is its record's id.
pub fn group_id(group: PublicKey) -> RecordId {
    id(&group_record(group))
}

/// Returns the id of the repo with this key, which is its record's id.
pub fn repo_id(repo: PublicKey) -> RecordId {
    id(&repo_record(repo))
}

fn descriptor(owner: PublicKey, owner_slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner,
        owner_slots,
        members: Vec::new(),
    }
}

fn id(descriptor: &RecordDescriptor) -> RecordId {
    record_id(descriptor)
        .expect("a record with one writer and 1 to 1024 slots is within all limits")
}
