//! Tests that values of the group's record reach everybody.

use std::time::Duration;

use larder_store_api::{Kind, SeqExpect};
use larder_sync::{
    groups::{Event, Groups, RecordPut},
    invite::InviteKind::{Read, Replica, Write},
    replicate::Synced,
};
use larder_sync_sim::SimNetwork;

use crate::{
    link,
    world::{Device, PATIENCE, let_in, options, world},
};

async fn put(device: &Device, slot: u16, value: &str) -> RecordPut {
    let group = device.group();
    let put = group.record_put(slot, value.as_bytes(), SeqExpect::Any);
    put.await.expect("a put")
}

async fn get(device: &Device, slot: u16) -> Option<String> {
    let found = device.group().record_get(slot).await.expect("a value");
    found.map(|found| String::from_utf8(found.value.to_vec()).expect("text"))
}

/// Waits until a device has this value, and has received an event for it.
async fn wait(device: &Device, slot: u16, value: Option<&str>) {
    let mut events = device.groups().events();
    let id = device.group().id();
    let waiting = async {
        while get(device, slot).await.as_deref() != value {
            let changed = |event| {
                let is_ours = |group| group == id;
                matches!(event, Event::Changed { repo: None, group, .. } if is_ours(group))
            };
            while !changed(events.next().await.expect("an event")) {}
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    let is = get(device, slot).await;
    waited.unwrap_or_else(|_| panic!("{} has {is:?} and not {value:?}", device.key));
}

#[tokio::test(start_paused = true)]
async fn a_value_comes_to_all_who_may_read() {
    let net = SimNetwork::new(31);
    net.set_default_link(link());
    const CANARY: &str = "a canary in a value";
    net.search_for(&[CANARY.as_bytes()]).expect("a pattern");
    let devices = world(&net, &[Write, Read, Replica], &options()).await;
    put(&devices[0], 0, CANARY).await;
    put(&devices[1], 63, "from the second").await;
    for device in &devices[..3] {
        wait(device, 0, Some(CANARY)).await;
        wait(device, 63, Some("from the second")).await;
    }
    // Each continues from what the other wrote.
    let group = devices[1].group();
    let seq = group
        .record_get(0)
        .await
        .expect("a value")
        .expect("one")
        .seq;
    let next = group.record_put(0, b"the next", SeqExpect::At(seq)).await;
    let next = next.expect("a put");
    assert_eq!(next, RecordPut::Published { seq: seq + 1 });
    for device in &devices[..3] {
        wait(device, 0, Some("the next")).await;
    }
    put(&devices[0], 0, "").await;
    for device in &devices[..3] {
        wait(device, 0, None).await;
    }
    put(&devices[0], 0, CANARY).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    // A sent value counts as received, but is still in transit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Those who may not write cannot, and the replica cannot read.
    for device in &devices[2..] {
        let refused = device.group().record_put(0, b"mine", SeqExpect::Any).await;
        assert_eq!(refused.expect_err("it is refused").kind(), Kind::Denied);
    }
    let refused = devices[3].group().record_get(0).await;
    assert_eq!(refused.expect_err("it is refused").kind(), Kind::Denied);
    assert!(net.findings().is_empty(), "{:?}", net.findings());

    // A device that joins while only the replica is connected gets them from it.
    let addresses = devices[3].replicator().addresses();
    let invite = devices[0].group().invite(Write, addresses).await;
    let invite = invite.expect("an invite");
    // The replica hears of it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let away: Vec<_> = devices[..3].iter().map(|device| device.key).collect();
    net.partition(&away);
    let mut late = Device::new(9).await;
    let groups: Groups = late.start(&net, options()).await;
    let joined = groups.join(&invite).await.expect("it joins");
    let_in(&joined).await;
    wait(&late, 0, Some(CANARY)).await;
    wait(&late, 63, Some("from the second")).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_values_written_at_once_one_stays_everywhere() {
    let net = SimNetwork::new(32);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write, Read], &options()).await;
    put(&devices[0], 5, "the first").await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    for (n, device) in devices.iter().enumerate() {
        net.partition(&[device.key]);
        if n < 3 {
            put(device, 5, &format!("by {n}")).await;
            put(device, 6 + n as u16, &format!("only {n}")).await;
        }
    }
    net.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let stays = get(&devices[0], 5).await.expect("a value");
    assert!(stays.starts_with("by "), "{stays}");
    for device in &devices {
        assert_eq!(get(device, 5).await.as_ref(), Some(&stays));
        for n in 0..3 {
            let only = format!("only {n}");
            assert_eq!(get(device, 6 + n).await, Some(only));
        }
        assert_eq!(device.group().repos().await.expect("repos").len(), 3);
    }
    // No earlier value can replace one that is written now.
    put(&devices[1], 5, "the last").await;
    for device in &devices {
        wait(device, 5, Some("the last")).await;
    }
}
