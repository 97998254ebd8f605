//! Joining in unusual ways: confirmed first, by the root, killed meanwhile; and those who go with others.

use std::time::Duration;

use larder_store_api::Kind;
use larder_sync::{
    groups::{InviteOptions, Removal, Standing},
    invite::InviteKind::{Admin, Write},
    membership::Rights,
    replicate::Synced,
};
use larder_sync_sim::SimNetwork;

use crate::{
    link,
    members::{admin, invited, pause, write},
    world::{Device, let_in, options, world},
};

#[tokio::test(start_paused = true)]
async fn an_admin_is_confirmed_and_then_removes_others() {
    let net = SimNetwork::new(209);
    net.set_default_link(link());
    let devices = world(&net, &[Write], &options()).await;
    let (ann, bob) = (&devices[0], &devices[1]);
    let (_carol, group) = invited(&net, ann, &[ann], 8, InviteOptions::new(Admin)).await;
    pause(20).await;
    assert_eq!(group.standing(), Standing::Waiting);
    assert!(!group.can_read());
    let waiting: Vec<_> = ann
        .group()
        .invites()
        .into_iter()
        .flat_map(|invite| invite.waiting)
        .collect();
    assert_eq!(waiting, [group.device()]);
    ann.group()
        .allow(waiting[0], Rights::ADMIN)
        .await
        .expect("it is allowed");
    assert_eq!(let_in(&group).await, Standing::Member);
    assert_eq!(group.rights(), Rights::ADMIN);
    // Nobody removes those who are nearer to the creator.
    let refused = group.remove(ann.group().device(), Removal::new()).await;
    assert_eq!(refused.expect_err("she is nearer").kind(), Kind::Denied);
    group
        .remove(bob.group().device(), Removal::new())
        .await
        .expect("a removal");
    pause(20).await;
    assert_eq!(bob.group().standing(), Standing::Out);
    // Less may be given too.
    ann.group()
        .allow(group.device(), Rights::READ)
        .await
        .expect("it is allowed");
    pause(20).await;
    assert_eq!(group.rights(), Rights::READ);
    let refused = group.create_repo("carol").await;
    assert_eq!(refused.expect_err("she reads").kind(), Kind::Denied);
}

#[tokio::test(start_paused = true)]
async fn who_lost_all_devices_comes_back_by_the_root() {
    let net = SimNetwork::new(210);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write], &options()).await;
    write(&devices[0], "before", "1").await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let at = devices[1].replicator().addresses();
    let way = devices[0].group().recovery(at).await.expect("secrets");
    let way = way
        .expect("it is here")
        .to_string()
        .parse()
        .expect("a text");
    devices[0].group().forget_recovery().await.expect("secrets");
    assert!(
        devices[0]
            .group()
            .recovery(Vec::new())
            .await
            .expect("secrets")
            .is_none()
    );
    let lost = devices[0].group().device();
    devices[0].crash(&net);
    let mut new = Device::new(9).await;
    let groups = new.start(&net, options()).await;
    let group = groups.join(&way).await.expect("it joins");
    assert_eq!(let_in(&group).await, Standing::Member);
    assert_eq!(group.rights(), Rights::ADMIN);
    new.synced(Synced::Here).await;
    assert_eq!(new.files().await.len(), 1);
    group
        .remove(lost, Removal::new())
        .await
        .expect("the lost device is out");
    let repo = group.create_repo("ann again").await.expect("a repo");
    repo.write("after", "2").await.expect("a write");
    pause(20).await;
    assert_eq!(devices[1].files().await.len(), 2);
    let people = devices[1].group().people().await.expect("people");
    let ann = people.iter().find(|person| person.devices.len() == 2);
    assert!(!ann.expect("ann").is_out);
}

#[tokio::test(start_paused = true)]
async fn who_came_by_somebody_goes_too_if_that_is_asked_for() {
    let net = SimNetwork::new(212);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let ann = &devices[0];
    let (bob, group) = invited(&net, ann, &[ann], 8, admin()).await;
    let_in(&group).await;
    let (carol, hers) = invited(&net, &bob, &[&bob, ann], 9, InviteOptions::new(Write)).await;
    let_in(&hers).await;
    for (device, name) in [(&bob, "bob"), (&carol, "carol")] {
        let repo = device.group().create_repo(name).await.expect("a repo");
        repo.write("file", name.to_owned()).await.expect("a write");
    }
    pause(20).await;
    assert_eq!(ann.files().await.len(), 2);
    let how = Removal::new().with_invited();
    let removed = ann
        .group()
        .remove(group.device(), how)
        .await
        .expect("a removal");
    assert_eq!((removed.devices.len(), removed.frozen.len()), (2, 2));
    pause(20).await;
    for device in [&bob, &carol] {
        assert_eq!(device.group().standing(), Standing::Out);
    }
    assert_eq!(ann.files().await.len(), 2, "their files stay");
}

/// A device that is ended at any moment of joining is let in after that.
#[tokio::test(start_paused = true)]
async fn who_is_killed_while_joining_joins_all_the_same() {
    for millis in (0..400).step_by(20) {
        let net = SimNetwork::new(211);
        net.set_default_link(link());
        let mut devices = world(&net, &[], &options()).await;
        write(&devices[0], "file", "1").await;
        let ann = &devices[0];
        let (mut bob, group) = invited(&net, ann, &[ann], 9, InviteOptions::new(Write)).await;
        group.create_repo("bob").await.expect("a repo");
        tokio::time::sleep(Duration::from_millis(millis)).await;
        bob.crash(&net);
        drop(group);
        if millis % 40 == 0 {
            devices[0].crash(&net);
            devices[0].start(&net, options()).await;
        }
        bob.start(&net, options()).await;
        assert_eq!(let_in(&bob.group()).await, Standing::Member, "{millis} ms");
        bob.synced(Synced::Here).await;
        write(&bob, "of bob", "2").await;
        pause(20).await;
        assert_eq!(devices[0].files().await.len(), 2, "{millis} ms");
        let claims = devices[0].group().log();
        let claims = claims.iter().filter(|entry| entry.what == "claim");
        assert_eq!(claims.count(), 1, "{millis} ms");
    }
}
