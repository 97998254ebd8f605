//! The check of secrecy: what a writer seals stays closed to all who were out in its view, together.

use std::collections::{BTreeSet, HashMap, HashSet};

use larder_store_api::PublicKey;
use larder_sync_model::membership::{Body, BoxKey, Gone, Log, Op, OpId, State};

use crate::model::World;
impl World {
    /// Checks that all that was sealed is closed to those who were out, together.
    pub fn check_secrecy(&self) -> Result<(), String> {
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
            // Somebody else, who knew why a device was out, gave it rights again, or boxed something to it.
            let let_in_again = |key: PublicKey, by: &BTreeSet<OpId>, out: &BTreeSet<PublicKey>| {
                let mut boxes = self.public.boxes.iter().filter(|sealed| sealed.to == key);
                boxes.any(|sealed| {
                    let knew = |id: &OpId| {
                        let place = places[sealed.by].get(id);
                        place.is_some_and(|at| *at < sealed.knew)
                    };
                    let maker = self.actors[sealed.by].device.key;
                    !out.contains(&maker) && by.iter().all(knew)
                }) || given_again(&log, key, by, out)
            };
            // Whoever was let in again lets others in again.
            let mut out: BTreeSet<_> = write.out.keys().copied().collect();
            loop {
                let still = write.out.iter().filter(|(key, by)| match by.is_empty() {
                    true => !came_back(&log, &state, **key, by, &write.known),
                    false => !let_in_again(**key, by, &out),
                });
                let still: BTreeSet<_> = still.map(|(key, _)| *key).collect();
                if still == out {
                    break;
                }
                out = still;
            }
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
                        write.known.contains(&id) && (by.is_empty() || !by.iter().all(knew))
                    })
                });
                keys.extend(known.map(|(key, _)| *key));
                made.extend(&actor.made);
            }
            let together = self.actors.iter().enumerate();
            let together = together.filter(|(_, actor)| out.contains(&actor.device.key));
            let together = together.map(|(at, _)| at).collect();
            let [read, locate] = self.public.closure_without(&keys, &made, &together);
            if read.contains(&write.epoch) || locate.contains(&write.epoch) {
                return Err(self.leak(number, &log, &keys, &made, &out));
            }
        }
        Ok(())
    }
}

impl World {
    /// Tells what leads to an epoch that is open to those who were out, for who looks for the reason.
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

fn is_removal_of(log: &Log, by: OpId, device: PublicKey) -> bool {
    let body = log.get(by).map(Op::body);
    matches!(body, Some(Body::Remove(remove)) if remove.targets.contains(&device))
}

pub fn is_before(log: &Log, first: OpId, then: OpId) -> bool {
    past(log, then).contains(&first)
}

pub fn past(log: &Log, of: OpId) -> HashSet<OpId> {
    let mut found = HashSet::new();
    let mut next = vec![of];
    while let Some(op) = next.pop().and_then(|id| log.get(id)) {
        next.extend(op.content().after.iter().filter(|id| found.insert(**id)));
    }
    found
}

/// Returns whether somebody gave a device rights of which those with `known` do not know, in knowledge of all removals of the
/// device itself, and nothing made it void.
pub fn came_back(
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
        // Rights that ended with time alone may have begun again, and been made void only later.
        is_new && (by.is_empty() || !is_void(log, state, op)) && {
            let past = past(log, op.id());
            by.iter().all(|by| past.contains(by))
        }
    })
}

/// Returns whether a member gave a device rights again in knowledge of all these removals.
fn given_again(log: &Log, key: PublicKey, by: &BTreeSet<OpId>, out: &BTreeSet<PublicKey>) -> bool {
    log.ops().any(|op| {
        let gives = match op.body() {
            Body::Cap(cap) => cap.key == key,
            Body::Boxes(boxes) => boxes.recipient == key && boxes.claim != OpId::NONE,
            _ => false,
        };
        gives
            && log.set_aside(op.id()).is_none()
            && !out.contains(&op.content().author)
            && by.is_subset(&past(log, op.id()).into_iter().collect())
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
pub fn claim_of<'a>(log: &'a Log, op: &Op) -> Option<&'a Op> {
    match op.body() {
        Body::Boxes(boxes) => log.get(boxes.claim),
        _ => None,
    }
}

/// Tells what is said of a device, for who looks for the reason of a failure.
pub fn story(
    log: &Log,
    key: PublicKey,
    gone: &Gone,
    state: &State,
    known: &HashSet<OpId>,
) -> String {
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
