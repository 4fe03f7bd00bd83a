//! The random numbers of one rollout.

use clock::Seed;

/// Random numbers by what they are for: a rollout's key and the number of a draw give the draw, in any order, without
/// a state. So policies under the same key share their luck wherever they ask the same question, and a rollout is
/// found again by its index alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws(u64);

/// The golden ratio in 64 bits, SplitMix64's increment.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The keys of a service model's rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys(u64);

impl Keys {
    /// The keys of the rollouts of the service model `model`: the same for all policies and versions.
    pub fn new(seed: Seed, model: &str) -> Self {
        Keys(seed.child("whatif").child(model).value())
    }

    /// The draws of rollout `index`.
    #[inline]
    pub fn draws(self, index: u64) -> Draws {
        Draws(mix(self.0 ^ mix(index.wrapping_add(STRIDE))))
    }
}

impl Draws {
    /// The draws of rollout `index` of the service model `model`: the same for all policies and versions.
    pub fn new(seed: Seed, model: &str, index: u64) -> Self {
        Keys::new(seed, model).draws(index)
    }

    /// The uniform number in [0, 1) of a question.
    #[inline]
    pub fn uniform(self, question: u64) -> f64 {
        let bits = mix(self.0.wrapping_add(question.wrapping_add(1).wrapping_mul(STRIDE)));
        (bits >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// SplitMix64's finaliser.
#[inline]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_repeatable_and_apart() {
        let sum: f64 =
            (0..20_000).map(|index| Draws::new(Seed::new(7), "default", index / 4).uniform(index % 4)).sum();
        assert!((sum / 20_000.0 - 0.5).abs() < 0.01);
        let one = Draws::new(Seed::new(7), "default", 3);
        assert_eq!(one.uniform(5), Draws::new(Seed::new(7), "default", 3).uniform(5));
        assert_ne!(one, Draws::new(Seed::new(7), "other", 3));
        assert_ne!(one, Draws::new(Seed::new(8), "default", 3));
    }
}
