//! Members who come and go: signed operations, and what a set of them means.
//!
//! A group is a grow-only set of [`Op`]s, each of which names those that its author knew. [`Log`] takes them in any
//! order and says what holds: [`Log::state`] is a function of the set alone. Nothing that others signed is an
//! error here: what does not count is set aside, with a [`Reason`].
//!
//! * *Rights* begin with the root, whose key signs the genesis, and are handed on by caps, never more than the
//!   giver has. Every operation names its *proof*: the cap or claim from which its author has the right to it.
//! * *Removals* win over whatever happens beside them, and only who outranks somebody removes them. The rank is
//!   the distance from the root; those who may not remove come after all who may.
//! * *Epochs* are random secrets, boxed to the devices that are members in their past. [`Log::usable`] has those
//!   under which may be sealed: their past has every removal in force, so that nobody who was removed, and no
//!   link that such a person knows, can open what is sealed under them.
//!
//! `docs/design/0012-membership.md` says why.

mod acts;
mod bits;
mod body;
mod epoch;
mod exchange;
mod id;
mod judge;
mod log;
mod op;
mod repos;
mod rights;
mod saw;
mod secret;
mod sign;
mod state;
mod touch;
mod verdict;
mod write;

pub use self::{
    acts::Reason,
    body::{
        BOX_LEN, Body, BoxKey, Boxes, Cap, Claim, DeviceKeys, Epoch, FrozenRoot, Link, Remove,
        RepoProof, SealedBox, Succeed,
    },
    epoch::{Recipient, Recipients},
    exchange::MAX_KNOWN,
    id::OpId,
    log::{Added, Log, Refused},
    op::{Content, Op, VERSION},
    rights::Rights,
    saw::{Behind, MAX_SEEN, Saw, SeenRepo},
    secret::{
        BoxSecret, EpochSecret, MAX_LIST_LEN, box_at, is_locate_of, open_link, open_link_locate,
        seal_locate_box,
    },
    sign::{sign_claim, sign_repo, sign_session, verify_session},
    state::{Gone, Held, Invite, Member, State},
};

/// The longest operation, in bytes.
pub const MAX_OP_LEN: usize = 16 * 1024;

/// The most operations of a group.
pub const MAX_OPS: usize = 16_384;

/// The last of them are for those who may remove.
pub const RESERVED_OPS: usize = 1024;

/// The most operations of an author who may not invite.
pub const MAX_OWN_OPS: u32 = 256;

/// The most operations of an author who may invite; the root has no limit of its own.
pub const MAX_ADMIN_OPS: u32 = 8192;

/// The most operations that wait for those before them.
pub const MAX_WAITING: usize = 1024;

/// The most operations that one names as those before it.
pub const MAX_AFTER: usize = 32;

/// The furthest that an operation's time may be ahead of the clock of who takes it, in milliseconds: a day, for clocks
/// of another time zone.
pub const MAX_AHEAD: i64 = 24 * 60 * 60 * 1000;

/// The most times that rights may be handed on.
pub const MAX_DEPTH: u8 = 8;

/// The most operations, each standing on the next, between one and the genesis.
pub const MAX_CHAIN: u16 = 256;

/// The most targets of a removal.
pub const MAX_TARGETS: usize = 256;

/// The most roots that a removal freezes.
pub const MAX_FROZEN: usize = 32;

/// The longest root that a removal freezes, in bytes.
pub const MAX_ROOT_LEN: usize = 4096;

/// The most operations that a hard removal names as the last that count.
pub const MAX_KEPT: usize = 32;

/// The most devices that may use one invite.
pub const MAX_USES: u16 = 256;

/// The most prefixes of a cap.
pub const MAX_PREFIXES: usize = 16;

/// The most links of an epoch.
pub const MAX_LINKS: usize = 24;

/// The most boxes of an operation.
pub const MAX_BOXES: usize = 24;

/// The most open invites to which an epoch is boxed.
pub const MAX_OPEN_INVITES: usize = 64;
