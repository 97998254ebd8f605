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
        unknown: &HashSet<String>,
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
            if !has(name.as_str()) && !is_unknown(name.as_str(), unknown) {
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

    /// Returns the names that go when a file is put under this one.
    pub(super) fn replaced_by(&mut self, name: &str) -> Vec<Name> {
        let names = above(name).chain([name]);
        let replaced = names.filter_map(|name| self.replaced.remove(name));
        replaced.flatten().collect()
    }

    /// Returns all names that no file has replaced, in order, but for those that are unknown by now.
    pub(super) fn rest(self, unknown: &HashSet<String>) -> Vec<Name> {
        let replaced = self.replaced.into_values().flatten();
        let mut rest: Vec<_> = self
            .rest
            .into_iter()
            .chain(replaced)
            .filter(|name| !is_unknown(name.as_str(), unknown))
            .collect();
        rest.sort_unstable();
        rest
    }
}

/// Returns true if `name` or a folder that it lies in is unknown.
fn is_unknown(name: &str, unknown: &HashSet<String>) -> bool {
    unknown.contains(name) || above(name).any(|folder| unknown.contains(folder))
}

/// The folders that a name lies in.
fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}
