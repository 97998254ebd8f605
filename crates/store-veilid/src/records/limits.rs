//! The limits of a record, and its schema and key in Veilid's types.

use std::collections::HashSet;

use larder_store_api::{
    Error, ImportSupport, Kind, PublicKey, RecordCapabilities, RecordDescriptor, RecordId, Result,
    Room,
};
use larder_veilid_node::{
    api_error,
    veilid_core::{
        BareMemberId, BareOpaqueRecordKey, BarePublicKey, BareRecordKey, CRYPTO_KIND_VLD0,
        DHTSchema, DHTSchemaSMPLMember, PublicKey as VeilidKey, RecordKey, VeilidAPI,
        VeilidAPIError,
    },
};

pub(super) const FACTS: RecordCapabilities = {
    let mut facts = RecordCapabilities::least();
    facts.max_value_len = 32 * 1024;
    facts.max_slots = 1024;
    facts.max_record_len = 1024 * 1024;
    facts.max_writers = 256;
    facts.room = Room::Divided;
    facts.import = ImportSupport::Unsupported;
    facts
};

/// Refuses an invalid descriptor, or one beyond the limits.
pub(super) fn check(record: &RecordDescriptor) -> Result<()> {
    const OPERATION: &str = "record.create";
    let too_large = |what: &'static str, count: usize, most: u16| {
        let error = Error::new(Kind::TooLarge, OPERATION, what);
        error.with("count", count).with("most", most)
    };
    let writers = record.members.len() + 1;
    if writers > usize::from(FACTS.max_writers) {
        let what = "the record has too many writers";
        return Err(too_large(what, writers, FACTS.max_writers));
    }
    let slots = record.slots();
    if slots > u32::from(FACTS.max_slots) {
        let what = "the record has too many slots";
        return Err(too_large(what, slots as usize, FACTS.max_slots));
    }
    let invalid = |what: &'static str| Err(Error::new(Kind::Invalid, OPERATION, what));
    if slots == 0 {
        return invalid("a record has at least one slot");
    }
    if record.members.iter().any(|member| member.slots == 0) {
        return invalid("a member has at least one slot");
    }
    let mut keys = HashSet::from([record.owner]);
    if !record.members.iter().all(|member| keys.insert(member.key)) {
        return invalid("a record's writers are all different");
    }
    Ok(())
}

/// Returns the longest value of a slot of this record: Veilid divides the record's room among its
/// slots.
pub(super) fn max_value_len(record: &RecordDescriptor) -> u32 {
    let share = FACTS.max_record_len / record.slots().max(1);
    share.min(FACTS.max_value_len)
}

pub(super) fn veilid_key(key: PublicKey) -> VeilidKey {
    VeilidKey::new(CRYPTO_KIND_VLD0, BarePublicKey::new(&key.0))
}

pub(super) fn schema(
    operation: &'static str,
    api: &VeilidAPI,
    record: &RecordDescriptor,
) -> Result<DHTSchema> {
    let schema = || -> Result<DHTSchema, VeilidAPIError> {
        if record.members.is_empty() {
            return DHTSchema::dflt(record.owner_slots);
        }
        let members = record.members.iter().map(|member| {
            let id = api.generate_member_id(&veilid_key(member.key))?;
            Ok(DHTSchemaSMPLMember {
                m_key: BareMemberId::new(id.ref_value()),
                m_cnt: member.slots,
            })
        });
        let members = members.collect::<Result<_, VeilidAPIError>>()?;
        DHTSchema::smpl(record.owner_slots, members)
    };
    schema().map_err(|error| api_error(operation, error))
}

/// Returns the record's key without encryption: whoever knows the id can read the record.
pub(super) fn record_key(id: RecordId) -> RecordKey {
    let key = BareRecordKey::new(BareOpaqueRecordKey::new(&id.0), None);
    RecordKey::new(CRYPTO_KIND_VLD0, key)
}

/// Returns the id of the record with this key; `None` if the key is not one of ours.
pub(super) fn record_id(key: &RecordKey) -> Option<RecordId> {
    let opaque = key.opaque();
    let bytes: &[u8] = opaque.ref_value();
    bytes.try_into().ok().map(RecordId)
}
