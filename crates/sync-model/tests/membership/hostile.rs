//! Members who sign what they must not: it is set aside or bounded, and nobody else is hurt.

use larder_store_api::{Kind, SecretKey};
use larder_store_engine::public_key;
use larder_sync_model::membership::{
    Added, Body, BoxKey, Boxes, Cap, Content, Log, MAX_OWN_OPS, MAX_WAITING, Op, OpId, Reason,
    Recipients, Refused, Remove, Rights,
};

use crate::support::{Device, Group, removal};

/// Signs without a look at what is allowed.
fn forge(group: &mut Group, by: &Device, proof: OpId, seq: u32, body: Body) -> OpId {
    let op = content(group, by, proof, seq, body);
    let op = Op::sign(&by.secret, op).unwrap();
    let id = op.id();
    assert!(matches!(group.log.add(op), Added::New(_)));
    id
}

fn content(group: &Group, by: &Device, proof: OpId, seq: u32, body: Body) -> Content {
    Content {
        group: group.log.group(),
        author: by.key,
        proof,
        seq,
        time: group.now,
        after: group.log.heads().iter().copied().collect(),
        body,
    }
}

/// The operation from which a device has its rights.
fn proof(group: &Group, device: &Device) -> OpId {
    let member = &group.state().members[&device.key];
    *member.held.keys().next().unwrap()
}

#[test]
fn nobody_gives_what_they_lack() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::INVITE);
    let cy = group.join(&ann, Rights::WRITE);
    let dan = group.device();
    let cap = |rights, depth| Body::Cap(Cap::device(dan.key, rights, depth));
    for (by, body, why) in [
        (&bob, cap(Rights::WRITE, 0), Reason::More),
        (&bob, cap(Rights::READ, 6), Reason::More),
        (&cy, cap(Rights::READ, 0), Reason::Right),
        (&cy, removal(&[&bob]), Reason::Targets),
    ] {
        let id = group.say(by, body);
        assert_eq!(group.log.set_aside(id), Some(why));
    }
    assert!(!group.has(&dan) && group.has(&bob));
}

#[test]
fn a_proof_of_another_gives_nothing() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::READ);
    let of_ann = proof(&group, &ann);
    let id = forge(&mut group, &bob, of_ann, 1, removal(&[&ann]));
    assert_eq!(group.log.set_aside(id), Some(Reason::Proof));
    let nothing = forge(&mut group, &bob, OpId([7; 32]), 1, removal(&[&ann]));
    assert_eq!(group.log.set_aside(nothing), Some(Reason::Number));
    assert!(group.has(&ann));
}

#[test]
fn a_number_that_is_not_the_next_counts_for_nothing() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::READ);
    let of_bob = proof(&group, &bob);
    for seq in [u32::MAX, 7, 0] {
        let id = forge(&mut group, &bob, of_bob, seq, removal(&[&bob]));
        assert_eq!(group.log.set_aside(id), Some(Reason::Number));
    }
    assert!(group.has(&bob));
    // His next word still counts.
    group.remove(&bob, &[&bob]);
    assert!(!group.has(&bob));
}

#[test]
fn nobody_names_anothers_device_or_key_as_theirs_to_remove_it() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::INVITE);
    let cy = group.join(&ann, Rights::READ);
    let own = Cap {
        own: true,
        ..Cap::device(cy.key, Rights::READ, 0)
    };
    let id = group.say(&bob, Body::Cap(own));
    assert_eq!(group.log.set_aside(id), Some(Reason::Right));
    let invite = Cap {
        invite: Some(BoxKey([3; 32])),
        uses: 1,
        ..Cap::device(cy.key, Rights::READ, 0)
    };
    let id = group.say(&bob, Body::Cap(invite));
    assert_eq!(group.log.set_aside(id), None);
    let id = group.remove(&bob, &[&cy]);
    assert_eq!(group.log.set_aside(id), Some(Reason::Targets));
    assert!(group.has(&cy));
}

#[test]
fn who_waits_is_not_shut_out_by_members_without_the_right() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::READ);
    let (link, _) = group.invite(&ann, Rights::READ, 1);
    let cy = group.device();
    let claim = group.claim(&link, &cy);
    let id = group.remove(&bob, &[&cy]);
    assert_eq!(group.log.set_aside(id), Some(Reason::Targets));
    group.admit(&ann, claim, &cy);
    assert!(group.has(&cy));
}

#[test]
fn who_was_removed_says_nothing_more() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let of_bob = proof(&group, &bob);
    group.remove(&ann, &[&bob]);
    let error = group.log.sign(&bob.secret, removal(&[&ann]), group.now);
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    let cap = Cap::device(bob.key, Rights::READ, 0);
    let id = forge(&mut group, &bob, of_bob, 1, Body::Cap(cap));
    assert_eq!(group.log.set_aside(id), Some(Reason::Proof));
}

