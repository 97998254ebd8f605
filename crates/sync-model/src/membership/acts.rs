//! The effect of an operation, and the reasons why it has none.

use larder_store_api::PublicKey;

use super::rights::Rights;

/// The reason why an operation does nothing, judged by its own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its number is not the next one of its author.
    Number,
    /// Its author has said more than it may.
    Quota,
    /// Its proof gives its author nothing, or not any more.
    Proof,
    /// The proofs before it are too many.
    Chain,
    /// The rights of its author had ended.
    Expired,
    /// Its author lacks the right to say this.
    Right,
    /// It gives more than its author has.
    More,
    /// The invite is another, had ended, or is used up.
    Invite,
    /// The invite wants a cap for the device, which is given by who may invite.
    Confirm,
    /// There is nobody in it whom its author may remove.
    Targets,
}

/// The effect of an operation.
#[derive(Debug, Clone)]
pub(super) struct Acts {
    /// The place of its proof; of the genesis, its own.
    pub proof: usize,
    /// The rank of its author under that proof: the lesser removes the greater.
    pub rank: u8,
    /// The key of the author's owner.
    pub owner: PublicKey,
    /// The number of operations before it, each of which stands on the next.
    pub chain: u16,
    pub grant: Option<Grant>,
    /// The place of the claim that it answers.
    pub admits: Option<usize>,
    /// The places of the keys that it removes.
    pub targets: Vec<usize>,
    /// Of a hard removal, the places of the last operations that count.
    pub kept: Vec<usize>,
}

/// Rights, as an operation gives them.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// The place of the key that gets them: a device or an invite.
    pub receiver: usize,
    /// The owner of the device; of an invite, that of who made it.
    pub owner: PublicKey,
    pub is_invite: bool,
    /// The distance from the root.
    pub level: u8,
    pub rights: Rights,
    pub depth: u8,
    pub prefixes: Vec<String>,
    pub until: Option<i64>,
}

impl Grant {
    /// Those who may not remove come after all who may, so that whoever may can remove them.
    pub fn rank(&self) -> u8 {
        let may_remove = self.rights.covers(Rights::REMOVE);
        self.level + if may_remove { 0 } else { 16 }
    }
}

impl Acts {
    /// Returns the operations on which it stands: the proof of its author, and the claim that it answers.
    pub(super) fn parents(&self) -> impl Iterator<Item = usize> + use<> {
        std::iter::once(self.proof).chain(self.admits)
    }
}
