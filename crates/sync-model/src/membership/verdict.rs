//! The verdict on an operation, given once and by its own past.

use std::{collections::HashSet, sync::OnceLock};

use super::{
    MAX_CHAIN, MAX_DEPTH,
    acts::{Acts, Grant, Reason},
    body::{Body, Boxes, Cap, Remove},
    id::OpId,
    judge::Judge,
    log::{Log, Node, Uses, quota},
    rights::Rights,
};

/// The greatest rank whose removals may be hard: the root and its devices. Others' would only make it hard to
/// say which of two counts.
const MAX_HARD_RANK: u8 = 1;

impl Log {
    /// Judges an operation by its past.
    pub(super) fn judge(&self, at: usize) -> Result<Acts, Reason> {
        let node = &self.nodes[at];
        let content = node.op.content();
        if let Body::Genesis { .. } = content.body {
            return Ok(self.genesis(node));
        }
        let proof = self.place_of(content.proof);
        let proof = proof.filter(|at| node.past.has(*at)).ok_or(Reason::Proof)?;
        let before = Judge::new(self, Some(&node.past));
        let given = self.nodes[proof].verdict.as_ref().ok();
        let (given, grant) = given
            .and_then(|acts| Some((acts, acts.grant.as_ref()?)))
            .ok_or(Reason::Proof)?;
        let is_claim = matches!(content.body, Body::Claim(_));
        if grant.is_invite != is_claim || (!is_claim && grant.receiver != node.author) {
            return Err(Reason::Proof);
        }
        if !before.holds(proof) {
            return Err(Reason::Proof);
        }
        if content.seq >= quota(grant.rights) && node.author != self.nodes[0].author {
            return Err(Reason::Quota);
        }
        if !is_claim && grant.until.is_some_and(|until| content.time > until) {
            return Err(Reason::Expired);
        }
        let chain = given.chain + 1;
        if chain > MAX_CHAIN {
            return Err(Reason::Chain);
        }
        let mut acts = Acts {
            proof,
            rank: grant.rank(),
            owner: grant.owner,
            chain,
            grant: None,
            admits: None,
            targets: Vec::new(),
            kept: Vec::new(),
        };
        match &content.body {
            Body::Genesis { .. } => {}
            Body::Cap(cap) => acts.grant = Some(self.judge_cap(cap, proof, grant)?),
            Body::Claim(claim) => {
                if self.cap(proof).is_none_or(|cap| cap.key != claim.invite) {
                    return Err(Reason::Invite);
                }
            }
            Body::Remove(remove) => {
                acts.targets = self.judge_targets(remove, &acts, grant, &before);
                if acts.targets.is_empty() {
                    return Err(Reason::Targets);
                }
                let kept = remove.kept.iter().filter_map(|id| self.place_of(*id));
                acts.kept = kept.filter(|kept| node.past.has(*kept)).collect();
            }
            Body::Epoch(_) | Body::Succeed(_) => {
                if !grant.rights.covers(Rights::WRITE) {
                    return Err(Reason::Right);
                }
            }
            Body::Boxes(boxes) if boxes.claim == OpId::NONE => {}
            Body::Boxes(boxes) => {
                let (claim, grant) = self.judge_admission(boxes, node, &before)?;
                let chain = self.nodes[claim].verdict.as_ref().map(|acts| acts.chain);
                acts.chain = acts.chain.max(chain.unwrap_or_default() + 1);
                if acts.chain > MAX_CHAIN {
                    return Err(Reason::Chain);
                }
                acts.admits = Some(claim);
                acts.grant = Some(grant);
            }
            Body::Keys(_) => {}
        }
        Ok(acts)
    }

