//! Single cases of the rules.

use larder_sync_model::membership::{
    Body, BoxKey, Cap, FrozenRoot, Reason, Recipients, Remove, RepoProof, Rights, Succeed,
    sign_repo,
};

use crate::support::{Device, Group, removal, secret};

#[test]
fn who_is_let_in_has_what_the_invite_gives() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    let member = &group.state().members[&bob.key];
    assert_eq!(member.rights(group.now), Rights::WRITE);
    assert_eq!((member.owner, member.invited_by), (bob.key, ann.key));
    assert!(group.state().gone.is_empty() && group.state().waiting.is_empty());
}

#[test]
fn a_claim_that_nobody_answered_waits() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let (link, _) = group.invite(&ann, Rights::READ, 1);
    let bob = group.device();
    let claim = group.claim(&link, &bob);
    assert_eq!(group.state().waiting[&claim], bob.key);
    assert!(!group.has(&bob));
}

#[test]
fn a_replica_alone_lets_somebody_in() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let nas = group.join(&ann, Rights::REPLICA);
    let (link, _) = group.invite(&ann, Rights::WRITE, 1);
    let bob = group.device();
    group.use_invite(&nas, &link, &bob);
    assert!(group.has(&bob));
}

#[test]
fn an_invite_is_used_up_but_both_stay_who_did_not_know() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let (link, cap) = group.invite(&ann, Rights::READ, 1);
    let mut other = group.clone();
    let (bob, cy, dan) = (group.device(), Device::new(501), Device::new(502));
    group.use_invite(&ann, &link, &bob);
    let claim = group.claim(&link, &dan);
    let refused = group.admit(&ann, claim, &dan);
    assert_eq!(group.log.set_aside(refused), Some(Reason::Invite));
    other.now += 50;
    let nas = other.root.clone();
    other.use_invite(&nas, &link, &cy);
    group.meet(&other);
    assert!(group.has(&bob) && group.has(&cy) && !group.has(&dan));
    let invite = &group.state().invites[&cap];
    assert!(invite.is_overused() && !invite.is_open(0));
}

#[test]
fn an_invite_that_wants_confirmation_gives_nothing_by_itself() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let (link, mut cap) = crate::support::invite(77, Rights::ADMIN, 3, 1);
    cap.confirm = true;
    group.say(&ann, Body::Cap(cap));
    let bob = group.device();
    let claim = group.claim(&link, &bob);
    let refused = group.admit(&ann, claim, &bob);
    assert_eq!(group.log.set_aside(refused), Some(Reason::Confirm));
    assert!(!group.has(&bob));
    // No epoch is boxed to who has the link.
    let recipients = Recipients::of(&group.state(), group.now);
    assert_eq!(recipients.iter().len(), 1);
    let confirmed = Cap::device(bob.key, Rights::ADMIN, 3);
    group.say(&ann, Body::Cap(confirmed));
    let member = &group.state().members[&bob.key];
    assert_eq!(member.box_key, Some(BoxKey(bob.key.0)));
}

#[test]
fn a_removal_wins_over_what_happens_beside_it() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let (before, mut other) = (group.join(&bob, Rights::READ), group.clone());
    group.remove(&ann, &[&bob]);
    // Bob has not heard of it: what he says meanwhile is void, and what he said before stays.
    other.now += 50;
    let meanwhile = other.join(&bob, Rights::READ);
    let readmitted = other.say(&ann, Body::Cap(Cap::device(bob.key, Rights::READ, 0)));
    group.meet(&other);
    assert!(!group.has(&bob) && !group.has(&meanwhile) && group.has(&before));
    let state = group.state();
    assert!(state.gone.contains_key(&bob.key) && state.gone.contains_key(&meanwhile.key));
    assert!(!state.members.contains_key(&bob.key), "{readmitted}");
    // In knowledge of the removal he can be let in again.
    group.say(&ann, Body::Cap(Cap::device(bob.key, Rights::READ, 0)));
    assert_eq!(group.state().members[&bob.key].rights(0), Rights::READ);
}

#[test]
fn with_invited_takes_all_that_came_by_somebody() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let cy = group.join(&bob, Rights::ADMIN);
    let dan = group.join(&cy, Rights::READ);
    let Body::Remove(mut remove) = removal(&[&bob]) else {
        unreachable!()
    };
    remove.with_invited = true;
    group.say(&ann, Body::Remove(remove));
    assert!(!group.has(&bob) && !group.has(&cy) && !group.has(&dan));
}

