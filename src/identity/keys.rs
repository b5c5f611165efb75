//! API keys: from what a request shows to the key's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::bearer;
use crate::settings::{ApiKey, KeyText};

type Digest = [u8; 32];

/// The keys of the configuration, as digests.
#[derive(Debug)]
pub struct Keys {
    known: Vec<(Arc<str>, Digest)>,
}

/// One of the [`Keys`], for lists that run beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(usize);

impl KeyId {
    /// The place in [`Keys::names`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Why a request is nobody's. The text says what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    #[error("no API key is configured here: set API_KEY, or a key in [api.keys], and start again")]
    NoKeys,
    #[error("send an API key, as Authorization: Bearer KEY")]
    Missing,
    #[error("this API key is not known here: send one of those that are configured")]
    Unknown,
}

impl Keys {
    pub fn new(configured: &BTreeMap<String, ApiKey>) -> Self {
        let known = configured
            .iter()
            .filter_map(|(name, key)| Some((Arc::from(name.as_str()), digest_of(key)?)))
            .collect();
        Self { known }
    }

    /// The names of all keys, in the order of their ids.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.iter().map(|(name, _)| name)
    }

    pub fn name(&self, id: KeyId) -> Option<&Arc<str>> {
        self.known.get(id.0).map(|(name, _)| name)
    }

    /// Whose key a request shows.
    ///
    /// # Errors
    /// Where it shows none, or one that is not configured.
    pub fn verify(&self, headers: &HeaderMap) -> Result<KeyId, Unauthorized> {
        if self.known.is_empty() {
            return Err(Unauthorized::NoKeys);
        }
        let shown = sha256(bearer(headers).ok_or(Unauthorized::Missing)?);
        // All of them, to the end: how long it takes tells nothing.
        let mut found = None;
        for (index, (_, digest)) in self.known.iter().enumerate() {
            if is_same(digest, &shown) {
                found = Some(KeyId(index));
            }
        }
        found.ok_or(Unauthorized::Unknown)
    }
}

fn is_same(one: &Digest, other: &Digest) -> bool {
    one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

fn sha256(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

/// `None` for a digest that is none, which the settings have refused.
fn digest_of(key: &ApiKey) -> Option<Digest> {
    let digits = match key.expose() {
        KeyText::Secret(secret) => return Some(sha256(secret)),
        KeyText::Digest(digits) => digits,
    };
    let mut digest = Digest::default();
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn keys(configured: &[(&str, &str)]) -> Keys {
        let configured =
            configured.iter().map(|(name, key)| ((*name).to_owned(), ApiKey::new(*key)));
        Keys::new(&configured.collect())
    }

    fn verify(keys: &Keys, shown: Option<&str>) -> Result<String, Unauthorized> {
        let mut headers = HeaderMap::new();
        if let Some(shown) = shown {
            let line = HeaderValue::from_str(&format!("Bearer {shown}")).unwrap();
            headers.insert(AUTHORIZATION, line);
        }
        keys.verify(&headers).map(|id| keys.name(id).unwrap().to_string())
    }

    #[test]
    fn a_key_is_known_by_itself_or_by_its_digest() {
        // The first example of FIPS 180.
        let digest = "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let keys = keys(&[("a", digest), ("b", "secret"), ("broken", "sha256:00")]);
        assert_eq!(verify(&keys, Some("abc")), Ok("a".to_owned()));
        assert_eq!(verify(&keys, Some("secret")), Ok("b".to_owned()));
        for wrong in ["abcd", "ab", "Secret", digest, "sha256:00"] {
            assert_eq!(verify(&keys, Some(wrong)), Err(Unauthorized::Unknown), "{wrong}");
        }
        assert_eq!(verify(&keys, None), Err(Unauthorized::Missing));
    }

    #[test]
    fn without_keys_nobody_is_let_in() {
        assert_eq!(verify(&keys(&[]), Some("")), Err(Unauthorized::NoKeys));
        assert!(!format!("{:?}", keys(&[("a", "secret")])).contains("secret"));
    }
}
