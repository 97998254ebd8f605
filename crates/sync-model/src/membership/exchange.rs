//! The facts that peers tell each other of their logs.

use super::{Log, Op, OpId, bits::Bits};

/// The most operations by which a peer says what it has.
pub const MAX_KNOWN: usize = 96;

/// The most of them that are heads; the others are steps back, each twice as far as the one before.
const MAX_HEADS: usize = 64;

impl Log {
    /// Returns operations by which a peer can tell what is here: the latest, and some before them, ever fewer. If it
    /// knows one of them, it has all before that too. So two that have written beside each other find what they
    /// have in common, and send about that much more.
    pub fn known(&self) -> Vec<OpId> {
        let mut known: Vec<OpId> = self.heads().iter().copied().take(MAX_HEADS).collect();
        let (mut back, len) = (1, self.len());
        while back < len && known.len() < MAX_KNOWN {
            known.push(self.nodes[len - back].op.id());
            back *= 2;
        }
        known.push(self.group());
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Returns these operations and all before them, each after those before it.
    pub fn up_to(&self, last: impl IntoIterator<Item = OpId>) -> Vec<&Op> {
        let mut all = Bits::default();
        for place in last.into_iter().filter_map(|id| self.place_of(id)) {
            all.add(&self.nodes[place].past);
            all.set(place);
        }
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter(|(at, _)| all.has(*at));
        nodes.map(|(_, node)| &node.op).collect()
    }

    /// Returns the operations from this place on, in the order in which they came.
    pub fn from_place(&self, place: usize) -> impl Iterator<Item = &Op> {
        self.nodes.iter().skip(place).map(|node| &node.op)
    }

    /// Returns the first epoch of the group: the one before which there is none. Only the root, or its first device
    /// before it invited anybody, could make several; then it is the one with the least name.
    pub fn first_epoch(&self) -> Option<OpId> {
        let counts = |at: &usize| self.nodes[*at].verdict.is_ok();
        let epochs = self.epochs.iter().map(|(at, _)| *at).filter(counts);
        let is_first = |at: &usize| {
            let past = &self.nodes[*at].past;
            let mut others = self.epochs.iter().map(|(other, _)| *other);
            !others.any(|other| counts(&other) && past.has(other))
        };
        epochs
            .filter(is_first)
            .map(|at| self.nodes[at].op.id())
            .min()
    }
}
