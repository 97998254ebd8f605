//! The records that a store knows: a collection of their descriptors.

use std::sync::Arc;

use bytes::Bytes;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Edit, Error, Kind, PublicKey, RecordDescriptor, RecordId,
    RecordMember, Result,
};

const COLLECTION: CollectionId = CollectionId::from_static("larder/veilid-records");
const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const HEAD_LEN: usize = 1 + KEY_LEN + 2;
const MEMBER_LEN: usize = KEY_LEN + 2;

/// The descriptors of all records that were created here and not forgotten.
#[derive(Debug)]
pub(super) struct Known(Arc<dyn CollectionStore>);

impl Known {
    pub(super) fn new(store: Arc<dyn CollectionStore>) -> Self {
        Self(store)
    }

    /// Returns the record's descriptor; [`Kind::NotFound`] if the record is not known.
    pub(super) async fn get(
        &self,
        operation: &'static str,
        id: RecordId,
    ) -> Result<RecordDescriptor> {
        let entry = self.0.get(COLLECTION, key(id)).await?;
        let entry = entry.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                operation,
                "the record is not known to this store",
            )
            .with("record", id)
        })?;
        decode(&entry.value).ok_or_else(|| {
            let message = "the stored descriptor of the record cannot be read";
            Error::new(Kind::Corrupt, operation, message).with("record", id)
        })
    }

    pub(super) async fn put(&self, id: RecordId, record: &RecordDescriptor) -> Result<()> {
        self.commit(Edit::Put {
            collection: COLLECTION,
            key: key(id),
            value: encode(record),
        })
        .await
    }

    pub(super) async fn delete(&self, id: RecordId) -> Result<()> {
        self.commit(Edit::Delete {
            collection: COLLECTION,
            key: key(id),
        })
        .await
    }

    async fn commit(&self, edit: Edit) -> Result<()> {
        self.0.commit(Batch::of(vec![edit])).await.map(drop)
    }
}

fn key(id: RecordId) -> Bytes {
    Bytes::copy_from_slice(&id.0)
}

/// Encodes the version, the owner and its slots, then each member and its slots; numbers are
/// little-endian.
fn encode(record: &RecordDescriptor) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_LEN + record.members.len() * MEMBER_LEN);
    bytes.push(VERSION);
    bytes.extend_from_slice(&record.owner.0);
    bytes.extend_from_slice(&record.owner_slots.to_le_bytes());
    for member in &record.members {
        bytes.extend_from_slice(&member.key.0);
        bytes.extend_from_slice(&member.slots.to_le_bytes());
    }
    bytes.into()
}

fn decode(bytes: &[u8]) -> Option<RecordDescriptor> {
    let (&VERSION, writers) = bytes.split_first()? else {
        return None;
    };
    let (writers, []) = writers.as_chunks::<MEMBER_LEN>() else {
        return None;
    };
    let mut writers = writers.iter().map(|writer| {
        let (key, slots) = writer.split_first_chunk::<KEY_LEN>()?;
        Some(RecordMember {
            key: PublicKey(*key),
            slots: u16::from_le_bytes(slots.try_into().ok()?),
        })
    });
    let owner = writers.next()??;
    Some(RecordDescriptor {
        owner: owner.key,
        owner_slots: owner.slots,
        members: writers.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let record = RecordDescriptor {
            owner: PublicKey([1; 32]),
            owner_slots: 258,
            members: vec![RecordMember {
                key: PublicKey([2; 32]),
                slots: 3,
            }],
        };
        let bytes = encode(&record);
        assert_eq!(bytes.len(), HEAD_LEN + MEMBER_LEN);
        assert_eq!(bytes[..2], [1, 1]);
        assert_eq!(bytes[33..35], [2, 1]);
        assert_eq!(decode(&bytes), Some(record));
        for len in [0, 1, HEAD_LEN - 1, HEAD_LEN + 1, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..len]), None, "{len} bytes");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert_eq!(decode(&newer), None);
    }
}
