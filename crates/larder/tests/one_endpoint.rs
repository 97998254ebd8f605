//! An app with one endpoint for all that it does: it serves and fetches blobs, replicates groups, and
//! speaks a protocol of its own.
#![cfg(all(feature = "iroh", feature = "groups"))]
#![allow(missing_docs, reason = "tests are named for what they show")]

use std::{sync::Arc, time::Duration};

use larder::{
    Bytes, Kind, Root, Store,
    groups::{
        self, Group, Invite, InviteKind, IrohNetwork, ReplicateOptions, Replicator, Synced,
        network::Network,
    },
    iroh::{
        self, AcceptError, BlobTicket, Connection, Endpoint, EndpointOptions, FetchOptions,
        ProtocolHandler, Provider, Reach, Router, Shares, connect, fetch, ticket, to_engine_root,
    },
};
use tokio::time::timeout;

/// No test waits longer for what it knows will come.
const SOON: Duration = Duration::from_secs(30);

const SHOUT: &[u8] = b"shout/1";

/// The app's own protocol.
#[derive(Debug)]
struct Shout;

impl ProtocolHandler for Shout {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let said = recv.read_to_end(1024).await.map_err(AcceptError::from_err);
            let loud = said?.to_ascii_uppercase();
            let sent = send.write_all(&loud).await;
            sent.map_err(AcceptError::from_err)?;
            send.finish()?;
        }
        Ok(())
    }
}

struct App {
    store: Store,
    endpoint: Endpoint,
    shares: Shares,
    network: Arc<IrohNetwork>,
    router: Router,
    replicator: Replicator,
}

async fn app() -> App {
    let store = Store::open("mem:").await.expect("memory is there");
    let options = EndpointOptions::new(Reach::Loopback);
    let endpoint = store.endpoint(options).await.expect("a port");
    let shares = Shares::new(store.blobs());
    let network = Arc::new(IrohNetwork::new(endpoint.clone(), Reach::Loopback));
    let router = Router::builder(endpoint.clone())
        .accept(iroh::ALPN, Provider::new(store.blobs(), &shares))
        .accept(groups::ALPN, network.clone())
        .accept(SHOUT, Shout)
        .spawn();
    let groups = store.groups().await.expect("groups");
    let replicator = Replicator::start(groups, network.clone(), ReplicateOptions::default());
    App {
        store,
        endpoint,
        shares,
        network,
        router,
        replicator,
    }
}

impl App {
    /// Stores bytes and lets everybody fetch them.
    async fn share(&self, bytes: &[u8]) -> BlobTicket {
        let pin = self.store.blobs().add(bytes.to_vec()).await.expect("room");
        self.shares.allow(pin.root()).expect("few are shared");
        ticket(&self.endpoint, pin.root()).await.expect("addresses")
    }

    async fn fetch(&self, ticket: &BlobTicket) -> larder::Result<Bytes> {
        let connection = connect(&self.endpoint, ticket.addr().clone(), SOON).await?;
        let root: Root = to_engine_root(ticket.hash_and_format());
        let options = FetchOptions::default();
        let _fetched = fetch(self.store.blobs(), &connection, root, options).await?;
        let blobs = self.store.blobs();
        blobs.read_to_bytes(root.hash, 0..u64::MAX).await
    }

    async fn hear(&self, connection: &Connection) -> Vec<u8> {
        let (mut send, mut recv) = connection.open_bi().await.expect("it is there");
        send.write_all(b"hello").await.expect("it listens");
        send.finish().expect("it is open");
        recv.read_to_end(1024).await.expect("it answers")
    }

    /// Waits until it has all of the group, and reads a file of one member.
    async fn read(&self, group: &Group, member: &str) -> Bytes {
        let synced = self.replicator.wait_synced(group.id(), Synced::Here, SOON);
        synced.await.expect("it comes");
        for found in group.members().await.expect("members") {
            if found.name.as_deref() == Some(member) {
                return found.repo.read_to_bytes("note").await.expect("it is here");
            }
        }
        panic!("{member} is no member");
    }
}

#[tokio::test]
async fn blobs_groups_and_an_app_share_an_endpoint() {
    let (ann, bob) = (app().await, app().await);
    let group = ann.replicator.groups().create_group("friends").await;
    let group = group.expect("a group");
    let repo = group.create_repo("ann").await.expect("a repo");
    repo.write("note", "from ann").await.expect("room");
    let at = ann.replicator.addresses();
    let invite = group
        .invite(InviteKind::Write, at)
        .await
        .expect("an invite");
    let invite: Invite = invite.to_string().parse().expect("an invite");
    let picture = ann.share(&[7; 300_000]).await;
    // Peers know one key.
    let key = ann.endpoint.id();
    assert_eq!(picture.addr().id, key);
    assert_eq!(ann.network.key().0, *key.as_bytes());

    let addr = ann.endpoint.addr();
    let shouting = bob.endpoint.connect(addr.clone(), SHOUT).await;
    let shouting = shouting.expect("it is there");
    let joined = bob.replicator.groups().join(&invite).await;
    let joined = joined.expect("a group");
    let standing = timeout(SOON, joined.wait_for_standing()).await;
    standing.expect("in time").expect("it is let in");
    let (fetched, note, heard) = timeout(SOON, async {
        tokio::join!(
            bob.fetch(&picture),
            bob.read(&joined, "ann"),
            bob.hear(&shouting)
        )
    })
    .await
    .expect("all work");
    assert!(fetched.expect("it is open") == [7; 300_000][..]);
    assert_eq!(note, "from ann");
    assert_eq!(heard, b"HELLO");
    // The other way, over the endpoint that fetched.
    let repo = joined.create_repo("bob").await.expect("a repo");
    repo.write("note", "from bob").await.expect("room");
    let gift = bob.share(b"a gift").await;
    let told = bob
        .replicator
        .wait_synced(joined.id(), Synced::Everywhere, SOON);
    let (gift, told) = tokio::join!(ann.fetch(&gift), told);
    assert_eq!(gift.expect("it is open"), "a gift");
    told.expect("ann hears of it");
    assert_eq!(ann.read(&group, "bob").await, "from bob");

    // Groups end, and all else goes on: over the connection that was there, and over new ones.
    ann.replicator.shutdown().await;
    let error = Network::accept(&*ann.network).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(bob.hear(&shouting).await, b"HELLO");
    let again = bob.endpoint.connect(addr, SHOUT).await;
    assert_eq!(bob.hear(&again.expect("it is there")).await, b"HELLO");
    let more = ann.share(b"more").await;
    assert_eq!(bob.fetch(&more).await.expect("it is open"), "more");

    // The end of the router is the end of what is left.
    for app in [&ann, &bob] {
        app.router.shutdown().await.expect("no protocol panics");
        app.replicator.shutdown().await;
        assert!(app.endpoint.is_closed());
        app.store.close().await.expect("it was open");
    }
}