#[test]
fn signatures_are_those_of_their_keys() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let op = group.sign(&ann, removal(&[&ann]));
    let mut bytes = op.encode();
    assert_eq!(Op::decode(&bytes).unwrap(), op);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(Op::decode(&bytes).unwrap_err().kind(), Kind::Invalid);
    // A claim is the invite's word for one device in one group.
    let (link, _) = group.invite(&ann, Rights::READ, 2);
    let (bob, cy) = (group.device(), group.device());
    let claim = group
        .log
        .sign_claim(&bob.secret, &link, bob.keys(), 5)
        .unwrap();
    let mut stolen = claim.content().clone();
    stolen.author = cy.key;
    let error = Op::sign(&cy.secret, stolen).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn words_of_other_groups_are_not_taken() {
    let (mut one, mut two) = (Group::new(), Group::new());
    let (ann, root) = (one.ann.clone(), one.root.clone());
    let other = Log::new(Op::genesis(&root.secret, [8; 32], 0).unwrap()).unwrap();
    let id = two.sign(&ann, removal(&[&ann]));
    two.log = other;
    assert_eq!(two.log.add(id), Added::Refused(Refused::OtherGroup));
    let genesis = two.log.ops().next().unwrap().clone();
    assert_eq!(one.log.add(genesis), Added::Refused(Refused::OtherGroup));
    let word = one.sign(&ann, removal(&[&ann]));
    assert_eq!(Log::new(word).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_member_says_only_so_much() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::READ);
    let keys = |number: u32| {
        let mut keys = bob.keys();
        keys.box_key.0[..4].copy_from_slice(&number.to_be_bytes());
        Body::Keys(keys)
    };
    let start = group.log.len();
    for number in 1..MAX_OWN_OPS {
        group.say(&bob, keys(number));
    }
    let over = group.sign(&bob, keys(0));
    assert_eq!(group.log.add(over), Added::Refused(Refused::Quota));
    // One number for many words makes no more of them.
    let of_bob = proof(&group, &bob);
    let fork = content(&group, &bob, of_bob, 1, keys(1 << 20));
    let mut fork = Op::sign(&bob.secret, fork).unwrap();
    assert_eq!(group.log.add(fork.clone()), Added::Refused(Refused::Quota));
    assert_eq!(group.log.len() - start, MAX_OWN_OPS as usize - 1);
    // But what another member has taken is taken after it, or the two would never agree.
    let mut words = content(&group, &bob, of_bob, 1, keys(1 << 21));
    words.after = vec![of_bob];
    fork = Op::sign(&bob.secret, words).unwrap();
    assert_eq!(group.log.add(fork.clone()), Added::Refused(Refused::Quota));
    let mut other = Group::new();
    for op in group.log.ops().take(start) {
        other.log.add(op.clone());
    }
    assert!(matches!(other.log.add(fork.clone()), Added::New(_)));
    other.now = group.now;
    let after = other.sign(&ann, removal(&[&bob]));
    assert_eq!(group.log.add(after), Added::Waits);
    assert!(matches!(group.log.add(fork), Added::New(both) if both.len() == 2));
    assert!(!group.has(&bob));
    assert_eq!(group.log.forks().len(), 1);
}

#[test]
fn what_waits_for_nothing_is_forgotten() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    for number in 0..=MAX_WAITING {
        let mut op = content(&group, &ann, proof(&group, &ann), 2, removal(&[&ann]));
        op.after = vec![OpId([7; 32])];
        op.time = number as i64;
        let op = Op::sign(&ann.secret, op).unwrap();
        assert_eq!(group.log.add(op), Added::Waits);
    }
    assert_eq!(group.log.missing().len(), 1);
    let bob = group.join(&ann, Rights::READ);
    assert!(group.has(&bob));
}

#[test]
fn a_long_chain_of_own_devices_ends() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let mut last = group.join(&ann, Rights::READ);
    let mut set_aside = None;
    for number in 0..200 {
        let (link, mut cap) = crate::support::invite(700 + number, Rights::READ, 0, 1);
        cap.own = true;
        let cap = group.say(&last, Body::Cap(cap));
        set_aside = group.log.set_aside(cap);
        if set_aside.is_some() {
            break;
        }
        let next = group.device();
        let claim = group.claim(&link, &next);
        group.admit(&last, claim, &next);
        if !group.has(&next) {
            set_aside = group.log.set_aside(claim);
            break;
        }
        last = next;
    }
    assert_eq!(set_aside, Some(Reason::Chain));
}

#[test]
fn lists_have_limits() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let sign = |group: &mut Group, body| {
        let of_ann = proof(group, &ann);
        Op::sign(&ann.secret, content(group, &ann, of_ann, 9, body)).map_err(|error| error.kind())
    };
    let too_many = Body::Remove(Remove {
        targets: vec![ann.key; 257],
        ..Remove::default()
    });
    assert_eq!(sign(&mut group, too_many), Err(Kind::Invalid));
    let nobody = Body::Remove(Remove::default());
    assert_eq!(sign(&mut group, nobody), Err(Kind::Invalid));
    let boxes = Body::Boxes(Boxes {
        recipient: ann.key,
        claim: OpId::NONE,
        boxes: vec![(OpId::NONE, [0; 81]); 300],
    });
    assert_eq!(sign(&mut group, boxes), Err(Kind::TooLarge));
    let long = Cap {
        prefixes: vec!["x".repeat(300)],
        ..Cap::device(ann.key, Rights::READ, 0)
    };
    assert_eq!(sign(&mut group, Body::Cap(long)), Err(Kind::Invalid));
    let never = Cap {
        until: Some(0),
        ..Cap::device(ann.key, Rights::READ, 0)
    };
    assert_eq!(sign(&mut group, Body::Cap(never)), Err(Kind::Invalid));
}

#[test]
fn an_epoch_has_a_bounded_number_of_invites() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    for _ in 0..70 {
        group.invite(&ann, Rights::READ, 1);
    }
    let recipients = Recipients::of(&group.state(), group.now);
    assert_eq!(recipients.iter().len(), 64 + 1);
    let epoch = group.epoch(&ann);
    assert_eq!(group.log.usable(group.now), [epoch]);
}

#[test]
fn words_of_a_clock_that_is_ahead_wait() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    group.now = i64::MAX - 1;
    let op = group.sign(&ann, removal(&[&ann]));
    assert!(op.is_early(1000) && !op.is_early(i64::MAX));
    let key: SecretKey = crate::support::secret(1, 1);
    assert_eq!(public_key(&key), ann.key);
}
