//! Merges two trees without losing anyone's work; all devices that merge get the same tree.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use larder_store_api::{Error, Kind, Result};

use super::{
    Difference, Edited, FileEntry, Name, Root, Tree,
    name::{MAX_NAME_LEN, MAX_PART_LEN},
};

const MERGE: &str = "sync.tree.merge";

/// The most alternative names that are tried for a conflict copy whose name is taken by another file.
const MAX_TRIES: u32 = 64;

impl Tree {
    /// Merges two trees. The result does not depend on which one is `ours`.
    ///
    /// For each name that differs: a side whose file is the one in `base`, the common ancestor, yields
    /// to the other, even if the other removed the file. Otherwise an existing file wins over a missing
    /// one, and of two files the one that was modified later, or, if the times are equal, the one with
    /// the greater hash. The other is kept beside it, as `name (conflict 0123456789).ext` with the
    /// beginning of its hash, unless its bytes are the same. So is a file whose name is a folder of the
    /// other side.
    ///
    /// Pages that both trees have are not read. The changes are held in memory.
    pub async fn merge(&self, ours: Root, theirs: Root, base: Option<Root>) -> Result<Edited> {
        let base = base.unwrap_or(Root::EMPTY);
        // Both trees stay while they are read.
        let _theirs = self.0.blobs.pin(theirs.keep()).await;
        let _ours = self.0.blobs.pin(ours.keep()).await;
        let mut merge = Merge {
            tree: self,
            ours,
            theirs,
            base,
            changes: BTreeMap::new(),
            copies: BTreeMap::new(),
            open: Vec::new(),
        };
        let mut differences = self.diff(ours, theirs);
        while let Some(difference) = differences.try_next().await? {
            merge.decide(difference).await?;
        }
        let Merge {
            mut changes,
            copies,
            ..
        } = merge;
        changes.extend(copies.into_iter().map(|(name, copy)| (name, Some(copy))));
        self.edit(ours, changes).await
    }
}

struct Merge<'a> {
    tree: &'a Tree,
    ours: Root,
    theirs: Root,
    base: Root,
    /// The changes to our tree.
    changes: BTreeMap<Name, Option<FileEntry>>,
    copies: BTreeMap<Name, FileEntry>,
    /// Files that win and whose names can still be folders of what comes: each begins the name of the next.
    open: Vec<Winner>,
}

/// A file of the merged tree.
struct Winner {
    name: Name,
    wins: FileEntry,
    /// True if our tree has a file of this name.
    was_ours: bool,
}

/// The decision about a name.
struct Decision {
    wins: Option<FileEntry>,
    /// The entry that must be kept as a conflict copy.
    loses: Option<FileEntry>,
}

impl Merge<'_> {
    async fn decide(&mut self, difference: Difference) -> Result<()> {
        let Difference { name, old, new } = difference;
        let base = self.tree.get(self.base, &name).await?;
        let decision = decide(old.clone(), new, base);
        if let Some(copy) = decision.loses {
            self.keep_copy(&name, copy).await?;
        }
        self.open
            .retain(|file| name.as_str().starts_with(file.name.as_str()));
        if let Some(wins) = &decision.wins {
            self.clear_folders(&name).await?;
            self.open.push(Winner {
                name: name.clone(),
                wins: wins.clone(),
                was_ours: old.is_some(),
            });
        }
        if decision.wins != old {
            self.changes.insert(name, decision.wins);
        }
        Ok(())
    }

    /// Moves each file that has the name of a folder of `name` beside it. Both sides have no such pair themselves, so
    /// file and name both differ between them, and the file came before.
    async fn clear_folders(&mut self, name: &Name) -> Result<()> {
        let is_above = |file: &Winner| name.as_str().as_bytes()[file.name.as_str().len()] == b'/';
        let above: Vec<_> = self.open.extract_if(.., |file| is_above(file)).collect();
        for file in above {
            self.keep_copy(&file.name, file.wins).await?;
            match file.was_ours {
                true => self.changes.insert(file.name, None),
                false => self.changes.remove(&file.name),
            };
        }
        Ok(())
    }

    /// Finds a name for a conflict copy. The file that has the name in the merged tree, apart from
    /// copies, does not depend on which tree is ours, and copies are made in the order of their files'
    /// names.
    async fn keep_copy(&mut self, name: &Name, copy: FileEntry) -> Result<()> {
        for attempt in 0..MAX_TRIES {
            let beside = conflict_name(name, &copy, attempt)?;
            let taken = match self.copies.get(&beside) {
                Some(other) => Some(other.clone()),
                None => self.merged(&beside).await?,
            };
            match taken {
                Some(other) if other.hash == copy.hash && other.size == copy.size => return Ok(()),
                Some(_) => {}
                None if self.is_folder(&beside).await? => {}
                None => {
                    self.copies.insert(beside, copy);
                    return Ok(());
                }
            }
        }
        let message = "all names for a conflict copy are taken by other files";
        Err(Error::new(Kind::Conflict, MERGE, message).with("name", name))
    }

    /// Returns true if either tree has files in a folder of this name.
    async fn is_folder(&self, name: &Name) -> Result<bool> {
        Ok(self.tree.is_folder(self.ours, name).await?
            || self.tree.is_folder(self.theirs, name).await?)
    }

    /// Returns the entry of the merged tree under this name, apart from conflict copies.
    async fn merged(&self, name: &Name) -> Result<Option<FileEntry>> {
        let ours = self.tree.get(self.ours, name).await?;
        let theirs = self.tree.get(self.theirs, name).await?;
        if ours == theirs {
            return Ok(ours);
        }
        let base = self.tree.get(self.base, name).await?;
        Ok(decide(ours, theirs, base).wins)
    }
}

