//! A set of small numbers, for the pasts of operations.

/// A set of positions in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Returns whether `at` is in the set.
    pub fn has(&self, at: usize) -> bool {
        let word = self.0.get(at / 64).copied().unwrap_or_default();
        word >> (at % 64) & 1 == 1
    }

    /// Adds `at` to the set.
    pub fn set(&mut self, at: usize) {
        let word = at / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (at % 64);
    }

    /// Adds all that `other` has.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_and_unite() {
        let (mut a, mut b) = (Bits::default(), Bits::default());
        a.set(3);
        b.set(64);
        b.set(200);
        a.add(&b);
        let found: Vec<_> = (0..1000).filter(|at| a.has(*at)).collect();
        assert_eq!(found, [3, 64, 200]);
        assert!(!b.has(3));
    }
}
