//! Who may come in: client certificates and bearer tokens.

use std::collections::BTreeMap;
use std::sync::RwLock;

use apiserver::{ApiServer, User};
use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::authority::{Certificate, provider};

/// The credentials that a testbed has given out. The authority signs nobody else's certificates, so they are known by
/// their bytes.
#[derive(Default)]
pub struct Credentials {
    certificates: RwLock<BTreeMap<Vec<u8>, User>>,
    tokens: RwLock<BTreeMap<String, User>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Lets the holder of a certificate in, as `user`.
    pub fn add_certificate(&self, certificate: &Certificate, user: User) {
        let mut known = self.certificates.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(certificate.der.to_vec(), user);
    }

    /// Lets the holder of a new random token in, as `user`; returns the token.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub fn add_token(&self, user: User) -> String {
        let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random::<24>());
        let mut known = self.tokens.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(token.clone(), user);
        token
    }

    pub(crate) fn of_certificate(&self, der: &[u8]) -> Option<User> {
        let known = self.certificates.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(der).cloned()
    }

    /// The user of an `Authorization` header; `Some(None)` is a token that nobody has.
    pub(crate) fn of_headers(&self, api: &ApiServer, headers: &HeaderMap) -> Option<Option<User>> {
        let header = headers.get(AUTHORIZATION)?.to_str().unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Some(None);
        }
        let known = self.tokens.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(known.get(token.trim()).cloned().or_else(|| api.authenticate(token.trim())))
    }
}

/// A number that nobody can guess.
///
/// # Panics
/// If the operating system has no randomness.
pub fn random_number() -> u64 {
    u64::from_le_bytes(random())
}

/// Bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    provider().secure_random.fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
