//! Devices with one kind of store, on one kind of network.

use std::{sync::Arc, time::Duration};

use larder::{
    api::{PublicKey, SecretKey},
    engine::{generate_key, public_key},
};
use larder_net_iroh::{EndpointOptions, IrohNetwork, Reach};
use larder_sync::{
    groups::Clock, invite::InviteKind, network::Network, replicate::ReplicateOptions,
};
use larder_sync_sim::{Link, SimNetwork};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use crate::{
    device::Device,
    stores::{Kept, StoreKind},
};

/// The time at which every world begins, in milliseconds since 1970.
const START_MS: i64 = 1_700_000_000_000;

/// The network that connects devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    Simulated,
    Iroh,
}

/// The environment of a scenario.
pub struct World {
    stores: StoreKind,
    /// The network, if it is simulated.
    net: Option<SimNetwork>,
    start: Instant,
}

/// Runs a scenario in a world. Time is virtual, unless work is done for which virtual time does not
/// wait: on a socket, or on the threads of a store on disk.
pub fn run(stores: StoreKind, network: NetworkKind, scenario: impl AsyncFnOnce(&World)) {
    let is_virtual = stores != StoreKind::Redb && network == NetworkKind::Simulated;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(is_virtual)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let net = (network == NetworkKind::Simulated).then(|| {
            let net = SimNetwork::new(1);
            net.set_default_link(Link {
                latency: Duration::from_millis(2),
                bandwidth: Some(200_000_000),
                ..Link::default()
            });
            net
        });
        let start = Instant::now();
        scenario(&World { stores, net, start }).await;
    });
}

/// Returns options that are fast enough for real time.
pub fn options() -> ReplicateOptions {
    ReplicateOptions::default()
        .compare_every(Duration::from_secs(1))
        .route_for(Duration::from_secs(600))
}

impl World {
    /// A device that has nothing yet, and runs.
    pub async fn device(&self, options: ReplicateOptions) -> Device {
        let key = generate_key().expect("randomness");
        let mut device = Device::new(key, Kept::new(self.stores), options);
        device.start(self).await;
        device
    }

    /// Makes a group with the first device, and lets the others join by invites of these kinds. Those
    /// who may write have repos: `member 0`, `member 1` and so on.
    pub async fn members(&self, kinds: &[InviteKind]) -> Vec<Device> {
        self.members_with(kinds, options()).await
    }

    pub async fn members_with(
        &self,
        kinds: &[InviteKind],
        options: ReplicateOptions,
    ) -> Vec<Device> {
        let first = self.device(options.clone()).await;
        let group = first.groups().create_group("the group").await;
        let group = group.expect("a group");
        group.create_repo("member 0").await.expect("a repo");
        let mut devices = vec![first];
        for (n, kind) in (1..).zip(kinds) {
            let device = self.device(options.clone()).await;
            device.join(&devices[0], *kind, &devices[..1]).await;
            if *kind == InviteKind::Write {
                let repo = device.group().create_repo(&format!("member {n}")).await;
                repo.expect("a repo");
            }
            devices.push(device);
        }
        devices
    }

    /// Returns the world's clock.
    pub fn clock(&self) -> Clock {
        let start = self.start;
        let since = move || i64::try_from(start.elapsed().as_millis()).expect("it is short");
        Arc::new(move || START_MS + since())
    }

    /// Starts a node of the network, with a runtime of its own if it needs one, so that it can be
    /// killed.
    pub async fn node(&self, key: &SecretKey) -> (Arc<dyn Network>, Process) {
        match &self.net {
            Some(net) => (net.node(public_key(key)), Process(None)),
            None => {
                let mut runtime = Builder::new_multi_thread();
                runtime.worker_threads(1).enable_all();
                let process = Process(Some(runtime.build().expect("a runtime")));
                let options = EndpointOptions::new(Reach::Loopback).with_secret_key(key.clone());
                let bound = process.handle().spawn(IrohNetwork::bind(options));
                let network = bound.await.expect("a task").expect("a port");
                (Arc::new(network), process)
            }
        }
    }

    /// Removes a node from the network like a killed process.
    pub fn kill(&self, node: PublicKey, process: Process) {
        if let Some(net) = &self.net {
            net.crash(node);
        }
        drop(process);
    }

    /// Searches everything that is sent for this, if the network allows it.
    pub fn search_for(&self, pattern: &str) {
        if let Some(net) = &self.net {
            net.search_for(&[pattern]).expect("a pattern");
        }
    }

    /// Returns the number of findings.
    pub fn findings(&self) -> usize {
        self.net.as_ref().map_or(0, |net| net.findings().len())
    }
}

/// The runtime for the tasks of a device, if it has its own. Dropping it aborts them, so that no
/// farewell is sent.
pub struct Process(Option<Runtime>);

impl Process {
    pub fn handle(&self) -> tokio::runtime::Handle {
        let own = self.0.as_ref().map(|runtime| runtime.handle().clone());
        own.unwrap_or_else(tokio::runtime::Handle::current)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
