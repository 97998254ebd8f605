//! Members of groups on a simulated network, each with a store of its own.

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::{PublicKey, Result};
use larder_store_engine::Blobs;
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync::{
    groups::{Clock, Group, Groups, Policy, Repo, Standing, Stores},
    invite::InviteKind,
    replicate::{Push, ReplicateOptions, Replicator, Synced},
    tree::Named,
};
use larder_sync_sim::SimNetwork;
use tokio::time::Instant;

/// The time at which every world begins, in milliseconds since 1970.
pub const START_MS: i64 = 1_700_000_000_000;

/// Longer than any working operation takes; on virtual time.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A device; its store outlives its process.
pub struct Device {
    pub key: PublicKey,
    /// The memory that contains the stores.
    pub memory: MemoryStore,
    pub stores: Stores,
    /// The error of its clock, in milliseconds.
    pub skew: i64,
    pub running: Option<Replicator>,
}

impl Device {
    pub async fn new(n: u8) -> Self {
        let memory = MemoryStore::new();
        let shared = Arc::new(memory.clone());
        let stores = Stores {
            blobs: Blobs::open(shared.clone(), shared.clone())
                .await
                .expect("blobs"),
            secrets: Arc::new(MemorySecrets::new()),
        };
        Self {
            key: PublicKey([n; 32]),
            memory,
            stores,
            skew: 0,
            running: None,
        }
    }

    /// Opens the groups, and replicates them.
    pub async fn start(&mut self, net: &SimNetwork, options: ReplicateOptions) -> Groups {
        let groups = Groups::open_with(self.stores.clone(), clock(self.skew));
        let groups = groups.await.expect("groups");
        let network = net.node(self.key);
        self.running = Some(Replicator::start(groups.clone(), network, options));
        groups
    }

    /// Ends the process abruptly.
    pub fn crash(&mut self, net: &SimNetwork) {
        net.crash(self.key);
        if let Some(running) = self.running.take() {
            drop(running.abort());
        }
    }

    pub fn groups(&self) -> &Groups {
        self.replicator().groups()
    }

    pub fn replicator(&self) -> &Replicator {
        self.running.as_ref().expect("it runs")
    }

    /// Returns the only group.
    pub fn group(&self) -> Group {
        self.groups().groups().into_iter().next().expect("a group")
    }

    pub async fn synced(&self, synced: Synced) {
        let id = self.group().id();
        let synced = self.replicator().wait_synced(id, synced, PATIENCE).await;
        if let Err(error) = synced {
            let status = self.replicator().status(id).await;
            panic!("{error}: {status:#?}");
        }
    }

    /// Returns the time of the device's clock.
    pub fn now(&self) -> i64 {
        clock(self.skew)()
    }

    /// Returns everything that this member can read, by owner and path.
    pub async fn files(&self) -> BTreeMap<(PublicKey, String), Vec<u8>> {
        let mut all = BTreeMap::new();
        for repo in self.group().repos().await.expect("repos") {
            for (name, bytes) in contents(&repo).await.expect("files") {
                all.insert((repo.key(), name), bytes);
            }
        }
        all
    }

    /// Returns true if its store contains these bytes anywhere.
    pub async fn has_bytes(&self, needle: &[u8]) -> bool {
        let mut blobs = self.stores.blobs.list();
        while let Some((hash, _)) = blobs.try_next().await.expect("a list") {
            // Some blobs are incomplete.
            let here = self.stores.blobs.bitfield(hash).await.expect("a blob");
            for part in here.ranges.boundaries().chunks(2) {
                let end = part.get(1).map_or(u64::MAX, |end| end.0 * 1024);
                let part = self.stores.blobs.read_to_bytes(hash, part[0].0 * 1024..end);
                let bytes = part.await.expect("what is here can be read");
                if bytes.windows(needle.len()).any(|part| part == needle) {
                    return true;
                }
            }
        }
        false
    }
}

thread_local! {
    /// The beginning of this thread's world: each thread has its own runtime and time.
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Returns a clock that shows the simulation's time with this error.
pub fn clock(skew: i64) -> Clock {
    let start = START.get().expect("a world");
    Arc::new(move || START_MS + skew + start.elapsed().as_millis() as i64)
}

pub async fn contents(repo: &Repo) -> Result<Vec<(String, Vec<u8>)>> {
    let names: Vec<_> = repo.list("").await?.try_collect().await?;
    let mut all = Vec::new();
    for Named { name, .. } in names {
        let bytes = repo.read_to_bytes(name.as_str()).await?;
        all.push((name.as_str().to_owned(), bytes.to_vec()));
    }
    Ok(all)
}

/// Waits until a device is let in, as it is by those who are connected.
pub async fn let_in(group: &Group) -> Standing {
    let standing = tokio::time::timeout(PATIENCE, group.wait_for_standing()).await;
    standing.expect("in time").expect("the groups are open")
}

/// Returns the device's own repo.
pub async fn own(device: &Device) -> Repo {
    let repos = device.group().repos().await.expect("repos");
    repos
        .into_iter()
        .find(|repo| repo.is_ours())
        .expect("a repo of its own")
}

/// Returns options that are fast enough for simulated days.
pub fn options() -> ReplicateOptions {
    ReplicateOptions::default()
        .policy(Policy::Everything)
        .push(Push::AtOnce)
        .compare_every(Duration::from_secs(10))
        .route_for(Duration::from_secs(600))
}

/// A group that the first device made and the others joined, by invites of these kinds.
pub async fn world(
    net: &SimNetwork,
    kinds: &[InviteKind],
    options: &ReplicateOptions,
) -> Vec<Device> {
    world_with(net, kinds, options, &mut || 0).await
}

/// Makes a world whose clocks are wrong by the values of `skew`.
pub async fn world_with(
    net: &SimNetwork,
    kinds: &[InviteKind],
    options: &ReplicateOptions,
    skew: &mut dyn FnMut() -> i64,
) -> Vec<Device> {
    // `RUST_LOG=sync=debug` shows what happens; a second test finds it set already.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let shown = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer();
    drop(shown.try_init());
    START.set(Some(Instant::now()));
    let mut first = Device::new(1).await;
    first.skew = skew();
    let groups = first.start(net, options.clone()).await;
    let group = groups.create_group("the group").await.expect("a group");
    group.create_repo("member 1").await.expect("a repo");
    let mut devices = vec![first];
    for (n, kind) in (2..).zip(kinds) {
        let addresses = devices[0].replicator().addresses();
        let invite = group.invite(*kind, addresses).await.expect("an invite");
        let invite = invite.to_string().parse().expect("it is read again");
        let mut device = Device::new(n).await;
        device.skew = skew();
        let groups = device.start(net, options.clone()).await;
        let joined = groups.join(&invite).await.expect("it joins");
        let standing = let_in(&joined).await;
        assert_eq!(standing, Standing::Member, "{}", device.key);
        if *kind == InviteKind::Write {
            let name = format!("member {n}");
            joined.create_repo(&name).await.expect("a repo");
        }
        devices.push(device);
    }
    devices
}
