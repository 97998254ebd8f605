//! Random histories of members who know only a part, some of whom act on what they knew once, or lie.
//!
//! Secrets are symbols here: whoever has a box key has what is boxed to it, and whoever has the secret of an epoch has
//! those that it links to. What a writer seals must stay closed to all who were removed in its view, together, with
//! everything that was ever boxed or linked by anybody. `LARDER_SEEDS=10000` runs more histories than the default,
//! `LARDER_SEED=7` that one alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    env,
};

use larder_store_api::{PublicKey, SecretKey};
use larder_sync_model::membership::{
    Added, Body, BoxKey, Boxes, Cap, DeviceKeys, Gone, Log, Op, OpId, Recipient, Recipients,
    Remove, Rights, State,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::support::{Device, epoch, invite};

const PRESETS: [Rights; 6] = [
    Rights::REPLICA,
    Rights::READ,
    Rights::WRITE,
    Rights::INVITE,
    Rights::ADMIN,
    Rights::ADMIN,
];

/// A device, what it knows, and what it knew once.
struct Actor {
    device: Device,
    log: Log,
    old: Option<Log>,
    /// The box keys whose secrets it has: its own, and those of invites that it made; and those of invites that it
    /// used, with its claims.
    box_keys: BTreeMap<BoxKey, Option<OpId>>,
    /// The epochs whose secrets it made.
    made: BTreeSet<OpId>,
}

/// The link of an invite.
struct Invitation {
    secret: SecretKey,
    box_key: BoxKey,
    cap: OpId,
    by: usize,
    gives: Rights,
}

/// A write: under which epoch, and who must not open it.
struct Write {
    epoch: OpId,
    /// Devices that are out, with the operations after which they may be let in again.
    out: BTreeMap<PublicKey, BTreeSet<OpId>>,
    known: HashSet<OpId>,
}

/// A box: of which epoch, to whom, and how many operations its maker knew.
struct Sealed {
    epoch: OpId,
    to: PublicKey,
    key: BoxKey,
    reads: bool,
    by: usize,
    knew: usize,
}

#[derive(Default)]
struct Public {
    boxes: Vec<Sealed>,
    links: Vec<(OpId, OpId)>,
    ops: Vec<Op>,
}

impl Public {
    /// The epochs whose secrets and whose locate keys follow from these.
    fn closure(&self, keys: &BTreeSet<BoxKey>, made: &BTreeSet<OpId>) -> [HashSet<OpId>; 2] {
        let mut read: HashSet<_> = made.iter().copied().collect();
        let mut locate = HashSet::new();
        for sealed in self
            .boxes
            .iter()
            .filter(|sealed| keys.contains(&sealed.key))
        {
            let opened = if sealed.reads { &mut read } else { &mut locate };
            opened.insert(sealed.epoch);
        }
        locate.extend(read.iter().copied());
        loop {
            let before = read.len() + locate.len();
            for (from, to) in &self.links {
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

struct World {
    random: ChaCha8Rng,
    now: i64,
    actors: Vec<Actor>,
    invitations: Vec<Invitation>,
    public: Public,
    writes: Vec<Write>,
    next: u32,
    /// Seals under the newest epoch that it knows, to see that the model notices.
    careless: bool,
}

impl World {
    fn new(seed: u64, careless: bool) -> Self {
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

    fn step(&mut self) {
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
            // Who writes is never stuck: the epoch that it makes is one that it may seal under.
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
    fn union(&self) -> Log {
        let mut log = self.actors[0].log.clone();
        for op in &self.public.ops {
            log.add(op.clone());
        }
        log
    }

    /// What was sealed is closed to all who were out, together.
    fn check_secrecy(&self) -> Result<(), String> {
        let log = self.union();
        let state = log.state();
        let places: Vec<HashMap<OpId, usize>> = self
            .actors
            .iter()
            .map(|actor| {
                let ops = actor.log.ops().enumerate();
                ops.map(|(at, op)| (op.id(), at)).collect()
            })
            .collect();
        for (number, write) in self.writes.iter().enumerate() {
            // Somebody else, who knew why a device was out, let it in again and boxed something to it.
            let let_in_again = |key: PublicKey, by: &BTreeSet<OpId>| {
                let mut boxes = self.public.boxes.iter().filter(|sealed| sealed.to == key);
                boxes.any(|sealed| {
                    let knew = |id: &OpId| {
                        let place = places[sealed.by].get(id);
                        place.is_some_and(|at| *at < sealed.knew)
                    };
                    let maker = self.actors[sealed.by].device.key;
                    !write.out.contains_key(&maker) && by.iter().all(knew)
                })
            };
            let out = write.out.iter().filter(|(key, by)| match by.is_empty() {
                true => !came_back(&log, &state, **key, by, &write.known),
                false => !let_in_again(**key, by),
            });
            let out: BTreeSet<_> = out.map(|(key, _)| *key).collect();
            let actors = self
                .actors
                .iter()
                .filter(|actor| out.contains(&actor.device.key));
            let (mut keys, mut made) = (BTreeSet::new(), BTreeSet::new());
            for actor in actors {
                // That a device uses an invite is nothing that the writer could heed without knowing of it; and one
                // that was made in knowledge of its removal was meant for it.
                let by = write.out.get(&actor.device.key).into_iter().flatten();
                let direct = |by: &&OpId| is_removal_of(&log, **by, actor.device.key);
                let is_direct = by.clone().any(|by| direct(&by));
                let by: Vec<_> = by.filter(|by| !is_direct || direct(by)).collect();
                let known = actor.box_keys.iter().filter(|(_, claim)| {
                    claim.is_none_or(|id| {
                        let cap = log.get(id).map(|claim| claim.content().proof);
                        let knew = |by: &&OpId| cap.is_some_and(|cap| is_before(&log, **by, cap));
                        write.known.contains(&id)
                            && (by.is_empty() || !by.iter().all(|by| knew(by)))
                    })
                });
                keys.extend(known.map(|(key, _)| *key));
                made.extend(&actor.made);
            }
            let [read, locate] = self.public.closure(&keys, &made);
            if read.contains(&write.epoch) || locate.contains(&write.epoch) {
                return Err(self.leak(number, &log, &keys, &made, &out));
            }
        }
        Ok(())
    }
}

impl World {
    /// What leads to an epoch that is open to those who were out, for who looks for the reason.
    fn leak(
        &self,
        number: usize,
        log: &Log,
        keys: &BTreeSet<BoxKey>,
        made: &BTreeSet<OpId>,
        out: &BTreeSet<PublicKey>,
    ) -> String {
        let write = &self.writes[number];
        let known = |id: &OpId| write.known.contains(id);
        let before = past(log, write.epoch);
        let mut view = Log::new(log.ops().next().unwrap().clone()).unwrap();
        for op in log.ops().filter(|op| known(&op.id())) {
            view.add(op.clone());
        }
        let view_state = view.state();
        let mut text = format!(
            "write {number} under {:?} is open to {out:?}\n",
            write.epoch
        );
        for (key, by) in write.out.iter().filter(|(key, _)| out.contains(key)) {
            let by: Vec<_> = by.iter().map(|by| (*by, before.contains(by))).collect();
            text += &format!("{key} out by {by:?}\n");
        }
        let boxes = self.public.boxes.iter();
        for sealed in boxes.filter(|sealed| keys.contains(&sealed.key)) {
            let leads = self.public.closure(&[sealed.key].into(), &BTreeSet::new());
            if leads.iter().any(|open| open.contains(&write.epoch)) {
                let (epoch, by) = (&sealed.epoch, self.actors[sealed.by].device.key);
                let is_known = known(epoch);
                text += &format!(
                    "box of {epoch:?} (known {is_known}) by {by} to {}\n",
                    sealed.to
                );
                for (cap, invite) in &view_state.invites {
                    if invite.key == sealed.to {
                        let void = is_void(&view, &view_state, view.get(*cap).unwrap());
                        text += &format!(
                            "  {cap:?} {:?} void {void} {invite:?}\n",
                            before.contains(cap)
                        );
                        let mut at = view.get(*cap);
                        while let Some(op) = at {
                            text += &format!(
                                "   chain {:?} by {} void {:?} {:.150}\n",
                                op.id(),
                                op.content().author,
                                view_state.void.get(&op.id()),
                                format!("{:?}", op.body())
                            );
                            at = view.get(op.content().proof);
                        }
                    }
                }
                text += &format!(
                    "  usable in the view {:?} {:.300}\n",
                    view.usable(i64::MIN),
                    format!("{:?}", view.get(write.epoch).map(|op| op.body()))
                );
            }
        }
        for epoch in made {
            let leads = self.public.closure(&BTreeSet::new(), &[*epoch].into());
            if leads.iter().any(|open| open.contains(&write.epoch)) {
                text += &format!("made {epoch:?} (known {})\n", known(epoch));
            }
        }
        for op in log.ops() {
            let debug = format!("{:?}", op.body());
            if out
                .iter()
                .any(|key| debug.contains(&key.to_string()) || *key == op.content().author)
            {
                let (id, content) = (op.id(), op.content());
                text += &format!(
                    "{id:?} known {} before {} at {} by {} {:?} {:.200}\n",
                    known(&id),
                    before.contains(&id),
                    content.time,
                    content.author,
                    log.set_aside(id),
                    debug,
                );
            }
        }
        text
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

fn is_removal_of(log: &Log, by: OpId, device: PublicKey) -> bool {
    let body = log.get(by).map(Op::body);
    matches!(body, Some(Body::Remove(remove)) if remove.targets.contains(&device))
}

fn is_before(log: &Log, first: OpId, then: OpId) -> bool {
    past(log, then).contains(&first)
}

fn past(log: &Log, of: OpId) -> HashSet<OpId> {
    let mut found = HashSet::new();
    let mut next = vec![of];
    while let Some(op) = next.pop().and_then(|id| log.get(id)) {
        next.extend(op.content().after.iter().filter(|id| found.insert(**id)));
    }
    found
}

/// Whether somebody gave a device rights of which those with `known` do not know, in knowledge of all removals of the
/// device itself, and nothing made it void.
fn came_back(
    log: &Log,
    state: &State,
    key: PublicKey,
    by: &BTreeSet<OpId>,
    known: &HashSet<OpId>,
) -> bool {
    let by: Vec<_> = by
        .iter()
        .filter(|by| is_removal_of(log, **by, key))
        .collect();
    log.ops().any(|op| {
        let gives = match op.body() {
            Body::Cap(cap) => cap.key == key,
            Body::Boxes(boxes) => boxes.recipient == key && boxes.claim != OpId::NONE,
            _ => false,
        };
        let is_new = gives && !known.contains(&op.id()) && log.set_aside(op.id()).is_none();
        // What ended with time alone may have begun again, and been made void only later.
        is_new && (by.is_empty() || !is_void(log, state, op)) && {
            let past = past(log, op.id());
            by.iter().all(|by| past.contains(by))
        }
    })
}

fn is_void(log: &Log, state: &State, op: &Op) -> bool {
    let mut next = vec![op];
    while let Some(op) = next.pop() {
        if state.void.contains_key(&op.id()) {
            return true;
        }
        next.extend(log.get(op.content().proof));
        next.extend(claim_of(log, op));
    }
    false
}

/// The claim that an operation answers.
fn claim_of<'a>(log: &'a Log, op: &Op) -> Option<&'a Op> {
    match op.body() {
        Body::Boxes(boxes) => log.get(boxes.claim),
        _ => None,
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    match number("LARDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LARDER_SEEDS").unwrap_or(default),
    }
}

fn history(seed: u64, careless: bool) -> World {
    let mut world = World::new(seed, careless);
    for _ in 0..350 {
        world.step();
    }
    world
}

#[test]
fn nobody_who_was_removed_opens_what_is_sealed_from_then_on() {
    let (mut writes, mut with_removed) = (0, 0);
    for seed in seeds(100) {
        let world = history(seed, false);
        writes += world.writes.len();
        with_removed += world
            .writes
            .iter()
            .filter(|write| !write.out.is_empty())
            .count();
        if let Err(error) = world.check_secrecy() {
            panic!("seed {seed}: {error}");
        }
    }
    let counted = format!("{writes} writes, {with_removed} of them with somebody out");
    eprintln!("{counted}");
    assert!(
        with_removed * 10 > writes,
        "{with_removed} of {writes} writes"
    );
}

#[test]
fn the_model_notices_who_seals_under_the_newest_epoch() {
    let broken = (0..60).filter(|seed| history(*seed, true).check_secrecy().is_err());
    let broken = broken.count();
    assert!(broken > 2, "{broken} of 60 histories");
}

#[test]
fn any_order_gives_one_state() {
    for seed in seeds(30) {
        let mut world = history(seed, false);
        let union = world.union();
        let (state, usable) = (union.state(), union.usable(world.now));
        let mut ops: Vec<_> = union.ops().cloned().collect();
        for _ in 0..3 {
            ops[1..].shuffle(&mut world.random);
            let mut log = Log::new(ops[0].clone()).unwrap();
            for op in &ops {
                log.add(op.clone());
            }
            assert_eq!(log.len(), ops.len());
            assert_eq!(log.state(), state, "seed {seed}");
            assert_eq!(log.usable(world.now), usable, "seed {seed}");
            assert_eq!(log.forks(), union.forks());
            assert_eq!(log.heads(), union.heads());
            for op in &ops {
                assert_eq!(log.set_aside(op.id()), union.set_aside(op.id()));
            }
        }
    }
}

#[test]
fn one_more_operation_gives_what_all_at_once_give() {
    for seed in seeds(5) {
        let world = history(seed, false);
        let union = world.union();
        let ops: Vec<_> = union.ops().cloned().collect();
        let mut log = Log::new(ops[0].clone()).unwrap();
        for count in 1..ops.len() {
            log.add(ops[count].clone());
            let mut fresh = Log::new(ops[0].clone()).unwrap();
            for op in ops[..=count].iter().rev() {
                fresh.add(op.clone());
            }
            assert_eq!(log.state(), fresh.state(), "seed {seed}");
            assert_eq!(log.usable(world.now), fresh.usable(world.now));
        }
    }
}

#[test]
fn a_denial_is_never_undone() {
    for seed in seeds(40) {
        let world = history(seed, false);
        let union = world.union();
        let all = union.state();
        let hard: HashSet<_> = union.ops().filter(|op| is_hard(op)).map(Op::id).collect();
        for actor in &world.actors {
            let before = actor.log.state();
            let new_hard = hard.iter().any(|id| actor.log.get(*id).is_none());
            if new_hard {
                continue;
            }
            assert!(before.removals.is_subset(&all.removals), "seed {seed}");
            for (key, gone) in &before.gone {
                let known: HashSet<_> = actor.log.ops().map(Op::id).collect();
                if all.members.contains_key(key) {
                    assert!(
                        came_back(&union, &all, *key, &gone.by, &known),
                        "seed {seed}: {key} {}",
                        story(&union, *key, gone, &all, &known)
                    );
                }
            }
        }
    }
}

/// What is said of a device, for who looks for the reason of a failure.
fn story(log: &Log, key: PublicKey, gone: &Gone, state: &State, known: &HashSet<OpId>) -> String {
    let mut text = format!("gone: {gone:?}, now {:?}\n", state.members[&key]);
    for op in log.ops() {
        let content = op.content();
        let debug = format!("{:?}", op.body());
        let named = gone.by.contains(&op.id()) || debug.contains(&key.to_string());
        if named || content.author == key {
            let past = past(log, op.id());
            let after: Vec<_> = gone.by.iter().map(|by| past.contains(by)).collect();
            let (id, aside) = (op.id(), log.set_aside(op.id()));
            let mut debug = debug;
            debug.truncate(300);
            text += &format!(
                "{id:?} known {} after {after:?} by {} proof {:?} {aside:?} void {:?} {debug}\n",
                known.contains(&id),
                content.author,
                content.proof,
                state.void.get(&id),
            );
        }
    }
    text
}

fn is_hard(op: &Op) -> bool {
    matches!(op.body(), Body::Remove(remove) if remove.hard)
}

#[test]
fn rights_never_grow_along_a_chain() {
    for seed in seeds(40) {
        let union = history(seed, false).union();
        let state: State = union.state();
        for (key, member) in &state.members {
            for (id, held) in &member.held {
                let mut rights = held.rights;
                let mut at = union.get(*id).unwrap();
                while !matches!(at.body(), Body::Genesis { .. }) {
                    let proof = || union.get(at.content().proof);
                    let before = claim_of(&union, at).or_else(proof).unwrap();
                    if let Body::Cap(cap) = before.body() {
                        assert!(cap.rights.covers(rights), "seed {seed}: {key}");
                        rights = cap.rights;
                    }
                    at = before;
                }
            }
        }
        let granted = state
            .members
            .values()
            .filter(|member| !member.held.is_empty());
        assert_eq!(granted.count(), state.members.len());
    }
}

#[test]
fn histories_are_worth_something() {
    let (mut members, mut gone, mut void, mut overused, mut forked) = (0, 0, 0, 0, 0);
    let mut size = 0;
    let mut asides: HashMap<_, usize> = HashMap::new();
    let mut given = HashSet::new();
    for seed in 0..40 {
        let world = history(seed, false);
        let log = world.union();
        let state = log.state();
        size += log.len();
        members += state.members.len();
        gone += state.gone.len();
        void += state.void.len();
        overused += state
            .invites
            .values()
            .filter(|invite| invite.is_overused())
            .count();
        forked += log.forks().len();
        for reason in log.ops().filter_map(|op| log.set_aside(op.id())) {
            *asides.entry(reason).or_default() += 1;
        }
        given.extend(world.invitations.iter().map(|invitation| invitation.gives));
    }
    let seen = [members, gone, void, overused, forked];
    eprintln!(
        "members, gone, void, overused, forked: {seen:?}; set aside: {asides:?}; {size} operations"
    );
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?} {asides:?}");
    assert!(asides.len() > 3, "{asides:?}");
    assert_eq!(given.len(), 5, "{given:?}");
}
