//! The bytes of operations, pinned.

use larder_store_engine::{Hash, public_key};
use larder_sync_model::membership::{
    Body, BoxKey, Boxes, Cap, Claim, Content, DeviceKeys, Epoch, FrozenRoot, Link, Op, OpId,
    Remove, RepoProof, Rights, Saw, SeenRepo, Succeed, sign_claim, sign_repo,
};

use crate::support::{Device, secret};

fn cases() -> Vec<Op> {
    let (ann, bob) = (Device::new(1), Device::new(2));
    let genesis = Op::genesis(&ann.secret, [9; 32], 77).unwrap();
    let group = genesis.id();
    let (link, repo) = (secret(2, 1), secret(3, 1));
    let content = |author: &Device, body| Content {
        group,
        author: author.key,
        proof: OpId([2; 32]),
        seq: 3,
        time: -5,
        after: vec![OpId([4; 32]), OpId([3; 32]), OpId([4; 32])],
        body,
    };
    let keys = DeviceKeys {
        box_key: BoxKey([6; 32]),
        repo: Some(RepoProof {
            key: public_key(&repo),
            signature: sign_repo(&repo, group, bob.key),
        }),
    };
    let epoch = Epoch {
        secret: [1; 32],
        locate: [2; 32],
        recipients: [3; 32],
        boxes: Hash::of(b"boxes"),
        links: vec![Link {
            epoch: OpId([4; 32]),
            read: [5; 48],
            locate: [6; 48],
        }],
    };
    let cap = Cap {
        until: Some(99),
        prefixes: vec!["photos/".to_owned(), "ü".to_owned()],
        ..Cap::device(bob.key, Rights::WRITE, 2)
    };
    let invite = Cap {
        invite: Some(BoxKey([8; 32])),
        own: true,
        confirm: true,
        uses: 200,
        ..Cap::device(public_key(&link), Rights::ADMIN, 8)
    };
    let claim = Claim {
        invite: public_key(&link),
        signature: sign_claim(&link, group, OpId([2; 32]), bob.key),
        keys: keys.clone(),
    };
    let remove = Remove {
        hard: true,
        forget: false,
        leave: true,
        with_invited: false,
        targets: vec![bob.key, ann.key],
        frozen: vec![FrozenRoot {
            repo: public_key(&repo),
            seq: 5,
            signed: b"signed".to_vec(),
        }],
        kept: vec![OpId([7; 32])],
        epoch: Some(epoch.clone()),
    };
    let boxes = Boxes {
        recipient: bob.key,
        claim: OpId([9; 32]),
        boxes: vec![(OpId([4; 32]), [7; 81])],
    };
    let succeed = Succeed {
        old: ann.key,
        new: keys.repo.clone().unwrap(),
        boxes: vec![(ann.key, [3; 81])],
    };
    let of_bob = [
        Body::Cap(cap),
        Body::Cap(invite),
        Body::Claim(claim),
        Body::Remove(remove),
        Body::Epoch(epoch),
        Body::Boxes(boxes),
        Body::Keys(keys),
        Body::Succeed(succeed),
    ];
    let rest = of_bob.map(|body| Op::sign(&bob.secret, content(&bob, body)).unwrap());
    std::iter::once(genesis).chain(rest).collect()
}

#[test]
fn operations_are_pinned() {
    let ops = cases();
    for op in &ops {
        assert_eq!(Op::decode(&op.encode()).unwrap(), *op);
    }
    let bytes: Vec<_> = ops.iter().map(Op::encode).collect();
    let ids: Vec<_> = ops.iter().map(|op| op.id().to_string()).collect();
    let slices: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
    crate::golden::check_hex("membership.hex", &slices);
    crate::golden::check("membership_ids.txt", &ids);
}

#[test]
fn no_other_bytes_are_an_operation() {
    for op in cases() {
        let bytes = op.encode();
        for at in 0..bytes.len() {
            assert!(Op::decode_trusted(&bytes[..at]).is_err(), "{at} bytes");
            let mut other = bytes.clone();
            other[at] ^= 1;
            // An operation that is still valid says something else, and nobody signed it.
            if let Ok(read) = Op::decode_trusted(&other) {
                assert_eq!(read.encode(), other);
                assert!(read.verify().is_err(), "byte {at} of {op:?}");
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Op::decode(&longer).is_err());
    }
}

#[test]
fn what_a_device_saw_is_pinned() {
    let ann = Device::new(1);
    let seen = |seq: u64, signed: &[u8]| SeenRepo::new(ann.key, seq, signed);
    let saw = Saw {
        time: 7,
        heads: vec![OpId([1; 32])],
        repos: vec![seen(41, b"root 41")],
    };
    let bytes = saw.encode();
    assert_eq!(Saw::decode(&bytes).unwrap(), saw);
    for at in 0..bytes.len() {
        assert!(Saw::decode(&bytes[..at]).is_err());
    }
    crate::golden::check_hex("saw.hex", &[&bytes]);
    let behind = |shown| saw.behind(&[(ann.key, shown)].into());
    assert!(behind(seen(41, b"root 41")).is_empty() && behind(seen(42, b"root 42")).is_empty());
    assert_eq!(behind(seen(38, b"root 38"))[0].seen, 41);
    assert_eq!(behind(seen(41, b"another"))[0].shown, 41);
}
