//! Ids of the records of a group, and their slots.

use larder_store_api::{PublicKey, RecordDescriptor, RecordId, RecordMember, Slot};
use larder_store_engine::record_id;

/// The number of slots that the owner of a repo's record writes.
pub const REPO_SLOTS: u16 = 64;

/// The slot of a repo's profile.
pub const REPO_PROFILE: Slot = 0;

/// The slot of a repo's root.
pub const REPO_ROOT: Slot = 1;

/// The first slot of a route. The slots of routes extend to the end of the repo's record.
pub const FIRST_ROUTE: Slot = 2;

/// The number of slots that the owner of a record of values writes.
pub const VALUE_SLOTS: u16 = FIRST_APP + APP_SLOTS;

/// The slot of the group's name, in each record of values.
pub const GROUP_NAME: Slot = 0;

/// The first slot of the app's values. Their slots extend to the end of a record of values.
pub const FIRST_APP: Slot = 1;

/// The number of values that an app has in a group.
pub const APP_SLOTS: u16 = 64;

/// Returns the descriptor of the record of the repo with this key in a group.
pub fn repo_record(group: RecordId, repo: PublicKey) -> RecordDescriptor {
    descriptor(group, repo, REPO_SLOTS)
}

/// Returns the id of the repo with this key in a group, which is its record's id.
pub fn repo_id(group: RecordId, repo: PublicKey) -> RecordId {
    id(&repo_record(group, repo))
}

/// Returns the descriptor of the record in which a device writes what the whole group shares.
pub fn values_record(group: RecordId, device: PublicKey) -> RecordDescriptor {
    descriptor(group, device, VALUE_SLOTS)
}

/// Returns the id of the record in which a device writes what the whole group shares.
pub fn values_id(group: RecordId, device: PublicKey) -> RecordId {
    id(&values_record(group, device))
}

/// A record names its group as the writer of a slot that nobody can write: the group's id is a hash, and no key.
fn descriptor(group: RecordId, owner: PublicKey, owner_slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner,
        owner_slots,
        members: vec![RecordMember {
            key: PublicKey(group.0),
            slots: 1,
        }],
    }
}

fn id(descriptor: &RecordDescriptor) -> RecordId {
    // It is refused only if the owner has the same bytes as the group's id.
    record_id(descriptor).unwrap_or(RecordId(descriptor.owner.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_group_and_one_use() {
        let (a, b) = (RecordId([1; 32]), RecordId([2; 32]));
        let key = PublicKey([3; 32]);
        let all = [
            repo_id(a, key),
            repo_id(b, key),
            values_id(a, key),
            values_id(b, key),
            repo_id(a, PublicKey([4; 32])),
        ];
        let lines: Vec<_> = all.iter().map(ToString::to_string).collect();
        crate::golden::check("ids.txt", &lines);
        let differ: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(differ.len(), all.len());
    }
}
