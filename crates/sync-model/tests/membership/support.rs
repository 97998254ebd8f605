//! Devices that sign operations in one log.

use larder_store_api::{PublicKey, SecretKey};
use larder_store_engine::{Hash, public_key};
use larder_sync_model::membership::{
    Added, Body, BoxKey, Boxes, Cap, DeviceKeys, Epoch, Log, Op, OpId, Reason, Recipients, Remove,
    Rights, State,
};

/// A device with keys that follow from a number.
#[derive(Debug, Clone)]
pub struct Device {
    pub secret: SecretKey,
    pub key: PublicKey,
}

pub fn secret(kind: u8, number: u32) -> SecretKey {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(bytes)
}

impl Device {
    pub fn new(number: u32) -> Self {
        let secret = secret(1, number);
        let key = public_key(&secret);
        Self { secret, key }
    }

    pub fn keys(&self) -> DeviceKeys {
        DeviceKeys {
            box_key: BoxKey(self.key.0),
            repo: None,
        }
    }
}

/// An invite whose key follows from a number.
pub fn invite(number: u32, rights: Rights, depth: u8, uses: u16) -> (SecretKey, Cap) {
    let secret = secret(2, number);
    let key = public_key(&secret);
    let cap = Cap {
        invite: Some(BoxKey(key.0)),
        uses,
        ..Cap::device(key, rights, depth)
    };
    (secret, cap)
}

/// An epoch that this log's members get; its commitments follow from `number`.
pub fn epoch(recipients: &Recipients, number: u32, links: Vec<OpId>) -> Epoch {
    let mut secret = [5; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    Epoch {
        secret,
        locate: secret,
        recipients: recipients.hash(),
        boxes: Hash::of(secret),
        links: links
            .into_iter()
            .map(|epoch| larder_sync_model::membership::Link {
                epoch,
                read: [0; 48],
                locate: [0; 48],
            })
            .collect(),
    }
}

/// A log in which everybody knows everything, unless a copy of it is kept.
#[derive(Debug, Clone)]
pub struct Group {
    pub log: Log,
    pub root: Device,
    pub ann: Device,
    pub now: i64,
    next: u32,
}

impl Group {
    /// A group with a root and its first device, which has all rights.
    pub fn new() -> Self {
        let (root, ann) = (Device::new(0), Device::new(1));
        let log = Log::new(Op::genesis(&root.secret, [9; 32], 0).unwrap()).unwrap();
        let mut group = Self {
            log,
            root: root.clone(),
            ann: ann.clone(),
            now: 1000,
            next: 100,
        };
        let own = Cap {
            own: true,
            ..Cap::device(ann.key, Rights::ADMIN, 8)
        };
        group.say(&root, Body::Cap(own));
        group.say(&ann, Body::Keys(ann.keys()));
        group
    }

    pub fn sign(&mut self, by: &Device, body: Body) -> Op {
        self.now += 1;
        self.log.sign(&by.secret, body, self.now).unwrap()
    }

    pub fn say(&mut self, by: &Device, body: Body) -> OpId {
        let op = self.sign(by, body);
        let id = op.id();
        assert!(matches!(self.log.add(op), Added::New(_)));
        id
    }

    /// A further member: invited by `by`, and let in.
    pub fn join(&mut self, by: &Device, rights: Rights) -> Device {
        let (secret, cap) = self.invite(by, rights, 1);
        let device = self.device();
        self.use_invite(by, &secret, &device);
        assert!(self.state().members.contains_key(&device.key), "{cap:?}");
        device
    }

    pub fn device(&mut self) -> Device {
        self.next += 1;
        Device::new(self.next)
    }

    pub fn invite(&mut self, by: &Device, rights: Rights, uses: u16) -> (SecretKey, OpId) {
        self.next += 1;
        let level = self.state().members.get(&by.key).map_or(0, |by| by.level);
        let depth = if rights.covers(Rights::INVITE) {
            7 - level
        } else {
            0
        };
        let (secret, cap) = invite(self.next, rights, depth, uses);
        let cap = self.say(by, Body::Cap(cap));
        (secret, cap)
    }

    pub fn claim(&mut self, invite: &SecretKey, device: &Device) -> OpId {
        self.now += 1;
        let keys = device.keys();
        let claim = self.log.sign_claim(&device.secret, invite, keys, self.now);
        let claim = claim.unwrap();
        let id = claim.id();
        assert!(matches!(self.log.add(claim), Added::New(_)));
        id
    }

    /// The reason why a claim is set aside, if it is.
    pub fn claim_any(&mut self, invite: &SecretKey, device: &Device) -> Option<Reason> {
        let claim = self.claim(invite, device);
        self.log.set_aside(claim)
    }

    pub fn admit(&mut self, by: &Device, claim: OpId, device: &Device) -> OpId {
        let boxes = Boxes {
            recipient: device.key,
            claim,
            boxes: Vec::new(),
        };
        self.say(by, Body::Boxes(boxes))
    }

    pub fn use_invite(&mut self, by: &Device, invite: &SecretKey, device: &Device) -> OpId {
        let claim = self.claim(invite, device);
        self.admit(by, claim, device)
    }

    pub fn remove(&mut self, by: &Device, targets: &[&Device]) -> OpId {
        self.say(by, removal(targets))
    }

    pub fn epoch(&mut self, by: &Device) -> OpId {
        let recipients = Recipients::of(&self.state(), self.now + 1);
        self.next += 1;
        let links = self.log.head_epochs();
        let body = Body::Epoch(epoch(&recipients, self.next, links));
        self.say(by, body)
    }

    pub fn state(&self) -> State {
        self.log.state()
    }

    pub fn has(&self, device: &Device) -> bool {
        self.state().members.contains_key(&device.key)
    }

    /// Takes all that another copy of the log has.
    pub fn meet(&mut self, other: &Self) {
        for op in other.log.ops() {
            let added = self.log.add(op.clone());
            assert!(matches!(added, Added::New(_) | Added::Known), "{added:?}");
        }
        self.now = self.now.max(other.now);
        self.next = self.next.max(other.next);
    }
}

pub fn removal(targets: &[&Device]) -> Body {
    Body::Remove(Remove {
        targets: targets.iter().map(|device| device.key).collect(),
        ..Remove::default()
    })
}
