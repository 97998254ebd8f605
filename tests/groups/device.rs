//! A device of a test; its store outlives its process.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Store,
    api::{PublicKey, SecretKey},
    engine::public_key,
};
use larder_sync::{
    groups::{Group, Groups, Repo, Stores},
    invite::{Invite, InviteKind},
    replicate::{GroupStatus, ReplicateOptions, Replicator, Synced},
    tree::Named,
};
use tokio::time::Instant;

use crate::{
    stores::Kept,
    world::{Process, World},
};

/// Longer than any working operation takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The owner of a file, and its path.
pub type FileName = (String, String);

pub struct Device {
    secret: SecretKey,
    kept: Kept,
    options: ReplicateOptions,
    running: Option<Running>,
}

struct Running {
    store: Store,
    groups: Groups,
    online: Option<(Replicator, Process)>,
}

impl Device {
    pub fn new(secret: SecretKey, kept: Kept, options: ReplicateOptions) -> Self {
        Self {
            secret,
            kept,
            options,
            running: None,
        }
    }

    /// Opens the store and its groups, and replicates them.
    pub async fn start(&mut self, world: &World) {
        let (store, secrets) = self.kept.open().await;
        let stores = Stores {
            blobs: store.blobs().clone(),
            secrets,
        };
        let groups = Groups::open_with(stores, world.clock()).await;
        self.running = Some(Running {
            store,
            groups: groups.expect("the groups open"),
            online: None,
        });
        self.connect(world).await;
    }

    /// Starts replicating again, after [`disconnect`](Self::disconnect).
    pub async fn connect(&mut self, world: &World) {
        let (network, process) = world.node(&self.secret).await;
        let (options, groups) = (self.options.clone(), self.groups().clone());
        let replicator = {
            let handle = process.handle();
            let _inside = handle.enter();
            Replicator::start(groups, network, options)
        };
        let running = self.running.as_mut().expect("it runs");
        running.online = Some((replicator, process));
    }

    /// Stops replicating, but keeps working.
    pub async fn disconnect(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        let (replicator, _process) = running.online.take().expect("it is online");
        replicator.shutdown().await;
        assert!(replicator.requests().is_empty());
    }

    /// Shuts down in order.
    pub async fn end(&mut self) {
        self.disconnect().await;
        let running = self.running.take().expect("it runs");
        running.store.close().await.expect("it closes");
    }

    /// Ends abruptly, in the middle of everything. No handles obtained from it may be held: its store
    /// is not closed, but dropped with the last handle.
    pub async fn crash(&mut self, world: &World) {
        let mut running = self.running.take().expect("it runs");
        if let Some((replicator, process)) = running.online.take() {
            let ended = replicator.abort();
            world.kill(self.key(), process);
            ended.await;
        }
    }

    pub fn key(&self) -> PublicKey {
        public_key(&self.secret)
    }

    pub fn store(&self) -> &Store {
        &self.running.as_ref().expect("it runs").store
    }

    pub fn groups(&self) -> &Groups {
        &self.running.as_ref().expect("it runs").groups
    }

    pub fn replicator(&self) -> &Replicator {
        let running = self.running.as_ref().expect("it runs");
        &running.online.as_ref().expect("it is online").0
    }

    /// Returns the only group.
    pub fn group(&self) -> Group {
        self.groups().groups().into_iter().next().expect("a group")
    }