#[test]
fn only_who_outranks_somebody_removes_them() {
    let mut group = Group::new();
    let (ann, root) = (group.ann.clone(), group.root.clone());
    let (bob, cy) = (
        group.join(&ann, Rights::ADMIN),
        group.join(&ann, Rights::ADMIN),
    );
    let dan = group.join(&ann, Rights::WRITE);
    let eve = group.join(&cy, Rights::ADMIN);
    for (by, target) in [
        (&bob, &cy),
        (&cy, &ann),
        (&eve, &bob),
        (&bob, &root),
        (&dan, &eve),
    ] {
        let id = group.remove(by, &[target]);
        assert_eq!(group.log.set_aside(id), Some(Reason::Targets), "{by:?}");
    }
    // A member without the right to remove is below all who have it.
    group.remove(&eve, &[&dan]);
    group.remove(&bob, &[&eve]);
    assert!(!group.has(&dan) && !group.has(&eve));
    group.remove(&root, &[&ann]);
    assert!(!group.has(&ann) && group.has(&bob));
}

#[test]
fn a_device_of_ones_own_needs_no_right_and_is_taken_without_one() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let laptop = group.join(&ann, Rights::WRITE);
    let (link, mut cap) = crate::support::invite(88, Rights::WRITE, 0, 1);
    cap.own = true;
    group.say(&laptop, Body::Cap(cap));
    let phone = group.device();
    group.use_invite(&laptop, &link, &phone);
    let member = group.state().members[&phone.key].clone();
    assert_eq!((member.owner, member.level), (laptop.key, 2));
    group.remove(&laptop, &[&phone]);
    assert!(!group.has(&phone) && group.has(&laptop));
}

#[test]
fn devices_of_one_owner_can_remove_each_other() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let laptop = group.join(&ann, Rights::READ);
    let (link, mut cap) = crate::support::invite(88, Rights::READ, 0, 1);
    cap.own = true;
    group.say(&laptop, Body::Cap(cap));
    let phone = group.device();
    group.use_invite(&laptop, &link, &phone);
    let mut other = group.clone();
    group.remove(&laptop, &[&phone]);
    other.now += 10;
    other.remove(&phone, &[&laptop]);
    group.meet(&other);
    assert!(!group.has(&phone) && !group.has(&laptop));
}

#[test]
fn a_hard_removal_undoes_what_an_admin_did() {
    let mut group = Group::new();
    let (ann, root) = (group.ann.clone(), group.root.clone());
    let bob = group.join(&ann, Rights::ADMIN);
    let (cy, kept) = (group.join(&ann, Rights::WRITE), group.clone());
    let last = *kept.log.heads().first().unwrap();
    group.remove(&bob, &[&cy]);
    let mut plain = group.clone();
    plain.remove(&ann, &[&bob]);
    assert!(!plain.has(&cy) && !plain.has(&bob));
    let hard = Remove {
        hard: true,
        kept: vec![last],
        targets: vec![bob.key],
        ..Remove::default()
    };
    group.say(&root, Body::Remove(hard.clone()));
    assert!(group.has(&cy) && !group.has(&bob));
    // Of others than the root and its devices it is a plain one.
    let mut group = plain;
    let (dan, eve) = (
        group.join(&ann, Rights::ADMIN),
        group.join(&ann, Rights::WRITE),
    );
    let fay = group.join(&dan, Rights::ADMIN);
    group.remove(&fay, &[&eve]);
    let hard = Remove {
        targets: vec![fay.key],
        ..hard
    };
    group.say(&dan, Body::Remove(hard));
    assert!(!group.has(&fay) && !group.has(&eve));
}

#[test]
fn an_open_invite_ends_with_whoever_knows_it() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let (made, made_cap) = group.invite(&bob, Rights::READ, 5);
    let (used, used_cap) = group.invite(&ann, Rights::READ, 5);
    let (other, other_cap) = group.invite(&ann, Rights::READ, 5);
    let (cy, dan) = (group.device(), group.device());
    group.use_invite(&ann, &used, &cy);
    group.use_invite(&ann, &used, &dan);
    let mut behind = group.clone();
    group.remove(&ann, &[&bob, &cy]);
    let open = |group: &Group, cap| group.state().invites[&cap].is_open(group.now);
    assert!(!open(&group, made_cap) && !open(&group, used_cap) && open(&group, other_cap));
    // A device that came before stays; one that comes beside the removal or after it does not.
    let (eve, fay, gil) = (Device::new(601), Device::new(602), Device::new(603));
    behind.now += 50;
    behind.use_invite(&ann, &made, &eve);
    group.meet(&behind);
    group.use_invite(&ann, &used, &fay);
    group.use_invite(&ann, &other, &gil);
    assert!(group.has(&dan) && group.has(&gil) && !group.has(&eve) && !group.has(&fay));
}