fn decide(a: Option<FileEntry>, b: Option<FileEntry>, base: Option<FileEntry>) -> Decision {
    let wins = |wins| Decision { wins, loses: None };
    match (a, b) {
        (Some(a), Some(b)) if base.as_ref() == Some(&a) => wins(Some(b)),
        (Some(a), Some(b)) if base.as_ref() == Some(&b) => wins(Some(a)),
        (Some(a), Some(b)) => {
            let (newer, older) = if rank(&a) > rank(&b) { (a, b) } else { (b, a) };
            let differs = newer.hash != older.hash || newer.size != older.size;
            Decision {
                wins: Some(newer),
                loses: differs.then_some(older),
            }
        }
        // The other side removed it: it stays, unless it is unchanged from the base.
        (Some(only), None) | (None, Some(only)) => {
            wins(Some(only).filter(|only| base.as_ref() != Some(only)))
        }
        (None, None) => wins(None),
    }
}

/// Orders any two different files.
fn rank(entry: &FileEntry) -> (i64, [u8; 32], u64, [u8; 32], [u8; 32]) {
    (
        entry.modified,
        *entry.hash.as_bytes(),
        entry.size,
        *entry.blob.as_bytes(),
        *entry.key.expose(),
    )
}

/// Returns the name of a conflict copy: `a/b.txt` becomes `a/b (conflict 0123456789).txt`; if that is
/// taken, with the whole hash, and then with numbers too.
fn conflict_name(name: &Name, copy: &FileEntry, attempt: u32) -> Result<Name> {
    let mark = match attempt {
        0 => format!(" (conflict {})", copy.hash.fmt_short()),
        1 => format!(" (conflict {})", copy.hash),
        n => format!(" (conflict {} {n})", copy.hash),
    };
    let name = name.as_str();
    let part = name.rfind('/').map_or(0, |at| at + 1);
    // A leading dot does not start an extension, and neither does one too far from the end.
    let dot = name[part..]
        .rfind('.')
        .map(|at| part + at)
        .filter(|at| *at > part && name.len() - at <= MAX_EXTENSION_LEN);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let added = mark.len() + extension.len();
    let cut = |stem: &str, room: usize| stem.floor_char_boundary(room.min(stem.len()));
    // If the last part is cut off completely, the name ends with the folder's slash.
    let stem = &stem[..cut(stem, MAX_NAME_LEN - added)];
    let part = stem.rfind('/').map_or(0, |at| at + 1);
    let stem = &stem[..part + cut(&stem[part..], MAX_PART_LEN - added)];
    Name::new(format!("{stem}{mark}{extension}"))
}

/// The longest extension that is kept at the end of a conflict copy's name, including its dot.
const MAX_EXTENSION_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use larder_store_engine::Hash;

    use super::*;
    use crate::seal::file::FileKey;

    fn copy() -> FileEntry {
        FileEntry {
            size: 0,
            modified: 0,
            hash: Hash::from([0xab; 32]),
            blob: Hash::EMPTY,
            key: FileKey::from_bytes([0; 32]),
        }
    }

    #[test]
    fn copies_have_names_of_their_own() {
        let name = |name: &str| {
            let name = conflict_name(&Name::new(name).unwrap(), &copy(), 0).unwrap();
            name.as_str().to_owned()
        };
        assert_eq!(name("a/b.txt"), "a/b (conflict ababababab).txt");
        assert_eq!(name("a.d/b"), "a.d/b (conflict ababababab)");
        assert_eq!(name("a/.b"), "a/.b (conflict ababababab)");
        assert_eq!(name("b.tar.gz"), "b.tar (conflict ababababab).gz");
        for long in [
            "ü".repeat(127),
            format!("{}.txt", "x".repeat(251)),
            format!("{}{}/a.txt", "x/".repeat(1500), "x".repeat(66)),
            format!("{}{}", "x/".repeat(1500), "x".repeat(72)),
        ] {
            for attempt in 0..3 {
                let name = conflict_name(&Name::new(&long).unwrap(), &copy(), attempt).unwrap();
                assert!(name.as_str().contains("(conflict ab"));
            }
        }
    }
}
