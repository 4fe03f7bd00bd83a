//! Random parts of object names, in the alphabet of Kubernetes' `generateName`: no vowels, so no words.

use clock::Rng;
use rand::RngExt as _;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest base of a generated name: a DNS label less the suffix.
const BASE_MAX: usize = 58;

/// `base` (cut to 58 characters) and five drawn characters.
pub(super) fn generated_name(base: &str, rng: &mut Rng) -> String {
    let mut name: String = base.chars().take(BASE_MAX).collect();
    name.extend((0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

/// Digits as characters of the alphabet (apimachinery's `SafeEncodeString`).
pub(super) fn safe_encode(digits: &str) -> String {
    digits.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}