#[test]
fn a_revoked_invite_lets_nobody_in() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::INVITE);
    let (link, cap) = group.invite(&bob, Rights::READ, 5);
    let invite = group.state().invites[&cap].key;
    let revoke = Remove {
        targets: vec![invite],
        ..Remove::default()
    };
    // Whoever made it may revoke it.
    let id = group.say(&bob, Body::Remove(revoke));
    assert_eq!(group.log.set_aside(id), None);
    let cy = group.device();
    let claim = group.claim_any(&link, &cy);
    assert_eq!(claim, Some(Reason::Proof));
}

#[test]
fn rights_and_invites_end_at_their_time() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.device();
    let until = group.now + 100;
    let cap = Cap {
        until: Some(until),
        ..Cap::device(bob.key, Rights::INVITE, 2)
    };
    group.say(&ann, Body::Cap(cap));
    group.say(&bob, Body::Keys(bob.keys()));
    // Rights that a guest hands on end with the guest.
    let cy = group.join(&bob, Rights::READ);
    let (link, _) = group.invite(&bob, Rights::READ, 1);
    let member = |device: &Device| group.state().members[&device.key].clone();
    assert_eq!(member(&cy).rights(until), Rights::READ);
    assert_eq!(member(&cy).rights(until + 1), Rights::NONE);
    assert_eq!(member(&bob).rights(until + 1), Rights::NONE);
    group.now += 200;
    let (bob_says, _) = (group.log.sign(&bob.secret, removal(&[&cy]), group.now), ());
    assert!(bob_says.is_err());
    let dan = group.device();
    let claim = group.claim(&link, &dan);
    group.admit(&ann, claim, &dan);
    assert!(!group.has(&dan) || group.state().members[&dan.key].rights(group.now) == Rights::NONE);
}

#[test]
fn the_repo_of_who_was_removed_is_frozen() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::WRITE);
    let cy = group.join(&ann, Rights::WRITE);
    let mut repos = Vec::new();
    for (number, device) in [(1, &bob), (2, &cy)] {
        let secret = secret(3, number);
        let key = larder_store_engine::public_key(&secret);
        let signature = sign_repo(&secret, group.log.group(), device.key);
        let repo = Some(RepoProof { key, signature });
        let keys = larder_sync_model::membership::DeviceKeys {
            repo,
            ..device.keys()
        };
        group.say(device, Body::Keys(keys));
        repos.push(key);
    }
    assert_eq!(group.state().members[&bob.key].repo, Some(repos[0]));
    let root = |repo, seq| FrozenRoot {
        repo,
        seq,
        signed: vec![1, 2, 3],
    };
    let mut other = group.clone();
    let remove = |seq| {
        Body::Remove(Remove {
            targets: vec![bob.key],
            // Of a repo that is not a target's nothing counts.
            frozen: vec![root(repos[0], seq), root(repos[1], 1)],
            ..Remove::default()
        })
    };
    group.say(&ann, remove(4));
    other.now += 50;
    other.say(&ann, remove(6));
    group.meet(&other);
    let frozen = group.state().frozen;
    let roots: Vec<_> = frozen[&repos[0]].iter().map(|root| root.seq).collect();
    assert_eq!((roots, frozen.len()), (vec![4, 6], 1));
    // Nobody said where the repo of who leaves ends: nothing more is taken from it.
    group.remove(&cy, &[&cy]);
    assert!(group.state().frozen[&repos[1]].is_empty());
}

#[test]
fn a_new_repo_goes_on_from_that_of_a_stolen_device() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let (laptop, eve) = (
        group.join(&ann, Rights::WRITE),
        group.join(&ann, Rights::WRITE),
    );
    let key = |number| larder_store_engine::public_key(&secret(3, number));
    let proof = |group: &Group, number, device: &Device| RepoProof {
        key: key(number),
        signature: sign_repo(&secret(3, number), group.log.group(), device.key),
    };
    let keys = larder_sync_model::membership::DeviceKeys {
        repo: Some(proof(&group, 1, &laptop)),
        ..laptop.keys()
    };
    group.say(&laptop, Body::Keys(keys));
    let succeed = |new| {
        Body::Succeed(Succeed {
            old: key(1),
            new,
            boxes: Vec::new(),
        })
    };
    // Nobody goes on from the repo of another.
    let body = succeed(proof(&group, 2, &eve));
    group.say(&eve, body);
    assert!(group.state().succeeded.is_empty());
    let body = succeed(proof(&group, 3, &laptop));
    group.say(&laptop, body);
    assert_eq!(group.state().members[&laptop.key].repo, Some(key(3)));
}

