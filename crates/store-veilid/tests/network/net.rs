//! A private network: addresses that look public on an interface that leads nowhere, and five real
//! nodes on them, three of which are bootstraps.

use std::{process::Command, sync::Arc, time::Duration};

use larder_store_testkit::MemoryStore;
use larder_store_veilid::VeilidRecords;
use larder_veilid_node::{
    Bootstrap, Node, NodeConfig, Protection,
    veilid_core::{
        CRYPTO_KIND_VLD0, KeyPair, PublicKeyGroup, SecretKeyGroup, VeilidConfig,
        VeilidConfigAddressType,
    },
};
use tempfile::TempDir;

/// Four nodes never become ready.
pub const NODES: usize = 5;
const BOOTSTRAPS: usize = 3;
const READY: Duration = Duration::from_secs(60);

/// Checks that a network namespace can be made; otherwise returns the reason.
pub fn can_isolate() -> Result<(), String> {
    let isolated = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "ip", "link", "add"])
        .args(["v0", "type", "veth", "peer", "name", "v1"])
        .output()
        .map_err(|error| format!("unshare cannot be run: {error}"))?;
    match isolated.status.success() {
        true => Ok(()),
        false => Err(format!(
            "no network namespace can be made: {}",
            String::from_utf8_lossy(&isolated.stderr).trim()
        )),
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {args}");
}

/// Sets up the addresses, in a namespace of our own.
pub fn set_up() {
    ip("link set lo up");
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
    for i in 1..=NODES {
        ip(&format!("addr add 5.{i}.0.1/32 dev v0"));
        ip(&format!("-6 addr add 2600:{i}::1/128 dev v0 nodad"));
    }
    ip("route add default via 5.255.0.1 dev v0 onlink");
    ip("-6 route add default dev v0");
}

/// The nodes and their records.
#[derive(Clone)]
pub struct Net {
    pub peers: Arc<Vec<Peer>>,
}

/// One node.
pub struct Peer {
    pub node: Node,
    pub records: VeilidRecords,
    _dir: TempDir,
}

impl Net {
    pub async fn start() -> Self {
        let keys = bootstrap_keys().await;
        let starting = (0..NODES).map(|i| Peer::start(i, &keys));
        let peers = futures_util::future::join_all(starting).await;
        let attaching = peers.iter().map(|peer| peer.attach());
        futures_util::future::join_all(attaching).await;
        Self {
            peers: Arc::new(peers),
        }
    }

    pub async fn shutdown(&self) {
        let ending = self.peers.iter().map(|peer| peer.node.shutdown());
        futures_util::future::join_all(ending).await;
    }
}

impl Peer {
    async fn start(i: usize, keys: &[KeyPair]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let node = Node::start_with(config(i, keys, &dir)).await;
        let node = node.expect("a node starts");
        let known = Arc::new(MemoryStore::new());
        let records = VeilidRecords::new(node.clone(), known).expect("a node has records");
        Self {
            node,
            records,
            _dir: dir,
        }
    }

    pub async fn attach(&self) {
        let attached = self.node.attach(READY).await;
        attached.expect("the node finds the others");
    }
}

/// Generates the keys before the nodes start, since each node is told all of them.
async fn bootstrap_keys() -> Vec<KeyPair> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = NodeConfig::new(dir.path(), Protection::InsecureFile);
    config.namespace = "keys".to_owned();
    config.bootstrap = Bootstrap::Nobody;
    let node = Node::start(config).await.expect("a node starts");
    let mut keys = Vec::new();
    {
        let crypto = node.api().crypto().expect("it runs");
        let crypto = crypto
            .get_async(CRYPTO_KIND_VLD0)
            .expect("it has this kind");
        for _ in 0..BOOTSTRAPS {
            keys.push(crypto.generate_keypair().await);
        }
    }
    node.shutdown().await;
    keys
}

fn config(i: usize, keys: &[KeyPair], dir: &TempDir) -> VeilidConfig {
    let mut config = NodeConfig::new(dir.path(), Protection::InsecureFile);
    config.namespace = format!("network{i}");
    let records = keys.iter().enumerate().map(|(n, pair)| {
        let (key, address) = (pair.key(), n + 1);
        format!("0|0|{key}|5.{address}.0.1|U5150,T5150,W5150/ws")
    });
    config.bootstrap = Bootstrap::Records(records.collect());
    let mut config = config.to_veilid().expect("the path is Unicode");
    let network = &mut config.network;
    network.upnp = false;
    network.detect_address_changes = Some(false);
    network.address_types = vec![VeilidConfigAddressType::Ipv4];
    network.max_connections = 512;
    if let Some(pair) = keys.get(i) {
        let routing = &mut network.routing_table;
        routing.public_keys = PublicKeyGroup::from(pair.key());
        routing.secret_keys = SecretKeyGroup::from(pair.secret());
    }
    let address = i + 1;
    let listen = format!("5.{address}.0.1:5150");
    network.protocol.udp.listen_address.clone_from(&listen);
    network.protocol.tcp.listen_address.clone_from(&listen);
    network.protocol.ws.listen_address = listen;
    // Never dialled: it only satisfies a requirement for relays.
    let decoy = format!("[2600:{address}::1]:5150");
    network.protocol.udp.public_address = Some(decoy.clone());
    network.protocol.tcp.public_address = Some(decoy.clone());
    network.protocol.ws.url = Some(format!("ws://{decoy}/ws"));
    config
}
