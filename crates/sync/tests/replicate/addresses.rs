//! Tests that a device dials only addresses of its own network if members announce several.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use larder_store_api::{Kind, PublicKey, Result};
use larder_sync::{
    groups::Groups,
    invite::InviteKind::{Read, Write},
    network::{Address, AddressWatch, Connection, Network},
    replicate::{Replicator, Synced},
};
use larder_sync_sim::SimNetwork;

use crate::world::{Device, PATIENCE, clock, options, own, world};

/// A network that remembers which addresses were dialled.
struct Dials {
    inner: Arc<dyn Network>,
    dialled: Mutex<Vec<Address>>,
}

impl Dials {
    fn dialled(&self) -> MutexGuard<'_, Vec<Address>> {
        self.dialled.lock().expect("nobody panics while it is held")
    }
}

impl fmt::Debug for Dials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Network for Dials {
    fn schemes(&self) -> &[&str] {
        self.inner.schemes()
    }

    fn key(&self) -> PublicKey {
        self.inner.key()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    fn peer_of(&self, address: &Address) -> Option<PublicKey> {
        self.inner.peer_of(address)
    }

    fn watch_addresses(&self) -> AddressWatch {
        self.inner.watch_addresses()
    }

    async fn connect(&self, to: &Address, expect: Option<PublicKey>) -> Result<Connection> {
        self.dialled().push(to.clone());
        self.inner.connect(to, expect).await
    }

    async fn accept(&self) -> Result<Connection> {
        self.inner.accept().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_of_other_networks_are_not_dialled() {
    let net = SimNetwork::new(90);
    let devices = world(&net, &[], &options()).await;
    own(&devices[0])
        .await
        .write("a", "b")
        .await
        .expect("a write");
    let foreign = [
        "iroh:0123?ip=127.0.0.1:1",
        "veilid:node",
        "no address",
        "SIM:0",
    ];
    let mut addresses: Vec<String> = foreign.map(str::to_owned).to_vec();
    addresses.extend(devices[0].replicator().addresses());
    let invite = devices[0].group().invite(Read, addresses).await;
    let invite = invite.expect("an invite");

    let reader = Device::new(2).await;
    let groups = Groups::open_with(reader.stores.clone(), clock(0)).await;
    let groups = groups.expect("groups");
    let dials = Arc::new(Dials {
        inner: net.node(reader.key),
        dialled: Mutex::default(),
    });
    let replicator = Replicator::start(groups.clone(), dials.clone(), options());
    let group = groups.join(&invite).await.expect("it joins");
    let synced = replicator.wait_synced(group.id(), Synced::Here, Duration::from_secs(60));
    synced.await.expect("it is in sync");
    // Failed dials would be repeated by then.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dialled = dials.dialled().clone();
    assert!(!dialled.is_empty());
    assert!(dialled.iter().all(|to| to.scheme() == "sim"), "{dialled:?}");

    // A user who dials one explicitly is told which schemes there are.
    let error = replicator
        .connect(&foreign[0].parse().expect("an address"))
        .await;
    let error = error.expect_err("it is of another network");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("dials=sim"), "{error}");
    let [own] = &devices[0].replicator().addresses()[..] else {
        panic!("one address");
    };
    assert_eq!(replicator.peer_of(own), Some(devices[0].key));
    assert_eq!(replicator.peer_of(foreign[0]), None);
    assert_eq!(replicator.peer_of(foreign[2]), None);
}

#[tokio::test(start_paused = true)]
async fn it_is_known_whom_a_device_looks_for_and_how_that_failed() {
    let net = SimNetwork::new(77);
    let mut devices = world(&net, &[Write], &options()).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let id = devices[0].group().id();
    let first = devices[0].key;
    let attempts = devices[1].replicator().attempts(id);
    assert_eq!(
        attempts.len(),
        1,
        "its own address is none of them: {attempts:?}"
    );
    assert!(attempts[0].connected && attempts[0].failure.is_none());
    assert_eq!(attempts[0].device, Some(first));

    devices[0].crash(&net);
    let failed = async {
        loop {
            let attempts = devices[1].replicator().attempts(id);
            if let [attempt] = &attempts[..]
                && let Some(error) = &attempt.failure
            {
                assert!(!attempt.connected);
                // The repo that tells the address says whose it is.
                assert!(attempt.repo.is_some());
                assert_eq!(error.kind(), Kind::Unavailable);
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, failed)
        .await
        .expect("it fails");
    // The next success forgets the failure.
    devices[0].start(&net, options()).await;
    devices[1].synced(Synced::Everywhere).await;
    let attempts = devices[1].replicator().attempts(id);
    assert!(
        attempts.iter().all(|attempt| attempt.connected),
        "{attempts:?}"
    );
}
