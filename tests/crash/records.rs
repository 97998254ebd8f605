//! Tests that kill processes that write records in an offline Veilid node: acknowledged values are
//! there, and still wait to be sent.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use larder::{
    api::{
        Freshness, Put, PutRecord, RecordDescriptor, RecordId, RecordStore, SecretKey, SeqExpect,
        Slot,
    },
    engine::public_key,
    veilid::{VeilidRecords, VeilidStore},
    veilid_node::{Bootstrap, Node, NodeConfig, Protection},
};
use rand::Rng as _;
use tests::{
    child::{self, Child},
    data::{Seed, rng},
};

const RECORDS: u16 = 3;
const SLOTS: Slot = 4;
/// The longest life of a child, in milliseconds.
const LIFE: u64 = 400;

fn owner() -> SecretKey {
    SecretKey::from_bytes([5; 32])
}

async fn open(dir: &Path) -> VeilidRecords {
    let mut config = NodeConfig::new(dir, Protection::InsecureFile);
    config.bootstrap = Bootstrap::Nobody;
    let node = Node::start(config).await.unwrap();
    let known = VeilidStore::open(node.clone(), "").await.unwrap();
    VeilidRecords::new(node, Arc::new(known)).unwrap()
}

/// Returns the records, which differ in their number of slots.
async fn ids(records: &VeilidRecords) -> Vec<RecordId> {
    let mut ids = Vec::new();
    for n in 0..RECORDS {
        let descriptor = RecordDescriptor {
            owner: public_key(&owner()),
            owner_slots: SLOTS + n,
            members: Vec::new(),
        };
        ids.push(records.create(descriptor).await.unwrap());
    }
    ids
}

async fn put_until_killed(dir: &Path, seed: u64) {
    let records = Arc::new(open(dir).await);
    let ids = ids(&records).await;
    child::say("open");
    let writers = (0..).zip(ids).map(|(n, id)| {
        let records = Arc::clone(&records);
        tokio::spawn(async move {
            let mut rng = rng(seed ^ (n << 40));
            loop {
                let slot = rng.random_range(0..SLOTS);
                let value = vec![rng.random(); rng.random_range(0..3000)];
                let byte = value.first().copied().unwrap_or_default();
                let len = value.len();
                let put = PutRecord::Write {
                    value: value.into(),
                    writer: owner(),
                    expect: SeqExpect::Any,
                };
                let Put::Queued { seq } = records.put(id, slot, put).await.unwrap() else {
                    panic!("it is offline");
                };
                child::say(format!("put {n} {slot} {seq} {len} {byte}"));
            }
        })
    });
    drop(futures_util::future::select_all(writers).await);
    panic!("a writer ended");
}

/// An acknowledged value: its number, its length and its fill byte.
type Value = (u64, usize, u8);

fn parse(line: &str) -> Option<((usize, Slot), Value)> {
    let words = line.strip_prefix("put ")?.split(' ');
    let words: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    let value = (words[2], words[3] as usize, words[4] as u8);
    Some(((words[0] as usize, words[1] as Slot), value))
}

#[test]
fn what_was_put_into_records_survives_a_kill() {
    killed("records::what_was_put_into_records_survives_a_kill", 4, 40);
}

mod slow {
    #[test]
    #[ignore = "slow: many rounds"]
    fn what_was_put_into_records_survives_many_kills() {
        const TEST: &str = "records::slow::what_was_put_into_records_survives_many_kills";
        super::killed(TEST, 20, 200);
    }
}

/// Kills the child of `test` in this many rounds, in which at least `least` puts are acknowledged.
fn killed(test: &str, rounds: u64, least: usize) {
    if let Some(job) = child::job() {
        let dir = child::argument("DIR");
        return child::run(put_until_killed(Path::new(&dir), job.parse().unwrap()));
    }
    let seed = Seed::or(17);
    let mut rng = rng(seed.number());
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut last: BTreeMap<(usize, Slot), Value> = BTreeMap::new();
    let mut total = 0;
    for round in 0..rounds {
        let job = (seed.number() ^ (round << 32)).to_string();
        let child = Child::start(test, &job, &[("DIR", &dir)]);
        child.hear("open");
        std::thread::sleep(Duration::from_millis(rng.random_range(0..LIFE)));
        for (place, value) in child.kill().iter().filter_map(|line| parse(line)) {
            last.insert(place, value);
            total += 1;
        }
        child::run(async {
            let records = open(dir).await;
            let ids = ids(&records).await;
            for ((record, slot), (seq, len, byte)) in &last {
                let found = records.get(ids[*record], *slot, Freshness::Local).await;
                let found = found.unwrap().expect("the acknowledged value is there");
                // An unacknowledged put may have followed.
                assert!(found.seq >= *seq, "round {round}: {} of {seq}", found.seq);
                if found.seq == *seq {
                    assert!(found.value == vec![*byte; *len], "round {round}");
                }
            }
            records.node().shutdown().await;
        });
    }
    assert!(total > least, "only {total} puts: too few to show anything");
}
