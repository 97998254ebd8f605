//! Which operations count together: what was said beside them may make them void.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use super::{acts::Acts, bits::Bits, log::Log};

/// The operations that count among some of a log: all, or the past of one.
pub(super) struct Judge<'a> {
    log: &'a Log,
    view: Option<&'a Bits>,
    /// Answers that were given: which removals count and which operations are good, 0 where it is not known yet,
    /// and what ends invites. Only for who asks about many.
    memo: Option<Memo>,
}

#[derive(Default)]
struct Memo {
    counts: Vec<Cell<u8>>,
    good: Vec<Cell<u8>>,
    enders: RefCell<HashMap<usize, Rc<BTreeSet<usize>>>>,
}

impl<'a> Judge<'a> {
    /// All of the log, or those in `view`, which has the past of each that it has.
    pub fn new(log: &'a Log, view: Option<&'a Bits>) -> Self {
        Self {
            log,
            view,
            memo: None,
        }
    }

    /// Remembers each answer.
    pub fn with_memo(log: &'a Log, view: Option<&'a Bits>) -> Self {
        let memo = Memo {
            counts: vec![Cell::new(0); log.nodes.len()],
            good: vec![Cell::new(0); log.nodes.len()],
            enders: RefCell::default(),
        };
        Self {
            memo: Some(memo),
            ..Self::new(log, view)
        }
    }

    pub fn has(&self, at: usize) -> bool {
        self.view.is_none_or(|view| view.has(at))
    }

    /// Returns whether a removal counts: it is in the view, and no hard one in it leaves it out.
    pub fn counts(&self, removal: usize) -> bool {
        self.has(removal)
            && self.remembered(
                |memo| &memo.counts[removal],
                || {
                    !self
                        .log
                        .hard
                        .iter()
                        .any(|hard| self.leaves_out(*hard, removal))
                },
            )
    }

    /// Returns whether a hard removal counts and leaves out this operation, or one on which it stands. It counts only
    /// against greater ranks, so that asking for it ends.
    fn leaves_out(&self, hard: usize, at: usize) -> bool {
        let by = self.log.acts(hard).filter(|_| self.has(hard));
        let Some(by) = by else {
            return false;
        };
        let mut next = vec![at];
        while let Some(at) = next.pop() {
            let Some(acts) = self.log.acts(at).filter(|acts| acts.rank > by.rank) else {
                continue;
            };
            if by.targets.contains(&self.log.giver(at)) && self.left_out(hard, &by.kept, at) {
                return self.counts(hard);
            }
            next.extend(acts.parents());
        }
        false
    }

    fn left_out(&self, hard: usize, kept: &[usize], at: usize) -> bool {
        let nodes = &self.log.nodes;
        let is_kept = |kept: &usize| *kept == at || nodes[*kept].past.has(at);
        !nodes[at].past.has(hard) && !kept.iter().any(is_kept)
    }

    /// Returns the removals that make an operation void: of who stands behind it, unknown to it and not knowing it;
    /// of who knew the invite with which somebody is let in, for that may be just that one; and hard ones.
    pub fn void_by(&self, at: usize) -> impl Iterator<Item = usize> {
        let removals = self.log.voiders(at);
        let removals = removals.filter(|removal| self.counts(*removal));
        let claim = self.log.acts(at).and_then(|acts| acts.admits);
        let claim = claim.and_then(|claim| self.log.acts(claim));
        let enders = claim
            .into_iter()
            .flat_map(|claim| self.direct_enders(claim.proof));
        let enders = enders.filter(move |removal| {
            !self.log.nodes[*removal].past.has(at) && !self.log.nodes[at].past.has(*removal)
        });
        let hard = self.log.hard.iter().copied();
        let hard = hard.filter(move |hard| self.leaves_out(*hard, at));
        removals.chain(enders).chain(hard)
    }

    /// Returns whether neither this operation nor one on which it stands is void.
    pub fn is_good(&self, at: usize) -> bool {
        let Some(acts) = self.log.acts(at) else {
            return false;
        };
        if at == 0 || !self.log.nodes[at].is_touched {
            return true;
        }
        self.remembered(
            |memo| &memo.good[at],
            || {
                let mut parents = acts.parents();
                self.void_by(at).next().is_none() && parents.all(|parent| self.is_good(parent))
            },
        )
    }

