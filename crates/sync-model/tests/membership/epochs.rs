//! Which epochs may be sealed under.

use larder_sync_model::membership::{Body, Cap, Reason, Recipients, Remove, Rights};

use crate::support::{Group, epoch, removal};

#[test]
fn an_epoch_is_stale_once_somebody_was_removed_or_has_ended() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    let cy = group.join(&ann, Rights::WRITE);
    let first = group.epoch(&ann);
    assert_eq!(group.log.usable(group.now), [first]);
    // A member more needs no new epoch.
    let guest = group.device();
    let until = Some(group.now + 100);
    let cap = Cap {
        until,
        ..Cap::device(guest.key, Rights::READ, 0)
    };
    group.say(&ann, Body::Cap(cap));
    group.say(&guest, Body::Keys(guest.keys()));
    assert_eq!(group.log.usable(group.now), [first]);
    let mut other = group.clone();
    group.remove(&ann, &[&bob]);
    assert!(group.log.usable(group.now).is_empty());
    let second = group.epoch(&ann);
    assert_eq!(group.log.usable(group.now), [second]);
    // Two removals beside each other make both epochs stale.
    other.now += 50;
    other.remove(&ann, &[&cy]);
    let third = other.epoch(&ann);
    group.meet(&other);
    assert!(group.log.usable(group.now).is_empty());
    let fourth = group.epoch(&ann);
    assert_eq!(group.log.usable(group.now), [fourth]);
    group.now += 200;
    assert!(group.log.usable(group.now).is_empty());
    let fifth = group.epoch(&ann);
    assert_eq!(group.log.usable(group.now), [fifth]);
    let recipients = group.log.recipients_of(fifth).unwrap();
    assert!(recipients.position(guest.key).is_none());
    assert!(recipients.position(ann.key).is_some());
    let heads = group.log.head_epochs();
    assert_eq!(heads, [fifth], "{second} {third}");
}

#[test]
fn an_epoch_counts_only_if_it_is_for_all_members() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    let nas = group.join(&ann, Rights::REPLICA);
    let mut wrong = group.clone();
    wrong.remove(&ann, &[&bob]);
    let fewer = Recipients::of(&wrong.state(), wrong.now);
    let takeover = group.say(&bob, Body::Epoch(epoch(&fewer, 1, Vec::new())));
    assert_eq!(group.log.set_aside(takeover), None);
    assert!(group.log.usable(group.now).is_empty());
    let recipients = Recipients::of(&group.state(), group.now);
    let of_replica = group.say(&nas, Body::Epoch(epoch(&recipients, 1, Vec::new())));
    assert_eq!(group.log.set_aside(of_replica), Some(Reason::Right));
    let reads: Vec<_> = recipients.iter().filter(|to| !to.reads).collect();
    assert!(reads.len() == 1 && reads[0].key == nas.key);
}

#[test]
fn who_leaves_makes_no_epoch_for_the_others() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    group.epoch(&ann);
    let mut after = group.clone();
    after.remove(&bob, &[&bob]);
    let recipients = Recipients::of(&after.state(), group.now + 1);
    let leave = Remove {
        leave: true,
        targets: vec![bob.key],
        epoch: Some(epoch(&recipients, 7, Vec::new())),
        ..Remove::default()
    };
    group.say(&bob, Body::Remove(leave));
    assert!(!group.has(&bob));
    assert!(group.log.usable(group.now).is_empty());
}

#[test]
fn a_removal_carries_an_epoch_without_its_targets() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    group.epoch(&ann);
    let plain = group.sign(&ann, removal(&[&bob]));
    let recipients = group.log.recipients_after(plain).unwrap();
    assert!(recipients.position(bob.key).is_none());
    let remove = Remove {
        targets: vec![bob.key],
        epoch: Some(epoch(&recipients, 7, group.log.head_epochs())),
        ..Remove::default()
    };
    let id = group.say(&ann, Body::Remove(remove));
    assert_eq!(group.log.usable(group.now), [id]);
}

#[test]
fn an_epoch_is_not_older_than_those_before_it() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    group.now += 1000;
    let first = group.epoch(&ann);
    let later = group.now;
    group.now -= 500;
    // A slow clock: it would be boxed to those whose time the first one saw end.
    let second = group.epoch(&ann);
    assert_eq!(group.log.usable(later), [first]);
    assert_eq!(group.log.set_aside(second), None);
    assert!(group.log.epoch_time(group.now) >= later);
}
