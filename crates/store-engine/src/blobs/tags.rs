//! Tags: durable names that keep blobs alive.
//!
//! A tag is an entry of the collection `larder/tags`: key its name, value `version u8 = 1 ·
//! format u8 (0 raw, 1 hash sequence) · hash [32]`, or `version u8 = 1 · format u8 = 2 (tree) ·
//! depth u8 · hash [32]`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use larder_store_api::{
    CollectionId, Edit, Error, Expect, IntoBytes, KeyRange, Kind, Listing, Order, Result, Scan,
};

use super::{
    Inner,
    change::{Change, Outcome},
};
use crate::{Format, Hash, MAX_TREE_DEPTH, Root};

pub(crate) const TAGS: CollectionId = CollectionId::from_static("larder/tags");

/// The longest name of a tag, in bytes.
pub const MAX_TAG_NAME_LEN: usize = 512;

const VERSION: u8 = 1;
/// The number of tags that one commit deletes.
const DELETE_BATCH: usize = 64;

/// The name of a tag: 1 to [`MAX_TAG_NAME_LEN`] bytes of any kind, most often text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName(Bytes);

impl TagName {
    /// A name, or [`Kind::Invalid`] if it is empty or too long.
    pub fn new(name: impl IntoBytes) -> Result<Self> {
        let name = name.into_bytes();
        if name.is_empty() || name.len() > MAX_TAG_NAME_LEN {
            return Err(Error::new(
                Kind::Invalid,
                "tags.name",
                format!("a tag's name has 1 to {MAX_TAG_NAME_LEN} bytes"),
            )
            .with("len", name.len()));
        }
        Ok(Self(name))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// A conversion into the name of a tag: a [`TagName`], or text or bytes that are checked.
pub trait IntoTagName {
    /// Returns the name.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it is empty or too long.
    fn into_tag_name(self) -> Result<TagName>;
}

macro_rules! names {
    ($($name:ty),*) => {$(
        impl TryFrom<$name> for TagName {
            type Error = Error;

            fn try_from(name: $name) -> Result<Self> {
                Self::new(name)
            }
        }

        impl IntoTagName for $name {
            fn into_tag_name(self) -> Result<TagName> {
                TagName::new(self)
            }
        }
    )*};
}

names!(&str, String, &String, Bytes, &[u8], Vec<u8>);

impl IntoTagName for TagName {
    fn into_tag_name(self) -> Result<TagName> {
        Ok(self)
    }
}

impl IntoTagName for &TagName {
    fn into_tag_name(self) -> Result<TagName> {
        Ok(self.clone())
    }
}

impl IntoBytes for TagName {
    fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl IntoBytes for &TagName {
    fn into_bytes(self) -> Bytes {
        self.0.clone()
    }
}

/// As text; control characters, and bytes that are no UTF-8, are escaped.
impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagName({self})")
    }
}

/// A durable name and what it keeps alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: TagName,
    /// The root that the tag keeps.
    pub root: Root,
}

/// The tags of a store. Setting one does not need the blob to be there: it is kept once it comes.
#[derive(Debug, Clone)]
pub struct Tags(pub(super) Arc<Inner>);

/// Returns the edit that sets a tag; [`Kind::Invalid`] if the root is a tree of an impossible
/// depth.
pub(crate) fn put_tag(name: &TagName, root: Root) -> Result<Edit> {
    let mut value = BytesMut::with_capacity(35);
    value.put_u8(VERSION);
    match root.format {
        Format::Raw => value.put_u8(0),
        Format::HashSeq => value.put_u8(1),
        Format::Tree {
            depth: depth @ 1..=MAX_TREE_DEPTH,
        } => value.put_slice(&[2, depth]),
        Format::Tree { depth } => {
            let message = format!("a tree is 1 to {MAX_TREE_DEPTH} deep");
            return Err(Error::new(Kind::Invalid, "tags.set", message)
                .with("tag", name)
                .with("depth", depth));
        }
    }
    value.put_slice(root.hash.as_bytes());
    Ok(Edit::Put {
        collection: TAGS,
        key: name.0.clone(),
        value: value.freeze(),
    })
}

