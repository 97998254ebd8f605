//! The cases for the network. Each case has its own records.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use larder_store_api::{
    Freshness, Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordEvent, RecordId,
    RecordMember, RecordStore, SecretKey, SeqExpect, Signed, Slot,
};
use larder_veilid_node::{Node, veilid_core::CRYPTO_KIND_VLD0};

use super::net::{Net, Peer};

pub type Case = fn(Net) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The time to wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! cases {
    ($list:ident: $($name:ident),* $(,)?) => {
        pub const $list: &[(&str, Case)] = &[$((stringify!($name), |net| Box::pin($name(net)))),*];
    };
}

// Run at the same time: asking for a record that nobody has takes Veilid ten seconds.
cases![TOGETHER:
    what_one_writes_another_reads,
    a_record_that_was_never_written_has_no_values,
    members_write_after_the_owner,
    who_did_not_see_a_value_is_superseded,
    a_watcher_hears_of_writes_elsewhere,
];

// These remove nodes.
cases![ALONE:
    what_was_written_offline_goes_out,
    a_record_is_read_while_its_writer_is_away,
];

struct Writer {
    public: PublicKey,
    secret: [u8; 32],
}

async fn writer(node: &Node) -> Writer {
    let crypto = node.api().crypto().expect("it runs");
    let crypto = crypto
        .get_async(CRYPTO_KIND_VLD0)
        .expect("it has this kind");
    let pair = crypto.generate_keypair().await;
    let key = |bytes: &[u8]| bytes.try_into().expect("32 bytes");
    Writer {
        public: PublicKey(key(pair.ref_value().ref_key())),
        secret: key(pair.ref_bare_secret()),
    }
}

fn owned(owner: &Writer) -> RecordDescriptor {
    RecordDescriptor {
        owner: owner.public,
        owner_slots: 2,
        members: Vec::new(),
    }
}

fn write(value: &str, writer: &Writer, expect: SeqExpect) -> PutRecord {
    PutRecord::Write {
        value: value.to_owned().into(),
        writer: SecretKey::from_bytes(writer.secret),
        expect,
    }
}

/// Makes the record known to each of `peers`.
async fn create(peers: &[&Peer], record: &RecordDescriptor) -> RecordId {
    let mut id = None;
    for peer in peers {
        let created = peer.records.create(record.clone()).await;
        let created = created.expect("a record is created");
        assert_eq!(*id.get_or_insert(created), created, "all agree on its id");
    }
    id.expect("there are peers")
}

async fn put(peer: &Peer, id: RecordId, slot: Slot, put: PutRecord) -> Put {
    let put = peer.records.put(id, slot, put).await;
    put.expect("a put succeeds")
}

async fn get(peer: &Peer, id: RecordId, slot: Slot) -> Option<Signed> {
    let found = peer.records.get(id, slot, Freshness::Network).await;
    found.expect("the network answers")
}

/// Waits until the slot has the value: a published value may be in transit for a moment.
async fn until(peer: &Peer, id: RecordId, slot: Slot, value: &str) -> Signed {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = peer.records.get(id, slot, Freshness::Network).await;
        if let Ok(Some(found)) = &found
            && found.value == value
        {
            return found.clone();
        }
        assert!(Instant::now() < end, "it is still {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn what_one_writes_another_reads(net: Net) {
    let [one, .., other] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&one.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    let written = put(one, id, 0, write("hello", &owner, SeqExpect::Absent)).await;
    assert_eq!(written, Put::Published { seq: 1 });
    let found = get(other, id, 0).await.expect("it was published");
    assert_eq!((&found.value[..], found.seq), (&b"hello"[..], 1));
    assert_eq!(found.writer, owner.public);
    assert_eq!(get(other, id, 1).await, None, "the other slot has no value");
    // It keeps the values that it has read.
    let kept = other.records.get(id, 0, Freshness::Local).await;
    assert_eq!(kept.expect("it is here"), Some(found));
    let written = put(one, id, 0, write("again", &owner, SeqExpect::At(1))).await;
    assert_eq!(written, Put::Published { seq: 2 });
    assert_eq!(until(other, id, 0, "again").await.seq, 2);
    let seqs = other.records.inspect(id, 0..2, Freshness::Network).await;
    assert_eq!(seqs.expect("the network answers")[0].seq, 2);
}

async fn a_record_that_was_never_written_has_no_values(net: Net) {
    let [one, other, ..] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&one.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    for peer in [one, other] {
        assert_eq!(get(peer, id, 0).await, None);
        let seqs = peer.records.inspect(id, 0..2, Freshness::Network).await;
        assert_eq!(seqs.expect("the network answers"), []);
    }
}

async fn members_write_after_the_owner(net: Net) {
    let [.., one, other] = &net.peers[..] else {
        panic!("there are several");
    };
    let (owner, member) = (writer(&one.node).await, writer(&other.node).await);
    let record = RecordDescriptor {
        members: vec![RecordMember {
            key: member.public,
            slots: 1,
        }],
        ..owned(&owner)
    };
    let id = create(&[one, other], &record).await;
    let early = write("early", &member, SeqExpect::Any);
    let early = other.records.put(id, 2, early).await;
    let error = early.expect_err("there is no record yet");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("owner"), "{error}");
    put(one, id, 0, write("owner's", &owner, SeqExpect::Any)).await;
    let written = put(other, id, 2, write("member's", &member, SeqExpect::Any)).await;
    assert_eq!(written, Put::Published { seq: 1 });
    assert_eq!(until(one, id, 2, "member's").await.writer, member.public);
    let stolen = one
        .records
        .put(id, 2, write("stolen", &owner, SeqExpect::Any));
    assert_eq!(
        stolen.await.expect_err("it is refused").kind(),
        Kind::Denied
    );
}