    /// Returns whether the receiver of a grant has what it gives, but for the time.
    pub fn holds(&self, grant: usize) -> bool {
        let given = self.log.grant(grant);
        given.is_some_and(|given| self.is_good(grant) && !self.is_ended(given.receiver, grant))
    }

    fn is_ended(&self, receiver: usize, grant: usize) -> bool {
        let mut removals = self.log.subjects[receiver].removals.iter();
        let past = &self.log.nodes[grant].past;
        removals.any(|removal| !past.has(*removal) && self.counts(*removal))
    }

    /// Returns whether somebody let in who made this claim.
    pub fn is_admitted(&self, claim: usize) -> bool {
        let admissions = self.log.admissions.get(&claim);
        let mut admissions = admissions.into_iter().flatten().copied();
        admissions.any(|by| self.has(by) && self.is_good(by))
    }

    /// Returns whether the invite of a cap can be used, but for its time and its uses.
    pub fn is_open(&self, cap: usize) -> bool {
        self.log.uses.contains_key(&cap) && self.holds(cap) && self.enders(cap).is_empty()
    }

    /// Returns the removals that end an invite: of itself, of who made it, and of all who used it, for they know its
    /// key. Those that it was made in knowledge of are not among them.
    fn enders(&self, cap: usize) -> Rc<BTreeSet<usize>> {
        let memo = self.memo.as_ref().map(|memo| &memo.enders);
        if let Some(known) = memo.and_then(|memo| memo.borrow().get(&cap).cloned()) {
            return known;
        }
        let mut found: BTreeSet<_> = self.direct_enders(cap).collect();
        for claim in self.claims(cap) {
            let outs = self.outs(self.log.nodes[claim].author);
            found.extend(outs.map(|(removal, _)| removal));
        }
        found.retain(|removal| !self.log.nodes[cap].past.has(*removal));
        let found = Rc::new(found);
        if let Some(memo) = memo {
            memo.borrow_mut().insert(cap, found.clone());
        }
        found
    }

    /// Those of the [`enders`](Self::enders) that name one of these keys.
    fn direct_enders(&self, cap: usize) -> impl Iterator<Item = usize> {
        let node = &self.log.nodes[cap];
        let receiver = self.log.grant(cap).map(|grant| grant.receiver);
        let users = self.claims(cap).map(|claim| self.log.nodes[claim].author);
        let keys = std::iter::once(node.author).chain(receiver).chain(users);
        let removals = keys
            .flat_map(|key| &self.log.subjects[key].removals)
            .copied();
        removals.filter(|removal| !node.past.has(*removal) && self.counts(*removal))
    }

    /// Returns the claims of an invite.
    pub fn claims(&self, cap: usize) -> impl Iterator<Item = usize> {
        let uses = self.log.uses.get(&cap);
        let claims = uses.into_iter().flat_map(|uses| &uses.claims).copied();
        claims.filter(|claim| self.has(*claim))
    }

    /// Returns the removals that took something from a device: of itself, or of those by whom it came; each with the
    /// operation that one must know to see this, if there is one beside the removal.
    pub fn outs(&self, device: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
        let subject = &self.log.subjects[device];
        let own = subject.removals.iter().copied();
        let own = own.filter(|removal| self.counts(*removal));
        let void = subject.grants.iter().copied();
        let void = void.filter(|at| self.has(*at) && !self.is_good(*at));
        let void = void.flat_map(|at| self.voids(at).into_iter().map(move |by| (by, Some(at))));
        own.map(|removal| (removal, None)).chain(void)
    }

    /// Returns the removals that make an operation, or one on which it stands, void.
    pub fn voids(&self, at: usize) -> BTreeSet<usize> {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut next = vec![at];
        while let Some(at) = next.pop() {
            if at != 0 && self.log.nodes[at].is_touched && seen.insert(at) {
                found.extend(self.void_by(at));
                next.extend(self.log.acts(at).into_iter().flat_map(Acts::parents));
            }
        }
        found
    }

    fn remembered(&self, place: impl Fn(&Memo) -> &Cell<u8>, ask: impl FnOnce() -> bool) -> bool {
        let Some(known) = self.memo.as_ref().map(place) else {
            return ask();
        };
        if known.get() == 0 {
            known.set(if ask() { 1 } else { 2 });
        }
        known.get() == 1
    }
}
