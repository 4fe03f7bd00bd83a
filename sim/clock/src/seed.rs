//! Randomness: one printable seed, a stream per purpose.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The generator behind every stream: small, fast, and the same on every platform.
pub type Rng = Xoshiro256PlusPlus;

/// A run's seed, or a part of it narrowed to a purpose. Streams are keyed by name, so that a new draw for one
/// purpose shifts nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed that a user gives and a failing run prints.
    pub const fn new(seed: u64) -> Self {
        Seed(seed)
    }

    /// The seed's number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The seed of one purpose, e.g. a pod or a component; narrow it further or take a [`Seed::stream`].
    pub fn child(self, purpose: &str) -> Seed {
        // FNV-1a over the purpose, started from the parent's seed, then SplitMix64's finaliser: FNV alone leaves
        // the high bits of short names alike.
        let mut hash = self.0 ^ 0xcbf2_9ce4_8422_2325;
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Seed(hash ^ (hash >> 31))
    }

    /// The random stream of one purpose: the same seed and purpose give the same draws.
    pub fn stream(self, purpose: &str) -> Rng {
        Rng::seed_from_u64(self.child(purpose).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn streams_are_repeatable_and_apart() {
        let draw = |seed: u64, purpose: &str| Seed::new(seed).stream(purpose).next_u64();
        assert_eq!(draw(1, "routing"), draw(1, "routing"));
        assert_ne!(draw(1, "routing"), draw(1, "latency"));
        assert_ne!(draw(1, "routing"), draw(2, "routing"));
        assert_ne!(Seed::new(1).child("a").child("b"), Seed::new(1).child("ab"));
    }
}