pub(super) fn decode(key: &Bytes, value: &[u8]) -> Result<Root> {
    let parse = || {
        let (format, hash) = match value {
            [VERSION, 0, hash @ ..] => (Format::Raw, hash),
            [VERSION, 1, hash @ ..] => (Format::HashSeq, hash),
            [VERSION, 2, depth @ 1..=MAX_TREE_DEPTH, hash @ ..] => {
                (Format::Tree { depth: *depth }, hash)
            }
            _ => return None,
        };
        let hash: [u8; 32] = hash.try_into().ok()?;
        Some(Root {
            hash: Hash::from(hash),
            format,
        })
    };
    parse().ok_or_else(|| {
        let (kind, message) = match value.first() {
            Some(version) if *version > VERSION => (
                Kind::Unsupported,
                "the tag was written by a newer version: update",
            ),
            _ => (Kind::Corrupt, "the tag cannot be read"),
        };
        Error::new(kind, "tags.read", message).with("tag", key.escape_ascii())
    })
}

impl Tags {
    /// Sets `name` to `root`, whatever it was. Durable when it returns.
    pub async fn set(&self, name: impl IntoTagName, root: impl Into<Root>) -> Result<()> {
        let (name, root) = (name.into_tag_name()?, root.into());
        let _running = self.0.enter("tags.set")?;
        // A collection that has read the tags already must still learn of this one.
        let pin = self.0.pins.pin(root, None).await;
        let change = Change::of(vec![put_tag(&name, root)?]).keeping(&pin);
        self.0.commit(change).await?;
        Ok(())
    }

    /// Returns the root that `name` keeps, or `None` if there is no such tag.
    pub async fn get(&self, name: impl IntoTagName) -> Result<Option<Root>> {
        let name = name.into_tag_name()?;
        self.0.check_open("tags.get")?;
        let entry = self.0.collections.get(TAGS, name.0).await?;
        entry
            .map(|entry| decode(&entry.key, &entry.value))
            .transpose()
    }

    /// Lists the tags whose names lie in `names`, ascending; `..` is all of them.
    pub fn list(&self, names: impl KeyRange) -> Listing<Tag> {
        self.scan(Scan {
            collection: TAGS,
            keys: names.into_bounds(),
            order: Order::Ascending,
        })
    }

    /// Lists the tags whose names begin with `prefix`, ascending.
    pub fn list_prefix(&self, prefix: impl IntoBytes) -> Listing<Tag> {
        self.scan(Scan::prefix(TAGS, prefix))
    }

    fn scan(&self, scan: Scan) -> Listing<Tag> {
        if let Err(error) = self.0.check_open("tags.list") {
            return Box::pin(futures_util::stream::once(async { Err(error) }));
        }
        Box::pin(self.0.collections.scan(scan).map(|entry| {
            let entry = entry?;
            let root = decode(&entry.key, &entry.value)?;
            let name = TagName(entry.key);
            Ok(Tag { name, root })
        }))
    }

    /// Deletes the tags whose names lie in `names`, and returns how many there were. Each is
    /// deleted durably, but not all at once: after an error some may be gone.
    pub async fn delete(&self, names: impl KeyRange) -> Result<u64> {
        let _running = self.0.enter("tags.delete")?;
        let mut tags = self.list(names).chunks(DELETE_BATCH);
        let mut deleted = 0;
        while let Some(chunk) = tags.next().await {
            let mut edits = Vec::with_capacity(chunk.len());
            for tag in chunk {
                let key = tag?.name.0;
                let collection = TAGS;
                edits.push(Edit::Delete { collection, key });
            }
            deleted += edits.len() as u64;
            self.0.commit(Change::of(edits)).await?;
        }
        Ok(deleted)
    }

    /// Deletes one tag, and returns true if there was one.
    pub async fn delete_one(&self, name: impl IntoTagName) -> Result<bool> {
        let name = name.into_tag_name()?;
        Ok(self.delete(&name..=&name).await? > 0)
    }

