//! How fast members are evaluated and removed: `cargo run --release -p larder-sync-model --example membership`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use larder_store_api::{Result, SecretKey};
use larder_store_engine::{Hash, public_key};
use larder_sync_model::membership::{
    Body, BoxSecret, Boxes, Cap, DeviceKeys, EpochSecret, Log, Op, OpId, Recipients, Remove, Rights,
};

const MEMBERS: u32 = 1000;
const OPS: usize = 10_000;

fn key(kind: u8, number: u32) -> SecretKey {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(bytes)
}

fn keys(number: u32) -> DeviceKeys {
    let secret = BoxSecret::from_seed(*key(3, number).expose());
    DeviceKeys {
        box_key: secret.public(),
        repo: None,
    }
}

/// A group with a thousand members, who came by links of five admins, each for ten people; some removed, some epochs,
/// and new keys of devices for the rest.
fn group() -> Result<(Log, SecretKey)> {
    let (root, ann) = (key(0, 0), key(1, 0));
    let mut log = Log::new(Op::genesis(&root, [1; 32], 0)?)?;
    let mut time = 1;
    let mut say = |log: &mut Log, by: &SecretKey, body| -> Result<OpId> {
        time += 1;
        let op = log.sign(by, body, time)?;
        let id = op.id();
        log.add(op);
        Ok(id)
    };
    let own = Cap {
        own: true,
        ..Cap::device(public_key(&ann), Rights::ADMIN, 8)
    };
    say(&mut log, &root, Body::Cap(own))?;
    say(&mut log, &ann, Body::Keys(keys(0)))?;
    let mut link = (key(2, 0), 0);
    for number in 1..=MEMBERS + 50 {
        let admin = key(1, if number > 5 { number % 6 } else { 0 });
        let rights = if number > 5 {
            Rights::WRITE
        } else {
            Rights::ADMIN
        };
        if link.1 == 0 || number < 6 {
            link = (key(2, number), 10);
            let seed = BoxSecret::from_seed(*link.0.expose());
            let cap = Cap {
                invite: Some(seed.public()),
                uses: 10,
                ..Cap::device(public_key(&link.0), rights, if number > 5 { 0 } else { 4 })
            };
            say(&mut log, &admin, Body::Cap(cap))?;
        }
        link.1 -= 1;
        let device = key(1, number);
        let claim = log.sign_claim(&device, &link.0, keys(number), 5)?;
        let id = claim.id();
        log.add(claim);
        let boxes = Boxes {
            recipient: public_key(&device),
            claim: id,
            boxes: Vec::new(),
        };
        say(&mut log, &admin, Body::Boxes(boxes))?;
    }
    for number in MEMBERS + 1..=MEMBERS + 50 {
        let remove = Remove {
            targets: vec![public_key(&key(1, number))],
            ..Remove::default()
        };
        say(&mut log, &ann, Body::Remove(remove))?;
    }
    let mut number = 0;
    while log.len() < OPS {
        number += 1;
        let device = 6 + number % (MEMBERS - 6);
        say(&mut log, &key(1, device), Body::Keys(keys(device)))?;
    }
    Ok((log, ann))
}

fn best<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut runs = (0..5).map(|_| {
        let start = Instant::now();
        let result = run();
        (start.elapsed(), result)
    });
    let mut best = runs.next().expect("five runs");
    for run in runs {
        if run.0 < best.0 {
            best = run;
        }
    }
    best
}

fn main() -> Result<()> {
    let (log, ann) = group()?;
    let bytes: Vec<_> = log.ops().map(Op::encode).collect();
    let ops: Vec<_> = log.ops().cloned().collect();
    let members = log.state().members.len();
    println!("{} operations, {members} members", ops.len());

    let (time, _) = best(|| {
        bytes
            .iter()
            .map(|bytes| Op::decode_trusted(bytes))
            .collect::<Result<Vec<_>>>()
    });
    println!("reading them                        {time:8.2?}");
    let (time, _) = best(|| {
        bytes[..1000]
            .iter()
            .map(|bytes| Op::decode(bytes))
            .collect::<Result<Vec<_>>>()
    });
    println!("reading and verifying 1,000         {time:8.2?}");
    let evaluate = || {
        let mut log = Log::new(ops[0].clone()).expect("a genesis");
        for op in &ops {
            log.add(op.clone());
        }
        let state = log.state();
        (log, state.members.len())
    };
    let (time, _) = best(evaluate);
    println!("evaluating {OPS}                    {time:8.2?}   wanted: 50 ms");

    let target = public_key(&key(1, 500));
    let remove = Remove {
        targets: vec![target],
        ..Remove::default()
    };
    let (time, _) = best(|| log.state().members.len());
    println!("what they mean, once they are read  {time:8.2?}");
    for (what, body) in [
        ("a removal", Body::Remove(remove.clone())),
        ("new keys", Body::Keys(keys(0))),
    ] {
        let op = log.sign(&ann, body, 1_000_000)?;
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                let mut log = log.clone();
                let op = op.clone();
                let start = Instant::now();
                log.add(op);
                let state = log.state();
                (start.elapsed(), state.members.len())
            })
            .collect();
        times.sort_unstable();
        println!(
            "one more, {what:<10}                {:8.2?}   wanted: 1 ms",
            times[0].0
        );
    }

    let earlier = EpochSecret::generate()?;
    let (time, removed) = best(|| {
        let plain = log.sign(&ann, Body::Remove(remove.clone()), 1_000_000)?;
        let recipients = log.recipients_after(plain).unwrap_or_default();
        let secret = EpochSecret::generate()?;
        let list = secret.seal_list(log.group(), &recipients)?;
        let links = vec![secret.link(OpId([1; 32]), &earlier)?];
        let epoch = secret.statement(&recipients, Hash::of(&list), links);
        let remove = Remove {
            epoch: Some(epoch),
            ..remove.clone()
        };
        let op = log.sign(&ann, Body::Remove(remove), 1_000_000)?;
        Result::Ok((op, list))
    });
    let (op, list) = removed?;
    let len = op.encode().len() + list.len();
    println!("removing 1 of {members}                   {time:8.2?}   wanted: 500 ms");
    println!("new bytes                           {len:8}   wanted: 100,000");

    let mut after = log.clone();
    after.add(op.clone());
    let (time, usable) = best(|| after.clone().usable(1_000_000));
    assert_eq!(usable, [op.id()]);
    println!("choosing the epoch to seal under    {time:8.2?}");
    let recipients = Recipients::of(&after.state(), 1_000_000);
    println!("{} boxes", recipients.iter().len());
    Ok(())
}
