//! Random histories of members who know only a part, some of whom act on what they knew once, or lie.
//!
//! Secrets are symbols here: whoever has a box key has what is boxed to it, and whoever has the secret of an epoch has
//! those that it links to. What a writer seals must stay closed to all who were removed in its view, together, with
//! everything that was ever boxed or linked by anybody. `LARDER_SEEDS=10000` runs more histories than the default,
//! `LARDER_SEED=7` that one alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use larder_store_api::{PublicKey, SecretKey};
use larder_sync_model::membership::{
    Added, Body, BoxKey, Boxes, Cap, DeviceKeys, Log, Op, OpId, Recipient, Recipients, Remove,
    Rights,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    secrecy::is_before,
    support::{Device, epoch, invite},
};

const PRESETS: [Rights; 6] = [
    Rights::REPLICA,
    Rights::READ,
    Rights::WRITE,
    Rights::INVITE,
    Rights::ADMIN,
    Rights::ADMIN,
];

/// A device, what it knows, and what it knew once.
pub struct Actor {
    pub device: Device,
    pub log: Log,
    pub old: Option<Log>,
    /// The box keys whose secrets it has: its own, and those of invites that it made; and those of invites that it
    /// used, with its claims.
    pub box_keys: BTreeMap<BoxKey, Option<OpId>>,
    /// The epochs whose secrets it made.
    pub made: BTreeSet<OpId>,
}

/// The link of an invite.
pub struct Invitation {
    pub secret: SecretKey,
    pub box_key: BoxKey,
    pub cap: OpId,
    pub by: usize,
    pub gives: Rights,
}

/// A write: under which epoch, and who must not open it.
pub struct Write {
    pub epoch: OpId,
    /// Devices that are out, with the operations after which they may be let in again.
    pub out: BTreeMap<PublicKey, BTreeSet<OpId>>,
    pub known: HashSet<OpId>,
}

/// A box: of which epoch, to whom, and how many operations its maker knew.
pub struct Sealed {
    pub epoch: OpId,
    pub to: PublicKey,
    pub key: BoxKey,
    pub reads: bool,
    pub by: usize,
    pub knew: usize,
}

#[derive(Default)]
pub struct Public {
    pub boxes: Vec<Sealed>,
    pub links: Vec<(OpId, OpId)>,
    pub ops: Vec<Op>,
}

impl Public {
    /// The epochs whose secrets and whose locate keys follow from these.
    pub fn closure(&self, keys: &BTreeSet<BoxKey>, made: &BTreeSet<OpId>) -> [HashSet<OpId>; 2] {
        self.closure_without(keys, made, &BTreeSet::new())
    }

    /// Returns the closure without what these made, who know it all the same: it tells them nothing.
    pub fn closure_without(
        &self,
        keys: &BTreeSet<BoxKey>,
        made: &BTreeSet<OpId>,
        by: &BTreeSet<usize>,
    ) -> [HashSet<OpId>; 2] {
        let mut read: HashSet<_> = made.iter().copied().collect();
        let mut locate = HashSet::new();
        let boxes = self.boxes.iter().filter(|sealed| !by.contains(&sealed.by));
        for sealed in boxes.filter(|sealed| keys.contains(&sealed.key)) {
            let opened = if sealed.reads { &mut read } else { &mut locate };
            opened.insert(sealed.epoch);
        }
        locate.extend(read.iter().copied());
        loop {
            let before = read.len() + locate.len();
            let links = self.links.iter();
            for (from, to) in links.filter(|(from, _)| by.is_empty() || !made.contains(from)) {
                if read.contains(from) {
                    read.insert(*to);
                }
                if locate.contains(from) || read.contains(from) {
                    locate.insert(*to);
                }
            }
            if read.len() + locate.len() == before {
                return [read, locate];
            }
        }
    }
}

pub struct World {
    pub random: ChaCha8Rng,
    pub now: i64,
    pub actors: Vec<Actor>,
    pub invitations: Vec<Invitation>,
    pub public: Public,
    pub writes: Vec<Write>,
    pub next: u32,
    /// Seals under the newest epoch that it knows, to see that the model notices.
    pub careless: bool,
}

