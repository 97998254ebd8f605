//! The facts that this device remembers of other devices that it has met in a group.
//!
//! ```text
//! sync/contacts    group id [32] | device's key [32] -> version u8 = 1
//!                  | flags u8 (1 in sync, 2 the member is known) | last contact i64
//!                  | in sync since i64, or 0 | key of the member's repo [32], or zeroes
//!                  | for each repo whose tree it said it holds, ascending, at most 256:
//!                    key [32] | hash of the root [32] | files that it lacks u64 | their bytes u64
//! ```
//!
//! Times are milliseconds since 1970, by the clock of this device.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, CollectionId, Durability, Edit, Error, Kind, PublicKey, RecordId, Result,
};
use larder_store_engine::Hash;

use super::Inner;
use crate::codec::Fields;

const CONTACTS: CollectionId = CollectionId::from_static("sync/contacts");
const VERSION: u8 = 1;
const SYNCED: u8 = 1;
const MEMBER: u8 = 2;
const OPERATION: &str = "sync.contacts";

/// The most roots of a device that are remembered.
const MAX_ROOTS: usize = 256;

/// The most devices of a group that are remembered.
pub(crate) const MAX_CONTACTS: usize = 1024;

/// The part of a repo's tree that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The root. All names are there, and all files that the device wants but for those that it lacks.
    pub root: Hash,
    /// The number of files that the device wants and lacks.
    pub lacks_files: u64,
    /// The sum of their lengths, as far as these are known.
    pub lacks_bytes: u64,
}

impl Holding {
    /// The length of its encoding.
    pub(crate) const LEN: usize = 48;

    /// All of a tree that is wanted.
    pub fn all(root: Hash) -> Self {
        Self {
            root,
            lacks_files: 0,
            lacks_bytes: 0,
        }
    }

    /// Returns true if the device holds all that it wants of the tree with this root.
    pub fn is_all_of(&self, root: Hash) -> bool {
        self.root == root && self.lacks_files == 0
    }

    pub(crate) fn put(&self, bytes: &mut BytesMut) {
        bytes.put_slice(self.root.as_bytes());
        bytes.put_u64(self.lacks_files);
        bytes.put_u64(self.lacks_bytes);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self> {
        Ok(Self {
            root: Hash::from(fields.take::<32>()?),
            lacks_files: fields.u64()?,
            lacks_bytes: fields.u64()?,
        })
    }
}

/// The known facts about another device of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contact {
    /// The time at which it was last heard of.
    pub(crate) last: i64,
    /// Since when both sides have the same; `None` while they do not.
    pub(crate) synced_since: Option<i64>,
    /// The repo of the member whose device it is, where that was known.
    pub(crate) repo: Option<PublicKey>,
    /// The parts that the device said it holds, by repo.
    pub(crate) holds: BTreeMap<PublicKey, Holding>,
}

pub(super) fn encode_contact(contact: &Contact) -> Bytes {
    let roots = contact.holds.iter().take(MAX_ROOTS);
    let mut bytes = BytesMut::with_capacity(50 + (32 + Holding::LEN) * roots.len());
    bytes.put_u8(VERSION);
    let synced = contact.synced_since.map_or(0, |_| SYNCED);
    bytes.put_u8(synced | contact.repo.map_or(0, |_| MEMBER));
    bytes.put_i64(contact.last);
    bytes.put_i64(contact.synced_since.unwrap_or_default());
    bytes.put_slice(&contact.repo.map_or([0; 32], |repo| repo.0));
    for (repo, holding) in roots {
        bytes.put_slice(&repo.0);
        holding.put(&mut bytes);
    }
    bytes.freeze()
}

pub(super) fn decode_contact(value: &[u8]) -> Result<Contact> {
    let mut fields = Fields::versioned(OPERATION, VERSION, value)?;
    let flags = fields.u8()?;
    let (last, since, repo) = (fields.i64()?, fields.i64()?, fields.take::<32>()?);
    let is_set = |flag| flags & flag != 0;
    let is_odd = flags & !(SYNCED | MEMBER) != 0
        || !is_set(SYNCED) && since != 0
        || !is_set(MEMBER) && repo != [0; 32];
    if is_odd {
        return Err(fields.invalid("the flags do not fit what follows"));
    }
    let mut holds = BTreeMap::new();
    while !fields.is_empty() {
        let repo = PublicKey(fields.take()?);
        if holds
            .last_key_value()
            .is_some_and(|(last, _)| *last >= repo)
        {
            return Err(fields.invalid("the repos do not ascend"));
        }
        if holds.len() == MAX_ROOTS {
            return Err(fields.invalid("there are too many roots"));
        }
        holds.insert(repo, Holding::take(&mut fields)?);
    }
    Ok(Contact {
        last,
        synced_since: is_set(SYNCED).then_some(since),
        repo: is_set(MEMBER).then_some(PublicKey(repo)),
        holds,
    })
}

fn damaged(error: Error) -> Error {
    let message = "what is remembered of a device is damaged";
    Error::new(Kind::Corrupt, OPERATION, message).because(error)
}

fn key(group: RecordId, device: PublicKey) -> Vec<u8> {
    [group.0, device.0].concat()
}

/// The group and the device of a key.
fn split(key: &[u8]) -> Result<(RecordId, PublicKey)> {
    let mut fields = Fields::new(OPERATION, key);
    let parts = (RecordId(fields.take()?), PublicKey(fields.take()?));
    fields.end()?;
    Ok(parts)
}

