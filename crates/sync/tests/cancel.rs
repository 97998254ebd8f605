//! Tests that drop changes of groups and repos at every one of their awaits, over stores that complete
//! what a dropped call began: a change is made or not, nothing acknowledged is lost, nothing unneeded
//! stays, and the call can be repeated.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use futures_util::TryStreamExt;
use larder_store_api::SeqExpect;
use larder_store_engine::{Blobs, Finding, Repair, Scrubbed};
use larder_store_testkit::{MemorySecrets, MemoryStore, cancel::at_every_await, stores::LateStore};
use larder_sync::{
    groups::{Changes, Group, Groups, Policy, Repo, Stores},
    invite::{Invite, InviteKind},
    tree::{Name, Named},
};

type Late = Arc<LateStore<MemoryStore>>;

/// The files of a repo, by name.
type Files = BTreeMap<String, Vec<u8>>;

const LONG: usize = 40_000;

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8 ^ seed).collect()
}

/// A device whose store may carry out calls later.
struct Device {
    late: Late,
    secrets: Arc<MemorySecrets>,
    blobs: Blobs,
    groups: Groups,
}

impl Device {
    async fn new(seed: u64) -> Self {
        let late = Arc::new(LateStore::new(MemoryStore::new(), seed));
        Self::open(late, Arc::default()).await
    }

    async fn open(late: Late, secrets: Arc<MemorySecrets>) -> Self {
        let blobs = Blobs::open(late.clone(), late.clone()).await.unwrap();
        let stores = Stores {
            blobs: blobs.clone(),
            secrets: secrets.clone(),
        };
        let groups = Groups::open(stores).await.unwrap();
        Self {
            late,
            secrets,
            blobs,
            groups,
        }
    }

    /// Creates a device with a group, in which it has a repo with a short file and a long one.
    async fn with_files(seed: u64) -> Self {
        let device = Self::new(seed).await;
        let group = device.groups.create_group("the group").await.unwrap();
        let repo = group.create_repo("a member").await.unwrap();
        repo.write("short", bytes(1, 100)).await.unwrap();
        repo.write("folder/long", bytes(2, LONG)).await.unwrap();
        device
    }

    fn group(&self) -> Group {
        self.groups.groups().remove(0)
    }

    async fn repo(&self) -> Repo {
        self.group().repos().await.unwrap().remove(0)
    }

    /// Returns all files of the repo, after reading each.
    async fn files(&self) -> Files {
        let repo = self.repo().await;
        let names: Vec<_> = repo.list("").await.unwrap().try_collect().await.unwrap();
        let mut files = Files::new();
        for Named { name, .. } in names {
            let found = repo.read_to_bytes(name.as_str()).await.unwrap();
            files.insert(name.as_str().to_owned(), found.to_vec());
        }
        files
    }

    /// Opens the device again once all work has ended, and checks that its store has nothing that is
    /// damaged or unneeded.
    async fn reopened(self) -> Self {
        self.groups.close().await;
        self.blobs.close().await.unwrap();
        self.late.settle().await;
        let device = Self::open(self.late, self.secrets).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        device.blobs.collect(SystemTime::now()).await.unwrap();
        let found = device.blobs.scrub(Repair::No);
        let found: Vec<Scrubbed> = found.try_collect().await.unwrap();
        for scrubbed in &found {
            assert_eq!(scrubbed.finding, Finding::Sound, "{found:?}");
        }
        let again = device.blobs.collect(SystemTime::now()).await.unwrap();
        assert_eq!(again.deleted, 0, "collecting once is enough");
        device
    }
}

