//! Making operations: what a member signs, given what it knows.

use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};
use larder_store_engine::public_key;

use super::{
    MAX_AFTER,
    bits::Bits,
    body::{Body, Cap, Claim, DeviceKeys},
    id::OpId,
    judge::Judge,
    log::Log,
    op::{Content, Op},
    rights::Rights,
    sign::sign_claim,
};

const SIGN: &str = "membership.sign";

impl Op {
    /// The beginning of a group, signed by its root.
    pub fn genesis(root: &SecretKey, nonce: [u8; 32], time: i64) -> Result<Self> {
        let content = Content {
            group: OpId::NONE,
            author: public_key(root),
            proof: OpId::NONE,
            seq: 0,
            time,
            after: Vec::new(),
            body: Body::Genesis { nonce },
        };
        Self::sign(root, content)
    }
}

impl Cap {
    /// Rights for a device.
    pub fn device(key: PublicKey, rights: Rights, depth: u8) -> Self {
        Self {
            key,
            invite: None,
            own: false,
            confirm: false,
            rights,
            depth,
            uses: 0,
            until: None,
            prefixes: Vec::new(),
        }
    }
}

impl Log {
    /// Signs a statement in knowledge of all that is here, with the best right that the author has to it; without
    /// any, [`Kind::Denied`]. It is not added.
    ///
    /// A claim is made by [`sign_claim`](Self::sign_claim). What it says is not checked: an operation that is set
    /// aside says why in [`set_aside`](Self::set_aside).
    pub fn sign(&self, author: &SecretKey, body: Body, time: i64) -> Result<Op> {
        let key = public_key(author);
        let needed = match &body {
            Body::Cap(cap) if cap.own => cap.rights,
            Body::Cap(cap) => cap.rights | Rights::INVITE,
            Body::Remove(remove) if !remove.leave => Rights::REMOVE,
            Body::Epoch(_) | Body::Succeed(_) => Rights::WRITE,
            _ => Rights::NONE,
        };
        let judge = Judge::with_memo(self, None);
        let grants = self
            .subject_of(key)
            .map(|at| self.subjects[at].grants.iter());
        let mut grants: Vec<_> = grants
            .into_iter()
            .flatten()
            .filter_map(|at| {
                let grant = self.grant(*at).filter(|grant| !grant.is_invite)?;
                let ended = grant.until.is_some_and(|until| time > until);
                let lacks = !grant.rights.covers(needed);
                let order = (lacks, grant.rank(), self.nodes[*at].op.id());
                (judge.holds(*at) && !ended).then_some(order)
            })
            .collect();
        grants.sort_unstable();
        let Some((_, _, proof)) = grants.first() else {
            let message = "this device is not a member of the group";
            return Err(Error::new(Kind::Denied, SIGN, message).with("device", key));
        };
        self.sign_with(author, *proof, body, time)
    }

    /// Signs the claim of an invite, whose secret is in the link; [`Kind::NotFound`] if it is not here.
    pub fn sign_claim(
        &self,
        device: &SecretKey,
        invite: &SecretKey,
        keys: DeviceKeys,
        time: i64,
    ) -> Result<Op> {
        let key = public_key(invite);
        let caps = self
            .subject_of(key)
            .map(|at| self.subjects[at].grants.iter());
        let mut caps = caps.into_iter().flatten();
        let Some(cap) = caps.find(|at| self.uses.contains_key(at)) else {
            let message = "nobody here knows of this invite yet";
            return Err(Error::new(Kind::NotFound, SIGN, message).with("invite", key));
        };
        let cap = self.nodes[*cap].op.id();
        let claim = Claim {
            invite: key,
            signature: sign_claim(invite, self.group(), cap, public_key(device)),
            keys,
        };
        self.sign_with(device, cap, Body::Claim(claim), time)
    }

    /// Signs a statement with a given proof.
    pub fn sign_with(&self, author: &SecretKey, proof: OpId, body: Body, time: i64) -> Result<Op> {
        let key = public_key(author);
        let own = self.subject_of(key).map(|at| &self.subjects[at].ops);
        let mut heads: Vec<usize> = self
            .heads()
            .iter()
            .filter_map(|id| self.place_of(*id))
            .collect();
        // The heads that the author came after last are named in any case; of the others, the latest.
        let last = own.and_then(|own| own.last().copied());
        heads.sort_unstable_by_key(|head| {
            let is_own = last.is_some_and(|last| last == *head || self.nodes[*head].past.has(last));
            let has_proof = self
                .place_of(proof)
                .is_some_and(|proof| proof == *head || self.nodes[*head].past.has(proof));
            (!is_own, !has_proof, std::cmp::Reverse(*head))
        });
        heads.truncate(MAX_AFTER);
        let mut past = Bits::default();
        for head in &heads {
            past.add(&self.nodes[*head].past);
            past.set(*head);
        }
        let own = own.into_iter().flatten().filter(|at| past.has(**at));
        let last = own.map(|at| self.nodes[*at].op.content().seq).max();
        let content = Content {
            group: self.group(),
            author: key,
            proof,
            seq: last.map_or(0, |last| last.saturating_add(1)),
            time,
            after: heads.iter().map(|at| self.nodes[*at].op.id()).collect(),
            body,
        };
        Op::sign(author, content)
    }
}
