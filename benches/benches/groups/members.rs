//! Two members, on redb and iroh.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Store, StoreUrl, Unlock,
    groups::{Changes, InviteKind, IrohOptions, Name, Options, Reach, Replicator, Synced},
};

use crate::Load;

const IN_FLIGHT: usize = 32;
const PATIENCE: Duration = Duration::from_secs(600);

async fn member(dir: &Path) -> (Store, Replicator) {
    let store = Store::open_url(&StoreUrl::Redb(dir.join("store")))
        .await
        .unwrap();
    let network = IrohOptions {
        reach: Reach::Loopback,
        ..IrohOptions::default()
    };
    let key = dir.join("key");
    let replicator = store
        .replicate(|| Unlock::key_file(&key), network, Options::default())
        .await
        .unwrap();
    (store, replicator)
}

/// How long it takes from joining until everything is here.
pub async fn catch_up(load: &Load, dir: &Path) -> Duration {
    let (from_dir, to_dir) = (dir.join("from"), dir.join("to"));
    for dir in [&from_dir, &to_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let (from_store, from) = member(&from_dir).await;
    let group = from.groups().create_group("the group").await.unwrap();
    let repo = group.create_repo("a member").await.unwrap();
    if load.is_long() {
        let path = dir.join("long");
        load.write_long(&path);
        repo.write("long", path).await.unwrap();
    } else {
        let staged = stream::iter(load.files().enumerate())
            .map(|(n, data)| {
                let repo = repo.clone();
                async move {
                    let name = Name::new(format!("folder/file {n}")).unwrap();
                    (name, repo.stage(data, 0).await.unwrap())
                }
            })
            .buffer_unordered(IN_FLIGHT);
        let mut changes = Changes::new();
        for (name, file) in staged.collect::<Vec<_>>().await {
            changes.put(name, file);
        }
        repo.change(changes).await.unwrap();
    }
    let invite = group
        .invite(InviteKind::Read, from.addresses())
        .await
        .unwrap();

    let (to_store, to) = member(&to_dir).await;
    let start = Instant::now();
    let joined = to.groups().join(&invite).await.unwrap();
    to.wait_synced(joined.id(), Synced::Here, PATIENCE)
        .await
        .unwrap();
    let took = start.elapsed();

    let repos = joined.repos().await.unwrap();
    let listed: Vec<_> = repos[0]
        .list("")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed.len(), load.files);
    to.shutdown().await;
    from.shutdown().await;
    to_store.close().await.unwrap();
    from_store.close().await.unwrap();
    took
}
