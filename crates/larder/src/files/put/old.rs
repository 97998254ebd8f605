//! The names that a repo has below a folder, and the folder on this machine has not.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use larder_store_api::Result;
use larder_sync::{
    groups::Repo,
    tree::{Name, Named},
};

use crate::files::{Found, names::folded};

/// Names of a repo that the folder on this machine does not have.
#[derive(Debug, Default)]
pub(super) struct Old {
    /// Those that a new file replaces: under its name, or that of a folder that it lies in.
    replaced: HashMap<String, Vec<Name>>,
    /// All others.
    rest: Vec<Name>,
}

impl Old {
    /// Lists the names of the repo below `top` that `files`, which are sorted, do not have. Names below those that
    /// are `unknown` are not among them.
    pub(super) async fn list(
        repo: &Repo,
        top: &str,
        files: &[Found],
        unknown: &Names,
    ) -> Result<Self> {
        let has = |name: &str| {
            files
                .binary_search_by(|file| file.name.as_str().cmp(name))
                .is_ok()
        };
        let mut old = Vec::new();
        // A file that is a folder on this machine, if anything is to come into it.
        if !files.is_empty() {
            for path in above(top).chain([top]) {
                if repo.entry(path).await?.is_some() {
                    old.push(Name::new(path)?);
                }
            }
        }
        let mut listed = repo.list(&format!("{top}/")).await?;
        while let Some(Named { name, .. }) = listed.try_next().await? {
            if !has(name.as_str()) && !unknown.cover(name.as_str()) {
                old.push(name);
            }
        }
        let mut found = Self::default();
        if old.is_empty() {
            return Ok(found);
        }
        let folded: HashMap<String, &str> = files
            .iter()
            .map(|file| (folded(&file.name), file.name.as_str()))
            .collect();
        let folders: HashSet<&str> = files.iter().flat_map(|file| above(&file.name)).collect();
        let files: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        for name in old {
            let text = name.as_str();
            // A folder of it is a file now, or it is a folder now, or it was renamed in case.
            let by = above(text)
                .find(|folder| files.contains(folder))
                .or_else(|| folders.get(text).copied())
                .or_else(|| folded.get(&self::folded(text)).copied())
                .map(str::to_owned);
            match by {
                Some(by) => found.replaced.entry(by).or_default().push(name),
                None => found.rest.push(name),
            }
        }
        Ok(found)
    }

    /// Finds the files that have the name of a folder that the file `top` is to lie in.
    pub(super) async fn in_the_way(repo: &Repo, top: &str) -> Result<Self> {
        let mut found = Self::default();
        for folder in above(top) {
            if repo.entry(folder).await?.is_some() {
                let replaced = found.replaced.entry(top.to_owned()).or_default();
                replaced.push(Name::new(folder)?);
            }
        }
        Ok(found)
    }

    /// Returns the names that go when a file is put under this one.
    pub(super) fn replaced_by(&mut self, name: &str) -> Vec<Name> {
        let names = above(name).chain([name]);
        let replaced = names.filter_map(|name| self.replaced.remove(name));
        replaced.flatten().collect()
    }

    /// Returns all names that no file has replaced, in order, but for those that are unknown by now.
    pub(super) fn rest(self, unknown: &Names) -> Vec<Name> {
        let replaced = self.replaced.into_values().flatten();
        let mut rest: Vec<_> = self
            .rest
            .into_iter()
            .chain(replaced)
            .filter(|name| !unknown.cover(name.as_str()))
            .collect();
        rest.sort_unstable();
        rest
    }
}

/// Names of files and folders, in whatever case: one that cannot be read may have been renamed in case only.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| folded(&name)).collect())
    }

    pub(super) fn insert(&mut self, name: &str) {
        self.0.insert(folded(name));
    }

    /// Returns true if `name`, or a folder that it lies in, is among them.
    pub(super) fn cover(&self, name: &str) -> bool {
        let name = folded(name);
        !self.0.is_empty()
            && (self.0.contains(&name) || above(&name).any(|folder| self.0.contains(folder)))
    }
}

/// The folders that a name lies in.
pub(super) fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}