/// Cancels a change of a repo: it is made or not, and is made when it is repeated.
async fn change_of_repo(change: impl AsyncFn(&Repo), expected: impl Fn(&mut Files)) {
    for is_repeated in [false, true] {
        let cuts = at_every_await(async |mut cut| {
            let device = Device::with_files(cut.polls() as u64).await;
            let before = device.files().await;
            let mut after = before.clone();
            expected(&mut after);
            let repo = device.repo().await;
            let answer = cut.call(change(&repo)).await;
            if is_repeated && answer.is_none() {
                change(&repo).await;
            }
            let is_made = answer.is_some() || is_repeated;
            // The cancelled change may still be carried out while the repo is read.
            assert!(!is_made || device.files().await == after);
            drop(repo);
            let device = device.reopened().await;
            let found = device.files().await;
            assert!(found == after || (!is_made && found == before));
            cut
        })
        .await;
        assert!(cuts > 1, "{cuts}");
    }
}

#[tokio::test]
async fn writing_a_short_file() {
    let write = async |repo: &Repo| drop(repo.write("new", bytes(3, 200)).await.unwrap());
    change_of_repo(write, |files| {
        drop(files.insert("new".into(), bytes(3, 200)))
    })
    .await;
}

#[tokio::test]
async fn writing_a_long_file_over_another() {
    let write = async |repo: &Repo| drop(repo.write("short", bytes(3, LONG)).await.unwrap());
    change_of_repo(write, |files| {
        drop(files.insert("short".into(), bytes(3, LONG)))
    })
    .await;
}

#[tokio::test]
async fn removing_a_file() {
    let remove = async |repo: &Repo| repo.remove("folder/long").await.unwrap();
    change_of_repo(remove, |files| drop(files.remove("folder/long"))).await;
}

#[tokio::test]
async fn renaming_a_file() {
    let rename = async |repo: &Repo| {
        // When it is repeated, it may be done already.
        let has = |name| async move { repo.entry(name).await.unwrap().is_some() };
        if has("short").await || !has("renamed").await {
            repo.rename("short", "renamed").await.unwrap();
        }
    };
    let expected = |files: &mut Files| {
        let file = files.remove("short").unwrap();
        files.insert("renamed".into(), file);
    };
    change_of_repo(rename, expected).await;
}

#[tokio::test]
async fn changing_many_files_at_once() {
    let change = async |repo: &Repo| {
        let mut changes = Changes::new();
        for (name, len) in [("a", 10), ("b", LONG)] {
            let staged = repo.stage(bytes(9, len), 0).await.unwrap();
            changes.put(Name::new(name).unwrap(), staged);
        }
        changes.remove(Name::new("short").unwrap());
        repo.change(changes).await.unwrap();
    };
    let expected = |files: &mut Files| {
        files.remove("short");
        files.insert("a".into(), bytes(9, 10));
        files.insert("b".into(), bytes(9, LONG));
    };
    change_of_repo(change, expected).await;
}

#[tokio::test]
async fn creating_a_group_and_a_repo() {
    for is_repeated in [false, true] {
        let cuts = at_every_await(async |mut cut| {
            let device = Device::new(cut.polls() as u64).await;
            let answer = cut.call(device.groups.create_group("the group")).await;
            let created = answer.map(|group| group.unwrap().id());
            let least = usize::from(created.is_some()) + usize::from(is_repeated);
            if is_repeated {
                let group = device.groups.create_group("again").await.unwrap();
                let repo = group.create_repo("a member").await.unwrap();
                repo.write("file", "content").await.unwrap();
            }
            let device = device.reopened().await;
            let groups = device.groups.groups();
            assert!(groups.len() >= least && groups.len() <= 1 + usize::from(is_repeated));
            // A half-made group can be used, or left.
            for group in groups {
                group.name().await.unwrap();
                for repo in group.repos().await.unwrap() {
                    assert_eq!(repo.read_to_bytes("file").await.unwrap(), "content");
                }
                device.groups.leave(group.id()).await.unwrap();
            }
            let device = device.reopened().await;
            assert!(device.groups.groups().is_empty());
            let left: Vec<_> = device.blobs.list().try_collect().await.unwrap();
            assert!(left.is_empty(), "{left:?}");
            cut
        })
        .await;
        assert!(cuts > 1, "{cuts}");

        let cuts = at_every_await(async |mut cut| {
            let device = Device::new(cut.polls() as u64).await;
            let group = device.groups.create_group("the group").await.unwrap();
            let answer = cut.call(group.create_repo("a member")).await;
            let is_made = answer.is_some();
            drop(answer);
            if is_repeated {
                let repo = group.create_repo("again").await.unwrap();
                repo.write("file", "content").await.unwrap();
            }
            drop(group);
            let device = device.reopened().await;
            let repos = device.group().repos().await.unwrap();
            assert!(repos.len() >= usize::from(is_made) + usize::from(is_repeated));
            for repo in &repos {
                let names = repo.list("").await.unwrap();
                let names: Vec<_> = names.try_collect().await.unwrap();
                assert!(names.len() <= 1);
            }
            cut
        })
        .await;
        assert!(cuts > 1, "{cuts}");
    }
}

