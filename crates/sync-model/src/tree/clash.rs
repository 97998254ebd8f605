//! No name of a tree is also a folder: so any tree can be written out as files.
//!
//! Whoever writes `a/b` drops the file `a`. Whoever writes `a` where files lie in the folder `a/` removes them in the
//! same change, or is refused.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use larder_store_api::{Error, Kind, Result};

use super::{FileEntry, Name, Named, Root, Tree};

/// The folders that a name lies in, the outermost first.
pub(super) fn folders(name: &Name) -> impl Iterator<Item = Name> {
    let name = name.as_str();
    let ends = name.match_indices('/').map(|(end, _)| end);
    ends.map(|end| Name::new(&name[..end]).expect("a folder of a name is a name"))
}

impl Tree {
    /// Makes changes to a tree such that no name in it becomes a folder too: removes each file that a new one needs
    /// as a folder.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if a new file has the name of a folder whose files stay, or of a folder of another new file.
    pub async fn make_room(
        &self,
        operation: &'static str,
        root: Root,
        changes: &mut BTreeMap<Name, Option<FileEntry>>,
    ) -> Result<()> {
        let mut looked: BTreeSet<Name> = BTreeSet::new();
        let mut dropped = Vec::new();
        for (name, _) in changes.iter().filter(|(_, file)| file.is_some()) {
            // The innermost first: whoever has looked at one has looked at those above it.
            let folders: Vec<_> = folders(name).collect();
            for folder in folders.into_iter().rev() {
                if looked.contains(&folder) {
                    break;
                }
                match changes.get(&folder) {
                    Some(Some(_)) => {
                        let message = "one of the new files has the name of another's folder";
                        let error = Error::new(Kind::Invalid, operation, message);
                        return Err(error.with("file", &folder).with("other", name));
                    }
                    Some(None) => {}
                    None if self.get(root, &folder).await?.is_some() => {
                        dropped.push(folder.clone());
                    }
                    None => {}
                }
                looked.insert(folder);
            }
            if self.get(root, name).await?.is_none() {
                self.check_free(operation, root, name, changes).await?;
            }
        }
        changes.extend(dropped.into_iter().map(|name| (name, None)));
        Ok(())
    }

    /// Checks that no file stays in the folder that has this name.
    async fn check_free(
        &self,
        operation: &'static str,
        root: Root,
        name: &Name,
        changes: &BTreeMap<Name, Option<FileEntry>>,
    ) -> Result<()> {
        let mut below = self.list(root, &format!("{name}/"), None);
        while let Some(Named { name: file, .. }) = below.try_next().await? {
            if !matches!(changes.get(&file), Some(None)) {
                let message = "a folder has this name; remove the files in it first";
                let error = Error::new(Kind::Invalid, operation, message);
                return Err(error.with("name", name).with("file", file));
            }
        }
        Ok(())
    }

    /// Returns true if files lie in the folder of this name.
    pub(super) async fn is_folder(&self, root: Root, name: &Name) -> Result<bool> {
        let mut below = self.list(root, &format!("{name}/"), None);
        Ok(below.try_next().await?.is_some())
    }
}