    /// Gives the tag `from` the name `to`, replacing a tag of that name, in one atomic step.
    /// [`Kind::NotFound`] if there is no tag `from`.
    pub async fn rename(&self, from: impl IntoTagName, to: impl IntoTagName) -> Result<()> {
        let (from, to) = (from.into_tag_name()?, to.into_tag_name()?);
        let _running = self.0.enter("tags.rename")?;
        loop {
            let entry = self.0.collections.get(TAGS, from.0.clone()).await?;
            let Some(entry) = entry else {
                return Err(
                    Error::new(Kind::NotFound, "tags.rename", "there is no such tag")
                        .with("tag", &from),
                );
            };
            let root = decode(&entry.key, &entry.value)?;
            let pin = self.0.pins.pin(root, None).await;
            let mut edits = vec![put_tag(&to, root)?];
            if from != to {
                edits.push(Edit::Delete {
                    collection: TAGS,
                    key: from.0.clone(),
                });
            }
            let change = Change::of(edits).keeping(&pin).expecting(Expect::At {
                collection: TAGS,
                key: entry.key,
                revision: entry.revision,
            });
            match self.0.commit(change).await? {
                Outcome::Done(_) => return Ok(()),
                Outcome::Conflict(_) => {}
            }
        }
    }

    /// Sets a new tag with a name of its own, `auto-` and the time.
    pub async fn create(&self, root: impl Into<Root>) -> Result<TagName> {
        let root = root.into();
        let _running = self.0.enter("tags.create")?;
        let pin = self.0.pins.pin(root, None).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut nanos = now.unwrap_or(Duration::ZERO).as_nanos();
        loop {
            let name = TagName(Bytes::from(format!("auto-{nanos:024}")));
            let change = Change::of(vec![put_tag(&name, root)?]);
            let change = change.keeping(&pin).expecting(Expect::Absent {
                collection: TAGS,
                key: name.0.clone(),
            });
            match self.0.commit(change).await? {
                Outcome::Done(_) => return Ok(name),
                Outcome::Conflict(_) => nanos += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_pinned() {
        let name = TagName::try_from("photos").unwrap();
        let Edit::Put { key, value, .. } =
            put_tag(&name, Root::hash_seq(Hash::from([7; 32]))).unwrap()
        else {
            panic!("a put");
        };
        assert_eq!(key, "photos");
        assert_eq!(value[..2], [1, 1]);
        assert_eq!(value[2..], [7; 32]);
        let kind = |value: &[u8]| decode(&key, value).unwrap_err().kind();
        assert_eq!(kind(&[2, 0]), Kind::Unsupported);
        assert_eq!(kind(&[1, 3]), Kind::Corrupt);
        assert_eq!(
            kind(&[[1, 2, 17].as_slice(), &[7; 32]].concat()),
            Kind::Corrupt
        );
        assert_eq!(
            kind(&[[1, 2, 0].as_slice(), &[7; 32]].concat()),
            Kind::Corrupt
        );
        assert_eq!(kind(&[]), Kind::Corrupt);
    }

    #[test]
    fn a_tree_is_written_with_its_depth() {
        let name = TagName::try_from("photos").unwrap();
        let root = |depth| Root::tree(Hash::from([7; 32]), depth);
        for depth in 1..=MAX_TREE_DEPTH {
            let Edit::Put { key, value, .. } = put_tag(&name, root(depth)).unwrap() else {
                panic!("a put");
            };
            assert_eq!(value[..3], [1, 2, depth]);
            assert_eq!(value[3..], [7; 32]);
            assert_eq!(decode(&key, &value).unwrap(), root(depth));
        }
        for depth in [0, MAX_TREE_DEPTH + 1] {
            let error = put_tag(&name, root(depth)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
        }
    }

    #[test]
    fn names_print_as_text() {
        let name = TagName::new(Bytes::from_static(b"caf\xc3\xa9\n\xff")).unwrap();
        assert_eq!(name.to_string(), "café\\n\\xff");
        assert_eq!(
            TagName::try_from("").unwrap_err().to_string(),
            "tags.name: invalid: a tag's name has 1 to 512 bytes (len=0)"
        );
    }
}
