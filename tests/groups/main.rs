//! Groups over iroh on the loopback, in stores on disk: what the simulated network shows, for real.
#![allow(missing_docs, reason = "tests are named for what they show")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use larder::{Kind, Store, StoreUrl, Unlock};
use net_iroh::{IrohNetwork, IrohOptions, Reach};
use sync::{
    groups::{Group, Groups, Stores},
    invite::InviteKind,
    replicate::{Options, Replicator, Synced},
};
use tests::{
    data::{MIB, bytes},
    store::files,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A member, in a folder of its own.
struct Member {
    store: Store,
    groups: Groups,
    replicator: Replicator,
    _folder: tempfile::TempDir,
}

impl Member {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::Redb(folder.path().join("store"));
        let store = Store::open_url(&url).await.unwrap();
        let key = folder.path().join("key");
        let secrets = store.secrets(|| Unlock::key_file(&key)).await.unwrap();
        let stores = Stores {
            blobs: store.blobs().clone(),
            collections: store.collections().clone(),
            secrets,
        };
        let groups = Groups::open(stores).await.unwrap();
        let options = IrohOptions {
            reach: Reach::Loopback,
            ..IrohOptions::default()
        };
        let network = IrohNetwork::bind(options).await.unwrap();
        let options = Options {
            compare_every: Duration::from_secs(1),
            ..Options::default()
        };
        Self {
            replicator: Replicator::start(groups.clone(), Arc::new(network), options),
            groups,
            store,
            _folder: folder,
        }
    }

    fn group(&self) -> Group {
        self.groups.groups().remove(0)
    }

    async fn invite(&self, kind: InviteKind) -> String {
        let addresses = self.replicator.addresses();
        let invite = self.group().invite(kind, addresses).await.unwrap();
        invite.to_string()
    }

    async fn synced(&self, synced: Synced) {
        let id = self.group().id();
        let synced = self.replicator.wait_synced(id, synced, PATIENCE).await;
        synced.unwrap();
    }

    /// All files that it sees, by member and path.
    async fn files(&self) -> BTreeMap<(String, String), Vec<u8>> {
        let mut all = BTreeMap::new();
        for member in self.group().members().await.unwrap() {
            let name = member.name.unwrap();
            let listed: Vec<_> = member
                .repo
                .list("")
                .await
                .unwrap()
                .try_collect()
                .await
                .unwrap();
            for (path, _) in listed {
                let bytes = member.repo.read_to_bytes(path.as_str()).await.unwrap();
                all.insert((name.clone(), path.as_str().to_owned()), bytes.to_vec());
            }
        }
        all
    }

    async fn end(self) {
        self.replicator.shutdown().await;
        assert!(self.replicator.requests().is_empty());
        self.store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_and_a_replica() {
    let ann = Member::new().await;
    let group = ann.groups.create_group("the group").await.unwrap();
    let repo = group.create_repo("ann").await.unwrap();
    // A real folder.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut expected = BTreeMap::new();
    for path in files(&here.join("src")) {
        let name = path
            .strip_prefix(here)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let data = std::fs::read(&path).unwrap();
        repo.write(&name, path).await.unwrap();
        expected.insert(("ann".to_owned(), name), data);
    }
    let large = bytes(1, 40 * MIB);
    repo.write("large", large.clone()).await.unwrap();
    expected.insert(("ann".to_owned(), "large".to_owned()), large.to_vec());

    let bob = Member::new().await;
    let invite = ann.invite(InviteKind::Write).await.parse().unwrap();
    let joined = bob.groups.join(&invite).await.unwrap();
    let his = joined.create_repo("bob").await.unwrap();
    his.write("hello", "from bob").await.unwrap();
    expected.insert(("bob".to_owned(), "hello".to_owned()), b"from bob".to_vec());

    let keeper = Member::new().await;
    let invite = ann.invite(InviteKind::Replica).await.parse().unwrap();
    keeper.groups.join(&invite).await.unwrap();
    for member in [&ann, &bob, &keeper] {
        member.synced(Synced::Everywhere).await;
    }
    assert!(ann.files().await == expected);
    assert!(bob.files().await == expected);
    assert_eq!(
        keeper.group().name().await.unwrap_err().kind(),
        Kind::Denied
    );

    // Both go, and who comes later gets everything from the replica.
    let invite = keeper.invite(InviteKind::Replica).await;
    let mut invite: sync::invite::Invite = invite.parse().unwrap();
    let at = invite.addresses().to_vec();
    invite = ann.group().invite(InviteKind::Read, at).await.unwrap();
    ann.end().await;
    bob.end().await;
    let late = Member::new().await;
    late.groups.join(&invite).await.unwrap();
    late.synced(Synced::Here).await;
    assert!(late.files().await == expected);
    late.end().await;
    keeper.end().await;
}