    fn genesis(&self, node: &Node) -> Acts {
        let owner = node.op.content().author;
        let grant = Grant {
            receiver: node.author,
            owner,
            is_invite: false,
            level: 0,
            rights: Rights::ADMIN,
            depth: MAX_DEPTH,
            prefixes: Vec::new(),
            until: None,
        };
        Acts {
            proof: 0,
            rank: 0,
            owner,
            chain: 0,
            grant: Some(grant),
            admits: None,
            targets: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn judge_cap(&self, cap: &Cap, proof: usize, from: &Grant) -> Result<Grant, Reason> {
        let is_invite = cap.invite.is_some();
        // A device says by a claim whose it is; otherwise anybody could say so, and remove it as one of theirs.
        // The root's word suffices: it outranks all.
        if cap.own && !is_invite && proof != 0 {
            return Err(Reason::Right);
        }
        if !cap.own && !from.rights.covers(Rights::INVITE) {
            return Err(Reason::Right);
        }
        let depth = if cap.own {
            Some(from.depth)
        } else {
            from.depth.checked_sub(1)
        };
        if !from.rights.covers(cap.rights)
            || depth.is_none_or(|depth| cap.depth > depth)
            || !covers_names(&from.prefixes, &cap.prefixes)
        {
            return Err(Reason::More);
        }
        // The rights that an invite gives end when the giver's do; when the invite ends is judged when
        // somebody is let in.
        let until = match (from.until, cap.until) {
            (Some(from), Some(cap)) if !is_invite => Some(from.min(cap)),
            (None, Some(cap)) if !is_invite => Some(cap),
            (from, _) => from,
        };
        let receiver = self.subject_of(cap.key).ok_or(Reason::Proof)?;
        Ok(Grant {
            receiver,
            owner: if is_invite || cap.own {
                from.owner
            } else {
                cap.key
            },
            is_invite,
            level: from.level.max(1) + u8::from(!cap.own),
            rights: cap.rights,
            depth: cap.depth,
            prefixes: cap.prefixes.clone(),
            until,
        })
    }

    /// Returns those whom the author may remove: invites that its owner made and devices of its owner, and, with
    /// the right to, those whom it outranks. Nobody removes the root.
    fn judge_targets(
        &self,
        remove: &Remove,
        acts: &Acts,
        own: &Grant,
        before: &Judge<'_>,
    ) -> Vec<usize> {
        let may_remove = own.rights.covers(Rights::REMOVE);
        let targets = remove
            .targets
            .iter()
            .filter_map(|key| self.subject_of(*key));
        let mut targets: Vec<_> = targets
            .filter(|target| {
                if *target == self.nodes[0].author {
                    return false;
                }
                let known = self.subjects[*target].grants.iter().copied();
                let known = known.filter(|grant| before.has(*grant));
                let known: Vec<_> = known.filter_map(|at| Some((at, self.grant(at)?))).collect();
                // Of all that it holds, for a key may be named as if it were an invite of the author's.
                let may = |grant: &Grant| {
                    grant.owner == acts.owner || (may_remove && acts.rank < grant.rank())
                };
                known.iter().any(|(_, grant)| may(grant))
                    && known
                        .iter()
                        .all(|(at, grant)| may(grant) || !before.holds(*at))
            })
            .collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// Returns the claim that an operation answers, and what its device gets.
    fn judge_admission(
        &self,
        boxes: &Boxes,
        node: &Node,
        before: &Judge<'_>,
    ) -> Result<(usize, Grant), Reason> {
        let claim = self.place_of(boxes.claim).filter(|at| node.past.has(*at));
        let claim = claim.ok_or(Reason::Invite)?;
        let claimed = &self.nodes[claim];
        let (Body::Claim(_), Ok(acts)) = (claimed.op.body(), &claimed.verdict) else {
            return Err(Reason::Invite);
        };
        let at = acts.proof;
        let (Some(cap), Some(given)) = (self.cap(at), self.grant(at)) else {
            return Err(Reason::Invite);
        };
        if cap.confirm {
            return Err(Reason::Confirm);
        }
        let time = node.op.content().time;
        if claimed.op.content().author != boxes.recipient
            || cap.until.is_some_and(|until| time > until)
            || !before.is_open(at)
        {
            return Err(Reason::Invite);
        }
        let admitted = self.uses.get(&at).map(|uses| &uses.admitted);
        let admitted = admitted.filter(|all| all.len() >= usize::from(cap.uses));
        let others = admitted.into_iter().flatten();
        let others = others.filter(|(other, by)| *other != claim && node.past.has(*by));
        let others: HashSet<_> = others.map(|(other, _)| other).collect();
        if others.len() >= usize::from(cap.uses) {
            return Err(Reason::Invite);
        }
        let grant = Grant {
            receiver: claimed.author,
            owner: if cap.own {
                given.owner
            } else {
                boxes.recipient
            },
            is_invite: false,
            ..given.clone()
        };
        Ok((claim, grant))
    }

    /// Files an operation that counts in its past where others look for it.
    pub(super) fn note(&mut self, at: usize) {
        let Ok(acts) = &self.nodes[at].verdict else {
            return;
        };
        let (proof, admits, targets) = (acts.proof, acts.admits, acts.targets.clone());
        let is_hard = acts.rank <= MAX_HARD_RANK;
        let receiver = acts.grant.as_ref().map(|grant| grant.receiver);
        let op = self.nodes[at].op.clone();
        if let Some(receiver) = receiver {
            self.subjects[receiver].grants.push(at);
        }
        match op.body() {
            Body::Cap(cap) if cap.invite.is_some() => {
                self.uses.insert(at, Uses::default());
            }
            Body::Claim(_) => {
                self.uses.entry(proof).or_default().claims.push(at);
            }
            Body::Remove(remove) => {
                self.removals.push(at);
                if remove.hard && is_hard {
                    self.hard.push(at);
                }
                for target in targets {
                    self.subjects[target].removals.push(at);
                }
            }
            _ => {}
        }
        if op.body().keys().is_some() {
            let author = self.nodes[at].author;
            self.subjects[author].told.push(at);
        }
        if op.body().repo().is_some() {
            self.repos.push(at);
        }
        if let Some(claim) = admits {
            self.admissions.entry(claim).or_default().push(at);
            if let Ok(acts) = &self.nodes[claim].verdict
                && let Some(uses) = self.uses.get_mut(&acts.proof)
            {
                uses.admitted.push((claim, at));
            }
        }
        if op.body().epoch().is_some() {
            self.epochs.push((at, OnceLock::new()));
        }
    }

    pub(super) fn grant(&self, at: usize) -> Option<&Grant> {
        self.nodes[at].verdict.as_ref().ok()?.grant.as_ref()
    }

    pub(super) fn cap(&self, at: usize) -> Option<&Cap> {
        match self.nodes[at].op.body() {
            Body::Cap(cap) => Some(cap),
            _ => None,
        }
    }

    pub(super) fn remove(&self, at: usize) -> Option<&Remove> {
        match self.nodes[at].op.body() {
            Body::Remove(remove) => Some(remove),
            _ => None,
        }
    }
}

/// Returns whether each of `names` begins as one of `from`, of which none means all names.
fn covers_names(from: &[String], names: &[String]) -> bool {
    let begins = |name: &String| from.iter().any(|from| name.starts_with(from.as_str()));
    from.is_empty() || (!names.is_empty() && names.iter().all(begins))
}