impl World {
    pub fn new(seed: u64, careless: bool) -> Self {
        let (root, ann) = (Device::new(0), Device::new(1));
        let log = Log::new(Op::genesis(&root.secret, [9; 32], 0).unwrap()).unwrap();
        let mut world = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: 1000,
            actors: Vec::new(),
            invitations: Vec::new(),
            public: Public::default(),
            writes: Vec::new(),
            next: 2,
            careless,
        };
        world.actors = vec![actor(root, &log), actor(ann.clone(), &log)];
        world.public.ops = log.ops().cloned().collect();
        let own = Cap {
            own: true,
            ..Cap::device(ann.key, Rights::ADMIN, 8)
        };
        world.say(0, Body::Cap(own));
        world.meet(1, 0, usize::MAX);
        world.say(1, Body::Keys(ann.keys()));
        world
    }

    pub fn step(&mut self) {
        self.now += self.random.random_range(0..20);
        let mut who = self.random.random_range(0..self.actors.len());
        // Those who believe themselves members act more, and the root seldom.
        for _ in 0..4 {
            let actor = &self.actors[who];
            let is_member = || actor.log.state().members.contains_key(&actor.device.key);
            if who != 0 && (self.random.random_bool(0.3) || is_member()) {
                break;
            }
            who = self.random.random_range(0..self.actors.len());
        }
        match self.random.random_range(0..100) {
            0..30 => {
                let other = self.random.random_range(0..self.actors.len());
                let all = self.actors[other].log.len();
                let part = if self.random.random_bool(0.6) {
                    all
                } else {
                    self.random.random_range(0..=all)
                };
                self.meet(who, other, part);
            }
            30..42 => self.invite(who),
            42..56 => self.claim(),
            56..66 => self.admit(who),
            66..72 => self.remove(who),
            72..75 => {
                self.rotate(who);
            }
            75..91 => self.write(who),
            91..92 => {
                let body = Remove {
                    leave: true,
                    targets: vec![self.actors[who].device.key],
                    ..Remove::default()
                };
                if who > 1 {
                    self.say(who, Body::Remove(body));
                }
            }
            92..94 => {
                self.next += 1;
                let box_key = BoxKey(Device::new(10_000 + self.next).key.0);
                self.actors[who].box_keys.insert(box_key, None);
                let keys = DeviceKeys {
                    box_key,
                    repo: None,
                };
                self.say(who, Body::Keys(keys));
            }
            94..97 => self.readmit(who),
            _ => self.actors[who].old = Some(self.actors[who].log.clone()),
        }
    }

    /// Signs and publishes a statement, now and then in knowledge of what the device knew once.
    fn say(&mut self, who: usize, body: Body) -> Option<OpId> {
        let old = self.actors[who].old.clone();
        let old = old.filter(|_| self.random.random_bool(0.3));
        let log = old.as_ref().unwrap_or(&self.actors[who].log);
        let op = log
            .sign(&self.actors[who].device.secret, body, self.now)
            .ok()?;
        Some(self.publish(who, op, old.is_some()))
    }

    fn publish(&mut self, who: usize, op: Op, is_old: bool) -> OpId {
        let id = op.id();
        let actor = &mut self.actors[who];
        actor.log.add(op.clone());
        if let Some(old) = actor.old.as_mut().filter(|_| is_old) {
            old.add(op.clone());
        }
        self.public.ops.push(op);
        id
    }

    fn meet(&mut self, who: usize, other: usize, part: usize) {
        let ops: Vec<_> = self.actors[other].log.ops().take(part).cloned().collect();
        for op in ops {
            let added = self.actors[who].log.add(op);
            assert!(matches!(added, Added::New(_) | Added::Known), "{added:?}");
        }
    }

    fn invite(&mut self, who: usize) {
        self.next += 1;
        let gives = *PRESETS.choose(&mut self.random).unwrap();
        let (uses, depth) = (
            self.random.random_range(1..4),
            self.random.random_range(0..8),
        );
        let (secret, mut cap) = invite(self.next, gives, depth, uses);
        cap.own = self.random.random_bool(0.2);
        cap.confirm = self.random.random_bool(0.1);
        cap.until = self.until(0.2);
        let box_key = cap.invite.unwrap();
        let Some(cap) = self.say(who, Body::Cap(cap)) else {
            return;
        };
        self.actors[who].box_keys.insert(box_key, None);
        self.invitations.push(Invitation {
            secret,
            box_key,
            cap,
            by: who,
            gives,
        });
    }

    fn until(&mut self, chance: f64) -> Option<i64> {
        let some = self.random.random_bool(chance);
        some.then(|| self.now + self.random.random_range(50..900))
    }

    /// Somebody uses a link: a new device, a member, or a device that was removed and is given a link in knowledge of
    /// that.
    fn claim(&mut self) {
        // Mostly a recent one.
        let recent = self.invitations.len().saturating_sub(5);
        let first = if self.random.random_bool(0.8) {
            recent
        } else {
            0
        };
        if first == self.invitations.len() {
            return;
        }
        let at = self.random.random_range(first..self.invitations.len());
        let (by, cap) = (self.invitations[at].by, self.invitations[at].cap);
        let log = self.actors[by].log.clone();
        let gone = log.state().gone;
        let back = self.actors.iter().position(|actor| {
            let gone = gone.get(&actor.device.key);
            gone.is_some_and(|gone| gone.by.iter().all(|by| is_before(&log, *by, cap)))
        });
        let mut back = back.filter(|_| self.random.random_bool(0.3));
        if back.is_none() && self.random.random_bool(0.2) {
            let some = self.random.random_range(1..self.actors.len());
            let key = self.actors[some].device.key;
            back = log.state().members.contains_key(&key).then_some(some);
        }
        let who = back.unwrap_or_else(|| {
            self.next += 1;
            let mut new = actor(Device::new(self.next), &log);
            new.old = Some(log.clone());
            self.actors.push(new);
            self.actors.len() - 1
        });
        let Invitation {
            secret, box_key, ..
        } = &self.invitations[at];
        let device = self.actors[who].device.clone();
        let keys = DeviceKeys {
            box_key: BoxKey(device.key.0),
            repo: None,
        };
        let Ok(claim) = log.sign_claim(&device.secret, secret, keys, self.now) else {
            return;
        };
        let known = self.actors[who].box_keys.entry(*box_key);
        known.or_insert(Some(claim.id()));
        self.meet(who, by, usize::MAX);
        self.publish(who, claim, false);
        // The link leads to who made it, mostly.
        if self.random.random_bool(0.7) {
            let with = if self.random.random_bool(0.6) {
                by
            } else {
                self.random.random_range(1..self.actors.len())
            };
            self.meet(with, who, usize::MAX);
            self.admit(with);
        }
    }

    /// Lets in all who wait, and boxes what is used, and now and then older epochs, to all who lack it.
    fn admit(&mut self, who: usize) {
        for (claim, recipient) in self.actors[who].log.state().waiting {
            let boxes = Boxes {
                recipient,
                claim,
                boxes: Vec::new(),
            };
            self.say(who, Body::Boxes(boxes));
        }
        let log = &self.actors[who].log;
        let mut epochs = log.usable(self.now);
        if self.random.random_bool(0.3) {
            epochs.extend(log.head_epochs());
        }
        for epoch in epochs {
            let [read, locate] = self.opens(who);
            for to in self.actors[who].log.lacking(epoch, self.now) {
                let has = if to.reads { &read } else { &locate };
                let boxes = Boxes {
                    recipient: to.key,
                    claim: OpId::NONE,
                    boxes: vec![(epoch, [0; 81])],
                };
                if has.contains(&epoch) && self.say(who, Body::Boxes(boxes)).is_some() {
                    self.seal_to(who, epoch, &to);
                }
            }
        }
    }

    fn opens(&self, who: usize) -> [HashSet<OpId>; 2] {
        let actor = &self.actors[who];
        let keys = actor.box_keys.keys().copied().collect();
        let [read, locate] = self.public.closure(&keys, &actor.made);
        let known = |found: HashSet<OpId>| {
            let known = found.into_iter().filter(|id| actor.log.get(*id).is_some());
            known.collect::<HashSet<_>>()
        };
        [known(read), known(locate)]
    }

    fn remove(&mut self, who: usize) {
        let state = self.actors[who].log.state();
        // Ann, who began, is removed only now and then: otherwise little is left to look at.
        let spared = self.random.random_bool(0.8);
        let spared = spared.then_some(self.actors[1].device.key);
        let members = state
            .members
            .keys()
            .copied()
            .filter(|key| Some(*key) != spared);
        let invites = state.invites.values().map(|invite| invite.key);
        let all: Vec<_> = members.chain(invites).collect();
        let Some(target) = all.choose(&mut self.random).copied() else {
            return;
        };
        let heads: Vec<_> = self.actors[who].log.heads().iter().copied().collect();
        let mut remove = Remove {
            targets: vec![target],
            hard: self.random.random_bool(0.1),
            with_invited: self.random.random_bool(0.2),
            ..Remove::default()
        };
        if remove.hard && self.random.random_bool(0.5) {
            remove.kept = vec![*heads.choose(&mut self.random).unwrap()];
        }
        let secret = self.actors[who].device.secret.clone();
        let log = &self.actors[who].log;
        let time = log.epoch_time(self.now);
        if self.random.random_bool(0.7)
            && let Ok(plain) = log.sign(&secret, Body::Remove(remove.clone()), time)
            && let Some(recipients) = log.recipients_after(plain)
        {
            self.seal(who, &recipients, time, |epoch| {
                remove.epoch = Some(epoch);
                Body::Remove(remove)
            });
        } else {
            self.say(who, Body::Remove(remove));
        }
    }

    /// Makes an epoch in knowledge of all that the device knows.
    fn rotate(&mut self, who: usize) -> Option<OpId> {
        let time = self.actors[who].log.epoch_time(self.now);
        let recipients = Recipients::of(&self.actors[who].log.state(), time);
        self.seal(who, &recipients, time, Body::Epoch)
    }

    fn seal(
        &mut self,
        who: usize,
        recipients: &Recipients,
        time: i64,
        body: impl FnOnce(larder_sync_model::membership::Epoch) -> Body,
    ) -> Option<OpId> {
        self.next += 1;
        let [read, _] = self.opens(who);
        let mut links = self.actors[who].log.head_epochs();
        links.retain(|id| read.contains(id));
        links.truncate(24);
        let body = body(epoch(recipients, self.next, links.clone()));
        let secret = self.actors[who].device.secret.clone();
        let op = self.actors[who].log.sign(&secret, body, time).ok()?;
        let id = self.publish(who, op, false);
        for to in recipients.iter() {
            self.seal_to(who, id, to);
        }
        self.public
            .links
            .extend(links.into_iter().map(|link| (id, link)));
        self.actors[who].made.insert(id);
        Some(id)
    }

    fn seal_to(&mut self, by: usize, epoch: OpId, to: &Recipient) {
        self.public.boxes.push(Sealed {
            epoch,
            to: to.key,
            key: to.box_key,
            reads: to.reads,
            by,
            knew: self.actors[by].log.len(),
        });
    }

    fn write(&mut self, who: usize) {
        let key = self.actors[who].device.key;
        let state = self.actors[who].log.state();
        let rights = state
            .members
            .get(&key)
            .map(|member| member.rights(self.now));
        if !rights.is_some_and(|rights| rights.covers(Rights::WRITE)) {
            return;
        }
        let [read, _] = self.opens(who);
        let mut epochs = self.actors[who].log.usable(self.now);
        if self.careless {
            epochs = self.actors[who].log.head_epochs();
        }
        let known = epochs.into_iter().find(|id| read.contains(id));
        let has_box = state.members[&key].box_key.is_some();
        let epoch = known.or_else(|| self.rotate(who).filter(|_| has_box));
        let Some(epoch) = epoch else {
            return;
        };
        if known.is_none() {
            // A writer is never stuck: it may seal under the epoch that it makes.
            let usable = self.actors[who].log.usable(self.now);
            assert!(usable.contains(&epoch), "a new epoch is not usable");
        }
        let mut out: BTreeMap<_, BTreeSet<OpId>> = BTreeMap::new();
        for (key, gone) in &state.gone {
            out.insert(*key, gone.by.clone());
        }
        for (key, member) in &state.members {
            if member.rights(self.now) == Rights::NONE {
                out.insert(*key, BTreeSet::new());
            }
        }
        let known = self.actors[who].log.ops().map(Op::id).collect();
        self.writes.push(Write { epoch, out, known });
    }

    /// Gives rights directly to somebody who was removed.
    fn readmit(&mut self, who: usize) {
        let gone: Vec<_> = self.actors[who].log.state().gone.into_keys().collect();
        if let Some(key) = gone.choose(&mut self.random).copied() {
            let mut cap = Cap::device(key, *PRESETS.choose(&mut self.random).unwrap(), 0);
            cap.until = self.until(0.3);
            self.say(who, Body::Cap(cap));
        }
    }

    /// All operations in one log.
    pub fn union(&self) -> Log {
        let mut log = self.actors[0].log.clone();
        for op in &self.public.ops {
            log.add(op.clone());
        }
        log
    }
}

fn actor(device: Device, log: &Log) -> Actor {
    Actor {
        log: log.clone(),
        old: None,
        box_keys: [(BoxKey(device.key.0), None)].into(),
        made: BTreeSet::new(),
        device,
    }
}
