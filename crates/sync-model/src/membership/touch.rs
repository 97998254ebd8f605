//! Which operations a removal may make void in some view: few, so that nobody asks of all the others.

use super::{acts::Acts, body::Body, log::Log};

impl Log {
    /// Returns what an operation does, unless it is set aside.
    pub(super) fn acts(&self, at: usize) -> Option<&Acts> {
        self.nodes[at].verdict.as_ref().ok()
    }

    /// Returns the key that stands behind an operation: its author; of a claim, the invite.
    pub(super) fn giver(&self, at: usize) -> usize {
        let node = &self.nodes[at];
        if let (Body::Claim(_), Some(acts)) = (node.op.body(), self.acts(at))
            && let Some(grant) = self.grant(acts.proof)
        {
            return grant.receiver;
        }
        node.author
    }

    /// Returns the removals that make an operation void where they count: of who stands behind it, unknown to it and
    /// not knowing it; or with all to whom that one gave anything.
    pub(super) fn voiders(&self, at: usize) -> impl Iterator<Item = usize> {
        let node = &self.nodes[at];
        let gives = matches!(node.op.body(), Body::Cap(_) | Body::Claim(_));
        let is_voider = move |removal: &usize| {
            if *removal == at || node.past.has(*removal) {
                return false;
            }
            let with_invited = self.remove(*removal).is_some_and(|r| r.with_invited);
            !self.nodes[*removal].past.has(at) || (with_invited && gives)
        };
        let removals = self.subjects[self.giver(at)].removals.iter().copied();
        removals.filter(is_voider)
    }

    /// Marks what a new operation makes doubtful: itself, if it stands on what is; what a removal, or a claim of who
    /// was removed, may make void; and all that stands on that.
    pub(super) fn touch(&mut self, at: usize) {
        let Some(acts) = self.acts(at) else {
            return;
        };
        let is_removal = !acts.targets.is_empty();
        let is_claim = matches!(self.nodes[at].op.body(), Body::Claim(_));
        let of_removed = is_claim && !self.subjects[self.nodes[at].author].removals.is_empty();
        let first = if is_removal || of_removed {
            1
        } else {
            at.max(1)
        };
        for at in first..self.nodes.len() {
            let Some(acts) = self.acts(at).filter(|_| !self.nodes[at].is_touched) else {
                continue;
            };
            let is_touched = acts.parents().any(|parent| self.nodes[parent].is_touched)
                || self.voiders(at).next().is_some()
                || acts.admits.is_some_and(|claim| self.may_be_ended(claim))
                || self.is_target_of_hard(at);
            if is_touched {
                self.nodes[at].is_touched = true;
                self.touched.push(at);
            }
        }
    }

    /// Returns whether a removal may have ended the invite of this claim.
    fn may_be_ended(&self, claim: usize) -> bool {
        let Some(cap) = self.acts(claim).map(|acts| acts.proof) else {
            return false;
        };
        let claims = self
            .uses
            .get(&cap)
            .into_iter()
            .flat_map(|uses| &uses.claims);
        let users = claims.map(|claim| self.nodes[*claim].author);
        let invite = self.grant(cap).map(|grant| grant.receiver);
        let mut keys = users.chain(invite).chain([self.nodes[cap].author]);
        let past = &self.nodes[cap].past;
        keys.any(|key| {
            let mut removals = self.subjects[key].removals.iter();
            removals.any(|removal| !past.has(*removal))
        })
    }

    fn is_target_of_hard(&self, at: usize) -> bool {
        let giver = self.giver(at);
        let mut hard = self.hard.iter().filter_map(|hard| self.acts(*hard));
        hard.any(|hard| hard.targets.contains(&giver))
    }
}
