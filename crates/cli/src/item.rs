//! A stored file or folder, as commands show it.

use std::fmt;

use anyhow::Result;
use console::{Alignment, Term, pad_str};
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

/// The columns that lines of items have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// The width of the names; a longer one takes more.
    name: usize,
    /// Numbers of files, and kinds: there is room for them.
    wide: bool,
    hash: bool,
}

impl Columns {
    /// The width of the columns after the name: a size, a number of files, a kind.
    const SIZE: usize = 2 + 10;
    const REST: usize = 2 + 9 + 2 + 8;
    /// The least width of a terminal that has room for all of them.
    const WIDE: usize = 60;

    /// The columns that fit the terminal. Hashes, if they are wanted, come last, so that what people read stays in
    /// sight where a line is broken.
    pub(crate) fn new(hash: bool) -> Self {
        Self::of_width(usize::from(Term::stdout().size().1), hash)
    }

    fn of_width(columns: usize, hash: bool) -> Self {
        let wide = columns >= Self::WIDE;
        let rest = Self::SIZE + if wide { Self::REST } else { 0 };
        Self {
            name: columns.saturating_sub(rest).max(8),
            wide,
            hash,
        }
    }

    /// Returns the line over the others.
    pub(crate) fn heading(self) -> String {
        self.join("NAME", "SIZE", "FILES", "KIND", "HASH")
    }

    /// Returns the line of an item.
    pub(crate) fn line(self, item: &Item) -> String {
        let kind = match item.kind {
            ItemKind::File => "file",
            ItemKind::Folder => "folder",
            ItemKind::Sequence => "sequence",
            ItemKind::Group => "group",
            ItemKind::Repo => "repo",
        };
        let files = item.files.map_or("-".to_owned(), |n| Count(n).to_string());
        let name = Shown(&item.name).to_string();
        let size = Bytes(item.size).to_string();
        let mut line = self.join(&name, &size, &files, kind, &item.hash.to_string());
        if !item.complete {
            line += &format!("  (incomplete: {} here)", Bytes(item.present));
        }
        line
    }

    fn join(self, name: &str, size: &str, files: &str, kind: &str, hash: &str) -> String {
        let name = pad_str(name, self.name, Alignment::Left, None);
        let mut line = format!("{name}  {size:>10}");
        if self.wide {
            line += &format!("  {files:>9}  {kind:<8}");
        }
        if self.hash {
            line += &format!("  {hash}");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;

    use super::*;

    #[test]
    fn lines_fit_the_terminal_and_begin_with_the_name() {
        let mut item = Item {
            name: "日本/photo\n.jpg".to_owned(),
            kind: ItemKind::Folder,
            hash: Hash::EMPTY,
            size: 1_234_567,
            files: Some(12_345),
            present: 1_234_567,
            complete: true,
        };
        for columns in [40, 60, 80, 120] {
            let lines = Columns::of_width(columns, false);
            for line in [lines.heading(), lines.line(&item)] {
                assert!(measure_text_width(&line) <= columns, "{columns}: {line}");
            }
            let line = lines.line(&item);
            assert!(line.starts_with("日本/photo\\u{a}.jpg "), "{line}");
            assert!(line.contains("1.2 MiB"), "{line}");
            let with_hash = Columns::of_width(columns, true).line(&item);
            assert!(with_hash.ends_with(&Hash::EMPTY.to_string()), "{with_hash}");
        }
        item.complete = false;
        let line = Columns::of_width(80, false).line(&item);
        assert!(line.ends_with("(incomplete: 1.2 MiB here)"), "{line}");
    }

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