async fn invite(kind: InviteKind) -> Invite {
    let other = Device::with_files(0).await;
    other.group().invite(kind, Vec::new()).await.unwrap()
}

#[tokio::test]
async fn joining_and_leaving() {
    let invite = invite(InviteKind::Write).await;
    for is_repeated in [false, true] {
        let cuts = at_every_await(async |mut cut| {
            let device = Device::new(cut.polls() as u64).await;
            let answer = cut.call(device.groups.join(&invite)).await;
            let mut is_joined = answer.is_some();
            drop(answer);
            if is_repeated {
                device.groups.join(&invite).await.unwrap();
                is_joined = true;
            }
            let device = device.reopened().await;
            assert!(device.groups.groups().len() == 1 || !is_joined);
            cut
        })
        .await;
        assert!(cuts > 1, "{cuts}");

        let cuts = at_every_await(async |mut cut| {
            let device = Device::with_files(cut.polls() as u64).await;
            let id = device.group().id();
            let answer = cut.call(device.groups.leave(id)).await;
            let mut is_left = answer.is_some();
            if is_repeated {
                device.groups.leave(id).await.unwrap();
                is_left = true;
            }
            let device = device.reopened().await;
            // The group exists until all of it is gone, so that leaving can be repeated.
            let is_here = device.groups.group(id).is_some();
            assert!(!(is_left && is_here));
            device.groups.leave(id).await.unwrap();
            let device = device.reopened().await;
            assert!(device.groups.groups().is_empty());
            let left: Vec<_> = device.blobs.list().try_collect().await.unwrap();
            assert!(left.is_empty(), "{left:?}");
            cut
        })
        .await;
        assert!(cuts > 1, "{cuts}");
    }
}

#[tokio::test]
async fn saying_what_is_wanted_and_writing_values() {
    let cuts = at_every_await(async |mut cut| {
        let device = Device::with_files(cut.polls() as u64).await;
        let (group, repo) = (device.group(), device.repo().await);
        let all = async {
            group.set_policy(Policy::Names).await.unwrap();
            repo.set_policy(Policy::Everything).await.unwrap();
            repo.pin("folder").await.unwrap();
            let put = group.record_put(1, b"value", SeqExpect::Any).await;
            put.unwrap();
            repo.unpin("folder").await.unwrap();
        };
        let is_made = cut.call(all).await.is_some();
        drop((group, repo));
        let device = device.reopened().await;
        let (group, repo) = (device.group(), device.repo().await);
        let found = (
            group.policy().await.unwrap(),
            repo.policy().await.unwrap(),
            group.record_get(1).await.unwrap(),
            repo.pinned().await.unwrap(),
        );
        // Each exists only after those before it.
        assert!(found.0.is_some() || found.1.is_none());
        assert!(found.1.is_some() || found.3.is_empty());
        if let Some(value) = &found.2 {
            assert_eq!(value.value, &b"value"[..]);
        }
        if is_made {
            assert!(found.0.is_some() && found.1.is_some() && found.2.is_some());
            assert!(found.3.is_empty());
        }
        assert_eq!(device.files().await.len(), 2);
        cut
    })
    .await;
    assert!(cuts > 4, "{cuts}");
}