#[test]
fn two_operations_with_one_number_are_shown() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let mut copy = group.clone();
    let (_, one) = group.invite(&ann, Rights::READ, 1);
    copy.now += 50;
    let (_, two) = copy.invite(&ann, Rights::READ, 1);
    assert!(group.log.forks().is_empty());
    group.meet(&copy);
    assert_eq!(group.log.forks(), [(ann.key, [one.min(two), one.max(two)])]);
    // Both count.
    assert_eq!(group.state().invites.len(), 2);
}

#[test]
fn names_outside_of_the_prefixes_are_not_written() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let (bob, cy) = (group.device(), group.device());
    let cap = |device: &Device, prefixes: &[&str]| Cap {
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        ..Cap::device(
            device.key,
            Rights::WRITE | Rights::INVITE,
            if prefixes == ["photos/"] { 3 } else { 2 },
        )
    };
    group.say(&ann, Body::Cap(cap(&bob, &["photos/"])));
    let more = group.say(&bob, Body::Cap(cap(&cy, &["docs/"])));
    assert_eq!(group.log.set_aside(more), Some(Reason::More));
    let all = group.say(&bob, Body::Cap(cap(&cy, &[])));
    assert_eq!(group.log.set_aside(all), Some(Reason::More));
    group.say(&bob, Body::Cap(cap(&cy, &["photos/2026/"])));
    let member = &group.state().members[&cy.key];
    assert!(member.may_write("photos/2026/a", 0) && !member.may_write("photos/a", 0));
}

#[test]
fn what_is_said_beside_the_removal_of_who_says_it_is_void() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let (link, _) = group.invite(&ann, Rights::READ, 1);
    let (before, given, admitted) = (group.device(), group.device(), group.device());
    let cap = |device: &Device| Body::Cap(Cap::device(device.key, Rights::READ, 0));
    group.say(&bob, cap(&before));
    let mut other = group.clone();
    group.remove(&ann, &[&bob]);
    other.now += 50;
    let void = other.say(&bob, cap(&given));
    other.use_invite(&bob, &link, &admitted);
    group.meet(&other);
    assert!(group.has(&before) && !group.has(&given) && !group.has(&admitted));
    let state = group.state();
    assert!(state.void.contains_key(&void));
    // The device knows the invite, which has ended with that; a cap of its own lets it in again.
    assert!(state.waiting.is_empty() && state.gone.contains_key(&admitted.key));
    group.say(&ann, cap(&admitted));
    assert!(group.has(&admitted));
}

#[test]
fn a_hard_removal_takes_what_was_given_after_the_last_that_counts() {
    let mut group = Group::new();
    let ann = group.ann.clone();
    let bob = group.join(&ann, Rights::ADMIN);
    let (first, second) = (group.device(), group.device());
    let cap = |device: &Device| Body::Cap(Cap::device(device.key, Rights::READ, 0));
    let kept = group.say(&bob, cap(&first));
    group.say(&bob, cap(&second));
    let hard = Remove {
        hard: true,
        kept: vec![kept],
        targets: vec![bob.key],
        ..Remove::default()
    };
    group.say(&ann, Body::Remove(hard));
    assert!(group.has(&first) && !group.has(&second));
}

#[test]
fn peers_find_what_they_have_in_common() {
    let mut one = Group::new();
    let ann = one.ann.clone();
    let first = one.epoch(&ann);
    for _ in 0..100 {
        one.epoch(&ann);
    }
    let mut two = one.clone();
    let theirs: Vec<_> = (0..10).map(|_| two.epoch(&ann)).collect();
    let bob = one.join(&ann, Rights::WRITE);
    let known = two.log.known();
    assert!(known.len() <= larder_sync_model::membership::MAX_KNOWN);
    let sent = one.log.since(&known).len();
    assert!((3..20).contains(&sent), "{sent}");
    assert_eq!(one.log.first_epoch(), Some(first));
    assert_eq!(two.log.first_epoch(), Some(first));
    // A removed member is told no more than that.
    let removal = one.remove(&ann, &[&bob]);
    one.meet(&two);
    let told: Vec<_> = one.log.up_to([removal]).iter().map(|op| op.id()).collect();
    assert_eq!(told.last(), Some(&removal));
    assert!(theirs.iter().all(|id| !told.contains(id)));
    assert_eq!(told.len() + theirs.len(), one.log.len());
}
