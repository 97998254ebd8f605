//! Which operations count together: what was said beside them may make them void.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use super::{bits::Bits, body::Body, log::Log};

/// The operations that count among some of a log: all, or the past of one.
pub(super) struct Judge<'a> {
    log: &'a Log,
    view: Option<&'a Bits>,
    /// Whether each removal counts and each operation is good, 0 where it is not known yet, and what ends invites.
    /// Only for who asks about many.
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

    /// Returns whether a hard removal counts and leaves out this operation, or one that gave its author the right.
    /// It counts only against greater ranks, so that asking for it ends.
    fn leaves_out(&self, hard: usize, at: usize) -> bool {
        if !self.has(hard) {
            return false;
        }
        let Ok(by) = &self.log.nodes[hard].verdict else {
            return false;
        };
        let mut at = at;
        while let Ok(acts) = &self.log.nodes[at].verdict
            && acts.rank > by.rank
        {
            if by.targets.contains(&self.giver(at)) && self.left_out(hard, &by.kept, at) {
                return self.counts(hard);
            }
            at = acts.proof;
        }
        false
    }

    fn left_out(&self, hard: usize, kept: &[usize], at: usize) -> bool {
        let nodes = &self.log.nodes;
        let is_kept = |kept: &usize| *kept == at || nodes[*kept].past.has(at);
        !nodes[at].past.has(hard) && !kept.iter().any(is_kept)
    }

    /// The key that stands behind an operation: its author; of a claim, the invite.
    fn giver(&self, at: usize) -> usize {
        let node = &self.log.nodes[at];
        if let (Body::Claim(_), Ok(acts)) = (node.op.body(), &node.verdict)
            && let Some(grant) = self.log.grant(acts.proof)
        {
            return grant.receiver;
        }
        node.author
    }

    /// Returns the removals that make an operation void: of who stands behind it, unknown to it and not knowing it,
    /// or hard.
    pub fn void_by(&self, at: usize) -> impl Iterator<Item = usize> {
        let nodes = &self.log.nodes;
        let gives = nodes[at].verdict.as_ref().map(|acts| acts.grant.is_some());
        let beside = move |removal: &usize| {
            if *removal == at || nodes[at].past.has(*removal) {
                return false;
            }
            let knew = nodes[*removal].past.has(at);
            let with_invited = self.log.remove(*removal).is_some_and(|r| r.with_invited);
            !knew || (with_invited && gives == Ok(true))
        };
        let removals = self.log.subjects[self.giver(at)].removals.iter().copied();
        let removals = removals
            .filter(beside)
            .filter(|removal| self.counts(*removal));
        let hard = self.log.hard.iter().copied();
        let hard = hard.filter(move |hard| self.leaves_out(*hard, at));
        removals.chain(hard).filter(move |_| gives.is_ok())
    }

    /// Returns whether neither this operation nor one that gave its author the right is void.
    pub fn is_good(&self, at: usize) -> bool {
        self.remembered(
            |memo| &memo.good[at],
            || {
                let Ok(acts) = &self.log.nodes[at].verdict else {
                    return false;
                };
                at == 0 || (self.void_by(at).next().is_none() && self.is_good(acts.proof))
            },
        )
    }

    /// Returns whether the receiver of a grant has what it gives, but for the time.
    pub fn holds(&self, grant: usize) -> bool {
        let Some(given) = self.log.grant(grant) else {
            return false;
        };
        let is_claim = matches!(self.log.nodes[grant].op.body(), Body::Claim(_));
        self.is_good(grant)
            && !self.is_ended(given.receiver, grant)
            && (!is_claim || self.is_admitted(grant))
    }

    fn is_ended(&self, receiver: usize, grant: usize) -> bool {
        let mut removals = self.log.subjects[receiver].removals.iter();
        let past = &self.log.nodes[grant].past;
        removals.any(|removal| !past.has(*removal) && self.counts(*removal))
    }

    /// Returns whether somebody let in who made this claim, before whatever ended the invite.
    pub fn is_admitted(&self, claim: usize) -> bool {
        let nodes = &self.log.nodes;
        let Ok(acts) = &nodes[claim].verdict else {
            return false;
        };
        let Some(admissions) = self.log.admissions.get(&claim) else {
            return false;
        };
        let enders = self.enders(acts.proof);
        let mut admissions = admissions.iter().copied();
        admissions.any(|by| {
            let knew = |removal: &usize| nodes[*removal].past.has(by);
            self.has(by) && self.is_good(by) && enders.iter().all(knew)
        })
    }

    /// Returns whether the invite of a cap can be used, but for its time and its uses.
    pub fn is_open(&self, cap: usize) -> bool {
        self.log.uses.contains_key(&cap) && self.holds(cap) && self.enders(cap).is_empty()
    }

    /// Returns the removals that end an invite: of itself, of who made it, and of all who used it, for they know its
    /// key. Those that it was made in knowledge of are not among them.
    pub fn enders(&self, cap: usize) -> Rc<BTreeSet<usize>> {
        let memo = self.memo.as_ref().map(|memo| &memo.enders);
        if let Some(known) = memo.and_then(|memo| memo.borrow().get(&cap).cloned()) {
            return known;
        }
        let node = &self.log.nodes[cap];
        let receiver = self.log.grant(cap).map(|grant| grant.receiver);
        let keys = [Some(node.author), receiver].into_iter().flatten();
        let removals = keys
            .flat_map(|key| &self.log.subjects[key].removals)
            .copied();
        let mut found: BTreeSet<_> = removals.filter(|removal| self.counts(*removal)).collect();
        for claim in self.claims(cap) {
            found.extend(
                self.outs(self.log.nodes[claim].author)
                    .map(|(removal, _)| removal),
            );
        }
        found.retain(|removal| !node.past.has(*removal));
        let found = Rc::new(found);
        if let Some(memo) = memo {
            memo.borrow_mut().insert(cap, found.clone());
        }
        found
    }

    /// Returns the claims of an invite.
    pub fn claims(&self, cap: usize) -> impl Iterator<Item = usize> {
        let uses = self.log.uses.get(&cap);
        let claims = uses.into_iter().flat_map(|uses| &uses.claims).copied();
        claims.filter(|claim| self.has(*claim))
    }

    /// Returns the removals that took something from a device: of itself, or of those by whom it came; each with an
    /// operation that one must know to see this, if there is one beside the removal.
    pub fn outs(&self, device: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
        let subject = &self.log.subjects[device];
        let own = subject.removals.iter().copied();
        let own = own.filter(|removal| self.counts(*removal));
        let grants = subject.grants.iter().copied();
        let given = grants.flat_map(|grant| {
            let admissions = self.log.admissions.get(&grant);
            let admissions = admissions.into_iter().flatten().copied();
            std::iter::once(grant).chain(admissions)
        });
        let void = given.filter(|at| self.has(*at) && !self.is_good(*at));
        let void = void.flat_map(|at| self.voids(at).into_iter().map(move |by| (by, Some(at))));
        own.map(|removal| (removal, None)).chain(void)
    }

    /// Returns the removals that make an operation, or one that gave its author the right, void.
    pub fn voids(&self, mut at: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        while at != 0
            && let Ok(acts) = &self.log.nodes[at].verdict
        {
            found.extend(self.void_by(at));
            at = acts.proof;
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
