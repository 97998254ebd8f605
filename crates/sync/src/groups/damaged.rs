//! Files that this device has, as its index says, and could not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use larder_store_api::{PublicKey, RecordId};
use larder_store_engine::Hash;

use super::local_trees::Place;

/// The most files of which it is remembered, over all repos.
const MAX_DAMAGED: usize = 4096;

/// A group, and a repo in it.
type Of = (RecordId, PublicKey);

/// The files that could not be read, until somebody stores them again or the program ends.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<BTreeMap<(Of, Place), Hash>>);

impl Damaged {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(Of, Place), Hash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a file. Says whether that is news.
    pub(crate) fn note(&self, repo: Of, place: Place, blob: Hash) -> bool {
        let mut all = self.all();
        all.len() < MAX_DAMAGED && all.insert((repo, place), blob).is_none()
    }

    /// The blob can be read. Says whether that is news.
    pub(crate) fn forget(&self, blob: Hash) -> bool {
        let mut all = self.all();
        let before = all.len();
        all.retain(|_, damaged| *damaged != blob);
        all.len() < before
    }

    /// The repos of which a file could not be read, with their groups.
    pub(crate) fn repos(&self) -> BTreeSet<(RecordId, PublicKey)> {
        self.all().keys().map(|(repo, _)| *repo).collect()
    }

    /// Returns the damaged places in the tree of a repo that has this root, with their blobs.
    pub(crate) fn of(&self, repo: Of, root: Hash) -> Vec<(Place, Hash)> {
        let all = self.all();
        let of_repo = all.iter().filter(|((of, _), _)| *of == repo);
        let places = of_repo.map(|((_, place), blob)| (place.clone(), *blob));
        places
            .filter(|(place, _)| place.chain.first() == Some(&root))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_known_until_it_is_whole() {
        let damaged = Damaged::default();
        let repo = |n| (RecordId([9; 32]), PublicKey([n; 32]));
        let (other, repo, root) = (repo(2), repo(1), Hash::of("root"));
        let place = |root, offset| Place {
            chain: vec![root],
            offset,
        };
        assert!(damaged.note(repo, place(root, 2), Hash::of("a")));
        assert!(!damaged.note(repo, place(root, 2), Hash::of("a")));
        assert!(damaged.note(repo, place(Hash::of("older"), 2), Hash::of("a")));
        assert!(damaged.note(other, place(root, 3), Hash::of("b")));
        assert_eq!(damaged.of(repo, root), [(place(root, 2), Hash::of("a"))]);
        assert_eq!(damaged.repos(), BTreeSet::from([repo, other]));
        assert!(damaged.forget(Hash::of("a")));
        assert!(!damaged.forget(Hash::of("a")));
        assert_eq!(damaged.of(repo, root), []);
        for offset in 0..2 * MAX_DAMAGED as u32 {
            damaged.note(repo, place(root, offset), Hash::of("c"));
        }
        assert_eq!(damaged.all().len(), MAX_DAMAGED);
    }
}