    /// Joins a device's group, and initially knows the addresses of these devices.
    pub async fn join(&self, inviter: &Self, kind: InviteKind, at: &[Self]) {
        let addresses = at.iter().flat_map(|device| device.replicator().addresses());
        let invite = inviter.group().invite(kind, addresses.collect()).await;
        let invite = invite.expect("an invite").to_string();
        let invite: Invite = invite.parse().expect("it is read again");
        let joined = self.groups().join(&invite).await.expect("it joins");
        let let_in = async {
            joined
                .wait_for_standing()
                .await
                .expect("the groups are open");
            // A device that joins again is a member before.
            let key = invite.seed().public();
            let is_used = || {
                let invites = joined.invites();
                let found = invites.iter().find(|known| known.key == key);
                found.is_some_and(|known| known.used_by.contains(&joined.device()))
            };
            while !is_used() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let let_in = tokio::time::timeout(PATIENCE, let_in).await;
        let_in.expect("it is let in");
    }

    /// Connects to another device at its current address. A device on the loopback is found only at the
    /// address that was given, and it has another one after a restart.
    pub async fn meet(&self, other: &Self) {
        let addresses = other.replicator().addresses();
        let address = addresses.first().expect("an address");
        let address = address.parse().expect("an address");
        let connected = self.replicator().connect(&address).await;
        connected.expect("a connection");
    }

    /// Returns its own repo.
    pub async fn own(&self) -> Repo {
        let mut repos = self.group().repos().await.expect("repos").into_iter();
        repos.find(Repo::is_ours).expect("a repo of its own")
    }

    /// Returns another device's repo, as this one sees it.
    pub async fn repo_of(&self, other: &Self) -> Repo {
        let key = other.own().await.key();
        let repo = self.group().repo(key).await.expect("repos");
        repo.expect("it knows of it")
    }

    pub async fn write(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let written = self.own().await.write(path, bytes.into()).await;
        written.expect("a write");
    }

    pub async fn status(&self) -> GroupStatus {
        let status = self.replicator().status(self.group().id()).await;
        status.expect("a status")
    }

    pub async fn synced(&self, synced: Synced) {
        self.synced_or(synced, &[]).await;
    }

    /// Waits until the device is in sync; on failure, also reports the progress of these devices.
    async fn synced_or(&self, synced: Synced, others: &[Self]) {
        let id = self.group().id();
        let waited = self.replicator().wait_synced(id, synced, PATIENCE).await;
        if let Err(error) = waited {
            let mut all = String::new();
            for device in std::iter::once(self).chain(others) {
                let (key, requests) = (device.key(), device.replicator().requests());
                let status = device.status().await;
                all += &format!("\n{key}: {status:#?}, {requests:#?}");
            }
            panic!("{error}: {all}");
        }
    }

    /// Returns all files that it can read.
    pub async fn files(&self) -> BTreeMap<FileName, Vec<u8>> {
        let mut all = BTreeMap::new();
        for member in self.group().members().await.expect("members") {
            let name = member.name.expect("it has come with the repo");
            let mut listed = member.repo.list("").await.expect("a list");
            while let Some(Named { name: path, .. }) = listed.try_next().await.expect("a name") {
                let bytes = member.repo.read_to_bytes(path.as_str()).await;
                let path = path.as_str().to_owned();
                all.insert((name.clone(), path), bytes.expect("a file").to_vec());
            }
        }
        all
    }

    /// Returns the paths in a repo whose contents are here.
    pub async fn has(&self, repo: &Repo) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut all = repo.list("").await.expect("a list");
        while let Some(Named { name, entry }) = all.try_next().await.expect("a name") {
            let status = self.store().blobs().status(entry.blob).await;
            if let Some(BlobStatus::Complete { .. }) = status.expect("a status") {
                names.insert(name.as_str().to_owned());
            }
        }
        names
    }

    /// Deletes everything that is no longer kept.
    pub async fn collect(&self) {
        let now = SystemTime::now() + Duration::from_secs(1);
        let collected = self.store().blobs().collect(now).await;
        collected.expect("a collection");
    }

    /// Returns the number of bytes of its store, after gradually freed space is free.
    pub async fn len(&self) -> u64 {
        self.store()
            .reclaim_space()
            .await
            .expect("space is given back");
        let bytes = self.kept.bytes().await;
        bytes.iter().map(|bytes| bytes.len() as u64).sum()
    }

    /// Returns true if its store contains these bytes anywhere.
    pub async fn has_bytes(&self, needle: &[u8]) -> bool {
        let bytes = self.kept.bytes().await;
        let has = |bytes: &Vec<u8>| bytes.windows(needle.len()).any(|part| part == needle);
        bytes.iter().any(has)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.kept.violations(), Vec::<String>::new());
        }
    }
}

/// Waits until a condition is true.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "it is not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all of these devices, which are online, have the same.
pub async fn agree(devices: &[Device]) {
    for device in devices {
        device.synced_or(Synced::Everywhere, devices).await;
    }
    // Each of them was in sync with those it was connected to.
    until("they agree", async || {
        let mut all = BTreeSet::new();
        for device in devices {
            let status = device.status().await;
            if !status.compared || !status.has_all() {
                return false;
            }
            let roots = status
                .repos
                .iter()
                .map(|repo| (repo.repo, repo.state.announced.hash));
            all.insert(roots.collect::<BTreeMap<_, _>>());
        }
        all.len() == 1
    })
    .await;
}
