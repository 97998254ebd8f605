//! A stored file or folder, as commands show it.

use std::fmt;

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{BlobStatus, Blobs, Error, Format, Hash, Kind, Root, iroh::load_folder};
use serde::{Serialize, Serializer};

use crate::output::{Bytes, Count, Shown};

/// The number of states that are requested at once.
const IN_FLIGHT: usize = 64;

/// The kind of item that a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ItemKind {
    /// One blob.
    File,
    /// An iroh collection.
    Folder,
    /// A hash sequence without names, or one whose names are not here yet.
    Sequence,
    /// A private group; its hash is its id.
    Group,
    /// A member's repo in a group; its hash is its key.
    Repo,
}

/// A stored file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) kind: ItemKind,
    #[serde(serialize_with = "as_text")]
    pub(crate) hash: Hash,
    /// The length of all its files in bytes, as far as it is known.
    pub(crate) size: u64,
    /// The number of files, if the item is a folder.
    pub(crate) files: Option<u64>,
    /// The number of the bytes that are here.
    pub(crate) present: u64,
    /// True if all of the item is here.
    pub(crate) complete: bool,
}

pub(crate) fn as_text<S: Serializer>(
    value: &impl fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Item {
    /// The heading over lines of items.
    pub(crate) const HEADING: &str = "HASH                                                              KIND            SIZE      FILES  NAME";

    /// Looks at what `root` names.
    pub(crate) async fn of(blobs: &Blobs, name: String, root: Root) -> Result<Self> {
        let mut item = Self {
            name,
            kind: ItemKind::File,
            hash: root.hash,
            size: 0,
            files: None,
            present: 0,
            complete: false,
        };
        if root.format == Format::Raw {
            item.complete = true;
            item.count(blobs.status(root.hash).await?);
            return Ok(item);
        }
        match load_folder(blobs, root.hash).await {
            Ok(entries) => {
                item.kind = ItemKind::Folder;
                item.complete = true;
                item.files = Some(entries.len() as u64);
                item.count_all(blobs, entries.into_iter().map(|(_, hash)| hash))
                    .await?;
            }
            Err(error) if is_absent(&error) => item.kind = ItemKind::Sequence,
            Err(error) => return Err(error.into()),
        }
        Ok(item)
    }

    async fn count_all(
        &mut self,
        blobs: &Blobs,
        hashes: impl Iterator<Item = Hash>,
    ) -> larder::Result<()> {
        let mut states = stream::iter(hashes)
            .map(|hash| blobs.status(hash))
            .buffer_unordered(IN_FLIGHT);
        while let Some(status) = states.try_next().await? {
            self.count(status);
        }
        Ok(())
    }

    fn count(&mut self, status: Option<BlobStatus>) {
        match status {
            Some(BlobStatus::Complete { size }) => {
                self.size = self.size.saturating_add(size);
                self.present = self.present.saturating_add(size);
            }
            Some(BlobStatus::Partial { size, present, .. }) => {
                // Whoever sent a part of a blob claims how long it is.
                self.size = self.size.saturating_add(size);
                self.present = self.present.saturating_add(present);
                self.complete = false;
            }
            None => self.complete = false,
        }
    }
}

/// Returns true if a collection is just not here, or is not valid.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Invalid)
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ItemKind::File => "file",
            ItemKind::Folder => "folder",
            ItemKind::Sequence => "sequence",
            ItemKind::Group => "group",
            ItemKind::Repo => "repo",
        };
        let files = self.files.map_or("-".to_owned(), |n| Count(n).to_string());
        write!(
            f,
            "{}  {kind:<8}  {:>10}  {files:>9}  {}",
            self.hash,
            Bytes(self.size),
            Shown(&self.name)
        )?;
        if !self.complete {
            write!(f, "  (incomplete: {} here)", Bytes(self.present))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_lengths_that_exceed_all_numbers_are_shown_as_the_greatest() {
        let mut item = Item {
            name: "claims".to_owned(),
            kind: ItemKind::Folder,
            hash: Hash::EMPTY,
            size: 0,
            files: Some(2),
            present: 0,
            complete: true,
        };
        for present in [1024, 2048] {
            item.count(Some(BlobStatus::Partial {
                size: u64::MAX - 1,
                proven: false,
                present,
            }));
        }
        assert_eq!((item.size, item.present), (u64::MAX, 3072));
        assert!(!item.complete);
    }
}