async fn who_did_not_see_a_value_is_superseded(net: Net) {
    let [one, other, ..] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&one.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    put(one, id, 0, write("one", &owner, SeqExpect::Absent)).await;
    let late = put(other, id, 0, write("late", &owner, SeqExpect::Absent)).await;
    let Put::Superseded { current } = late else {
        panic!("it was {late:?}");
    };
    assert_eq!(current.expect("there is one").value, "one");
    put(one, id, 0, write("two", &owner, SeqExpect::At(1))).await;
    let late = put(other, id, 0, write("late", &owner, SeqExpect::At(1))).await;
    assert!(matches!(late, Put::Superseded { .. }), "{late:?}");
    // A write without expectations goes after it.
    let any = put(other, id, 0, write("three", &owner, SeqExpect::Any)).await;
    assert_eq!(any, Put::Published { seq: 3 });
    assert_eq!(until(one, id, 0, "three").await.seq, 3);
}

async fn a_watcher_hears_of_writes_elsewhere(net: Net) {
    let [one, .., other] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&one.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    put(one, id, 0, write("before", &owner, SeqExpect::Any)).await;
    let mut watcher = other.records.watch(id, 0..2).expect("it can watch");
    let next = async |watcher: &mut larder_store_api::Listing<RecordEvent>| {
        let next = tokio::time::timeout(PATIENCE, watcher.next()).await;
        let next = next.expect("the watcher hears something");
        next.expect("a watch does not end").expect("an event")
    };
    // From here on nothing is missed.
    assert_eq!(next(&mut watcher).await, RecordEvent::Resync);
    for slot in [1, 0] {
        put(one, id, slot, write("after", &owner, SeqExpect::Any)).await;
        loop {
            match next(&mut watcher).await {
                RecordEvent::Changed { slots, .. } if slots.contains(&slot) => break,
                RecordEvent::Changed { .. } => {}
                // The watch died, and reports that.
                _ => {
                    until(other, id, slot, "after").await;
                    break;
                }
            }
        }
    }
}

async fn what_was_written_offline_goes_out(net: Net) {
    let [one, .., other] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&other.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    put(other, id, 0, write("online", &owner, SeqExpect::Any)).await;
    until(one, id, 0, "online").await;
    let mut watcher = other.records.watch(id, 0..2).expect("it can watch");
    other.node.detach().await.expect("it leaves");
    let put = put(other, id, 0, write("offline", &owner, SeqExpect::At(1))).await;
    assert_eq!(put, Put::Queued { seq: 2 });
    let read = other.records.get(id, 0, Freshness::Local).await;
    assert_eq!(read.expect("it is here").expect("it was written").seq, 2);
    let read = other.records.get(id, 0, Freshness::Network).await;
    assert_eq!(read.expect_err("it is away").kind(), Kind::Unavailable);
    other.attach().await;
    assert_eq!(until(one, id, 0, "offline").await.seq, 2);
    // Every watcher is told that it may have missed something.
    let resync = async {
        while let Some(event) = watcher.next().await {
            if event.expect("an event") == RecordEvent::Resync {
                return;
            }
        }
        panic!("the watch ended");
    };
    let told = tokio::time::timeout(PATIENCE, resync).await;
    told.expect("the watcher is told to look again");
}

async fn a_record_is_read_while_its_writer_is_away(net: Net) {
    let [one, .., other] = &net.peers[..] else {
        panic!("there are several");
    };
    let owner = writer(&other.node).await;
    let id = create(&[one, other], &owned(&owner)).await;
    put(other, id, 0, write("left", &owner, SeqExpect::Any)).await;
    other.node.detach().await.expect("it leaves");
    let found = until(one, id, 0, "left").await;
    assert_eq!(found.seq, 1);
    other.attach().await;
    until(other, id, 0, "left").await;
}
