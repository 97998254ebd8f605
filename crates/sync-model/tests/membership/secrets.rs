//! Boxes and links: who opens what.

use larder_store_api::Kind;
use larder_store_engine::Hash;
use larder_sync_model::membership::{
    BOX_LEN, Body, BoxKey, BoxSecret, Cap, Epoch, EpochSecret, OpId, Recipients, Rights, box_at,
    open_link, open_link_locate,
};

use crate::support::Group;

fn box_secret(number: u8) -> BoxSecret {
    BoxSecret::from_seed([number; 32])
}

/// A group of Ann, who reads, and a replica; with their box secrets.
fn group() -> (Group, larder_store_api::PublicKey) {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let mut keys = ann.keys();
    keys.box_key = box_secret(1).public();
    group.say(&ann, Body::Keys(keys));
    let nas = group.device();
    group.say(&ann, Body::Cap(Cap::device(nas.key, Rights::REPLICA, 0)));
    let mut keys = nas.keys();
    keys.box_key = box_secret(2).public();
    group.say(&nas, Body::Keys(keys));
    (group, nas.key)
}

#[test]
fn each_recipient_opens_its_own_box() {
    let (group, nas) = group();
    let (id, ann) = (group.log.group(), group.ann.key);
    let recipients = Recipients::of(&group.state(), 0);
    let secret = EpochSecret::generate().unwrap();
    let list = secret.seal_list(id, &recipients).unwrap();
    assert_eq!(list.len(), 1 + 2 * BOX_LEN);
    let epoch = secret.statement(&recipients, Hash::of(&list), Vec::new());
    let sealed = |key| box_at(&list, recipients.position(key).unwrap()).unwrap();
    let opened = box_secret(1).open(id, ann, &epoch, sealed(ann)).unwrap();
    assert_eq!(opened.expose(), secret.expose());
    let locate = box_secret(2)
        .open_locate(id, nas, &epoch, sealed(nas), 9)
        .unwrap();
    assert_eq!(locate, secret.locate(9));

    let kind = |result: larder_store_api::Result<EpochSecret>| result.unwrap_err().kind();
    // The box of another, with another key, of another group, and of another epoch.
    assert_eq!(
        kind(box_secret(1).open(id, ann, &epoch, sealed(nas))),
        Kind::Invalid
    );
    assert_eq!(
        kind(box_secret(2).open(id, nas, &epoch, sealed(nas))),
        Kind::Invalid
    );
    assert_eq!(
        kind(box_secret(1).open(OpId([1; 32]), ann, &epoch, sealed(ann))),
        Kind::Invalid
    );
    let other = Epoch {
        secret: [1; 32],
        ..epoch.clone()
    };
    assert_eq!(
        kind(box_secret(1).open(id, ann, &other, sealed(ann))),
        Kind::Invalid
    );
    assert!(
        box_at(&list, 2).is_err() && box_at(&list, usize::MAX).is_err() && box_at(&[], 0).is_err()
    );
    assert!(secret.is_of(&epoch) && !EpochSecret::from_bytes([0; 32]).is_of(&epoch));
}

#[test]
fn a_bad_box_key_keeps_nobody_else_out() {
    let (mut group, nas) = group();
    let bad = group.device();
    group.say(
        &group.ann.clone(),
        Body::Cap(Cap::device(bad.key, Rights::READ, 0)),
    );
    let mut keys = bad.keys();
    // A point of small order: everybody would share the same secret with it.
    keys.box_key = BoxKey([0; 32]);
    group.say(&bad, Body::Keys(keys));
    let recipients = Recipients::of(&group.state(), 0);
    let secret = EpochSecret::generate().unwrap();
    let list = secret.seal_list(group.log.group(), &recipients).unwrap();
    assert_eq!(list.len(), 1 + 3 * BOX_LEN);
    assert_eq!(
        box_at(&list, recipients.position(bad.key).unwrap()).unwrap(),
        &[0; BOX_LEN]
    );
    let epoch = secret.statement(&recipients, Hash::of(&list), Vec::new());
    let sealed = box_at(&list, recipients.position(nas).unwrap()).unwrap();
    let locate = box_secret(2).open_locate(group.log.group(), nas, &epoch, sealed, 0);
    assert!(locate.is_ok());
}

#[test]
fn a_later_epoch_opens_those_before() {
    let (old, new) = (
        EpochSecret::generate().unwrap(),
        EpochSecret::generate().unwrap(),
    );
    let link = new.link(OpId([4; 32]), &old).unwrap();
    assert_eq!(open_link(&new, &link).unwrap().expose(), old.expose());
    let locate = open_link_locate(&new.locate(7), &link, 3).unwrap();
    assert_eq!(locate, old.locate(3));
    assert!(open_link(&old, &link).is_err());
    let mut moved = link.clone();
    moved.epoch = OpId([5; 32]);
    assert!(
        open_link(&new, &moved).is_err() && open_link_locate(&new.locate(7), &moved, 3).is_err()
    );
    // Neither key tells the other.
    assert_ne!(new.read(0).expose(), new.locate(0).expose());
}

#[test]
fn nothing_secret_is_printed() {
    let text = format!("{:?} {:?}", EpochSecret::from_bytes([7; 32]), box_secret(7));
    assert_eq!(text, "EpochSecret(…) BoxSecret(…)");
}