impl Inner {
    /// The devices that were met in a group.
    pub(crate) async fn load_contacts(
        &self,
        group: RecordId,
    ) -> Result<BTreeMap<PublicKey, Contact>> {
        let prefix = Bytes::copy_from_slice(&group.0);
        let mut entries = self.collections.scan_prefix(CONTACTS, prefix);
        let mut contacts = BTreeMap::new();
        while let Some(entry) = entries.try_next().await? {
            let (_, device) = split(&entry.key).map_err(damaged)?;
            let contact = decode_contact(&entry.value).map_err(damaged)?;
            contacts.insert(device, contact);
        }
        Ok(contacts)
    }

    /// Remembers what is known of a device. Facts that are lost with the power are learnt again.
    pub(crate) async fn keep_contact(
        &self,
        group: RecordId,
        device: PublicKey,
        contact: &Contact,
    ) -> Result<()> {
        let edit = Edit::Put {
            collection: CONTACTS,
            key: key(group, device).into(),
            value: encode_contact(contact),
        };
        let mut batch = Batch::of(vec![edit]);
        batch.durability = Durability::OnSync;
        self.collections.commit(batch).await.map(drop)
    }

    pub(crate) async fn forget_contact(&self, group: RecordId, device: PublicKey) -> Result<()> {
        self.collections
            .delete(CONTACTS, key(group, device))
            .await?;
        Ok(())
    }

    /// Forgets all devices of a group.
    pub(crate) async fn forget_contacts(&self, group: RecordId) -> Result<()> {
        let prefix = Bytes::copy_from_slice(&group.0);
        let entries = self.collections.scan_prefix(CONTACTS, prefix);
        let keys: Vec<Bytes> = entries.map_ok(|entry| entry.key).try_collect().await?;
        for key in keys {
            self.collections.delete(CONTACTS, key).await?;
        }
        Ok(())
    }

    /// Forgets the devices of all groups but these: a crash may have come between leaving a group and
    /// the last word on a device in it.
    pub(crate) async fn forget_contacts_but(&self, groups: &[RecordId]) -> Result<()> {
        let mut entries = self.collections.scan_range(CONTACTS, ..);
        let mut gone = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let (group, _) = split(&entry.key).map_err(damaged)?;
            if !groups.contains(&group) && gone.last() != Some(&group) {
                gone.push(group);
            }
        }
        drop(entries);
        for group in gone {
            self.forget_contacts(group).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contacts() -> [Contact; 3] {
        let met = Contact {
            last: 1_700_000_000_000,
            synced_since: Some(-1),
            repo: Some(PublicKey([7; 32])),
            holds: BTreeMap::from([
                (
                    PublicKey([1; 32]),
                    Holding {
                        root: Hash::of("root"),
                        lacks_files: 3,
                        lacks_bytes: 4,
                    },
                ),
                (PublicKey([2; 32]), Holding::all(Hash::EMPTY)),
            ]),
        };
        let behind = Contact {
            synced_since: None,
            ..met.clone()
        };
        let stranger = Contact {
            last: i64::MIN,
            synced_since: Some(0),
            repo: None,
            holds: BTreeMap::new(),
        };
        [met, behind, stranger]
    }

    #[test]
    fn the_layout_is_pinned() {
        let encoded = contacts().each_ref().map(encode_contact);
        crate::golden::check_hex("contacts.hex", &encoded.each_ref().map(|line| &line[..]));
        for (contact, bytes) in contacts().iter().zip(&encoded) {
            assert_eq!(decode_contact(bytes).unwrap(), *contact);
            for len in 0..bytes.len() {
                let is_whole = len >= 50 && (len - 50) % (32 + Holding::LEN) == 0;
                assert_eq!(decode_contact(&bytes[..len]).is_ok(), is_whole, "{len}");
            }
        }
    }

    #[test]
    fn no_more_is_kept_than_is_read_again() {
        let key = |n: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            PublicKey(key)
        };
        let mut contact = contacts()[0].clone();
        contact.holds = (0..1000)
            .map(|n| (key(n), Holding::all(Hash::EMPTY)))
            .collect();
        let bytes = encode_contact(&contact);
        let read = decode_contact(&bytes).unwrap();
        assert_eq!(read.holds.len(), MAX_ROOTS);
        let more = [&bytes[..], &[0xff; 32 + Holding::LEN]].concat();
        let error = decode_contact(&more).unwrap_err();
        assert_eq!(error.message(), "there are too many roots");
    }

    #[test]
    fn garbage_is_refused() {
        let [met, behind, stranger] = contacts().each_ref().map(|c| encode_contact(c).to_vec());
        let version = "the bytes have a version that is not known here";
        let flags = "the flags do not fit what follows";
        for (bytes, at, to, expected, case) in [
            (&met, 0, 2, version, "a version"),
            (&met, 1, 7, flags, "a flag"),
            (&met, 1, MEMBER, flags, "a time that is none"),
            (&behind, 1, 0, flags, "a member that is none"),
            (&stranger, 20, 1, flags, "a member that is none"),
            (&met, 50, 3, "the repos do not ascend", "repos in disorder"),
        ] {
            let mut bytes = bytes.clone();
            assert_ne!(bytes[at], to, "{case}");
            bytes[at] = to;
            let error = decode_contact(&bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{case}");
            assert_eq!(error.message(), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn decoding_anything_is_safe(bytes: Vec<u8>, flags in 0..4_u8) {
            let versioned = [&[VERSION, flags], &bytes[..]].concat();
            for bytes in [&bytes, &versioned] {
                if let Ok(contact) = decode_contact(bytes) {
                    prop_assert_eq!(&encode_contact(&contact), bytes);
                }
            }
        }
    }
}
