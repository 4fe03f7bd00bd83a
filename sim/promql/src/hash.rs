//! A hasher with fixed keys: fast on short strings and the same in every process.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`FixedHasher`]s; for `IndexMap`s whose keys come from series, not from an adversary.
pub type FixedState = BuildHasherDefault<FixedHasher>;

/// Multiply-rotate over eight-byte words (the "Fx" scheme), finished with a shift so that low bits are mixed too.
#[derive(Default, Clone, Copy)]
pub struct FixedHasher(u64);

const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

impl FixedHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(u64::from_le_bytes(word.try_into().expect("chunks of eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0u8; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last) ^ ((rest.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
