//! Requests that belong together to the same backend: weighted rendezvous hashing.
//!
//! Each backend draws a number from the key and its own name, and the highest wins. So a backend that goes takes
//! nothing but its own share with it, one that comes takes its share evenly from all others, and a change of weight
//! moves only the difference; there is no table to build anew when an eligibility changes, and all gateways of a fleet
//! agree, for names and keys alone count. A ring or a Maglev table looks up faster, which pays off from hundreds of
//! backends on; a region has 64 at most. A key that is too popular is bounded by `max_connections`: what is over it goes
//! to the backend that comes second for that key.

use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::set::Set;
use crate::settings::HashBy;

/// What requests that belong together have in common.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum KeyBy {
    Client,
    Header(HeaderName),
    Cookie(Box<str>),
}

impl KeyBy {
    /// `None` where the name of a header cannot be one, which the settings refuse.
    pub(in crate::proxy) fn new(by: &HashBy) -> Option<Self> {
        Some(match by {
            HashBy::Client => Self::Client,
            HashBy::Header(name) => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            HashBy::Cookie(name) => Self::Cookie(Box::from(name.as_str())),
        })
    }

    /// A request's key. One that lacks the header or cookie, or has it empty, goes by its client's address.
    pub(in crate::proxy) fn of(&self, headers: &HeaderMap, client: IpAddr) -> u64 {
        let found = match self {
            Self::Client => None,
            Self::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Self::Cookie(name) => cookie(headers, name),
        };
        match (found.filter(|value| !value.is_empty()), client.to_canonical()) {
            (Some(value), _) => digest(value),
            (None, IpAddr::V4(client)) => digest(&client.octets()),
            (None, IpAddr::V6(client)) => digest(&client.octets()),
        }
    }
}

/// The first value of a cookie (RFC 6265, 5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The backend whose draw is the highest.
pub(super) fn rendezvous(
    open: Set,
    key: u64,
    name: impl Fn(usize) -> u64,
    weight: impl Fn(usize) -> u32,
) -> Option<usize> {
    let score = |index: usize| {
        // Exponentially distributed, so that the chance to be the lowest is the weight's share of all.
        let drawn = u32::try_from(mix(key ^ name(index)) >> 32).unwrap_or_default();
        // Above 0, and 1 at most.
        let uniform = (f64::from(drawn) + 1.0) / (f64::from(u32::MAX) + 1.0);
        -uniform.ln() / f64::from(weight(index).max(1))
    };
    let mut best: Option<(usize, f64)> = None;
    for index in open.iter() {
        let score = score(index);
        if best.is_none_or(|(_, least)| score < least) {
            best = Some((index, score));
        }
    }
    best.map(|(index, _)| index)
}

/// A number for a text, the same in every process (FNV-1a, its bits mixed).
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    mix(bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Spreads every bit over all others (the finalizer of `SplitMix64`).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "b:4001", "b:4002"];

    fn pick(open: Set, key: u64, weights: &[u32]) -> usize {
        let name = |index: usize| digest(NAMES[index].as_bytes());
        rendezvous(open, key, name, |index| weights[index]).unwrap()
    }

    fn all() -> Set {
        (0..NAMES.len()).collect()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..20_000_u32).map(|user| digest(format!("user-{user}").as_bytes()))
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [4_000, 2_000, 1_000, 1_000, 2_000];
        let mut tally = [0_u32; 5];
        keys().for_each(|key| tally[pick(all(), key, &weights)] += 1);
        for (got, weight) in tally.iter().zip(weights) {
            assert!(got.abs_diff(weight * 2) < 300, "{tally:?}");
        }
    }

    #[test]
    fn a_backend_that_goes_moves_its_own_share_alone() {
        let weights = [1_000; 5];
        let mut moved = [0_u32; 5];
        for key in keys() {
            let before = pick(all(), key, &weights);
            let after = pick(all().without(Set::from_iter([2])), key, &weights);
            if before == 2 {
                moved[after] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        for (index, moved) in moved.iter().enumerate().filter(|(index, _)| *index != 2) {
            assert!(moved.abs_diff(1_000) < 200, "{index} gets {moved} of what 2 had");
        }
    }

    #[test]
    fn a_weight_that_grows_only_draws() {
        for key in keys().take(5_000) {
            let before = pick(all(), key, &[1_000; 5]);
            let after = pick(all(), key, &[1_000, 1_500, 1_000, 1_000, 1_000]);
            assert!(after == before || after == 1);
        }
    }

    #[test]
    fn the_key_is_a_header_a_cookie_or_the_client() {
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let key = |by: &HashBy, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            KeyBy::new(by).unwrap().of(&map, client)
        };
        let of_client = digest(&[192, 0, 2, 7]);
        assert_eq!(key(&HashBy::Client, &[]), of_client);
        let header = HashBy::Header("X-User".to_owned());
        assert_eq!(key(&header, &[("x-user", "ann")]), digest(b"ann"));
        assert_eq!(key(&header, &[("x-other", "ann")]), of_client);
        assert_eq!(key(&header, &[("x-user", "")]), of_client);
        let cookie = HashBy::Cookie("sid".to_owned());
        assert_eq!(key(&cookie, &[("cookie", "a=1; sid=s7;b=2")]), digest(b"s7"));
        assert_eq!(key(&cookie, &[("cookie", "a=1"), ("cookie", "sid=s7")]), digest(b"s7"));
        for other in ["xsid=1", "sidx=1", "SID=1", "sid", "sid=", ";;", "a=sid=s7"] {
            assert_eq!(key(&cookie, &[("cookie", other)]), of_client, "{other}");
        }
        let mapped = KeyBy::Client.of(&HeaderMap::new(), "::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(mapped, of_client, "however the listener shows the address");
    }

    #[test]
    fn every_process_agrees() {
        assert_eq!(digest(b"user-1"), digest(b"user-1"));
        assert_eq!(digest(b""), mix(0xcbf2_9ce4_8422_2325));
        let picks: Vec<usize> = keys().take(8).map(|key| pick(all(), key, &[1_000; 5])).collect();
        assert_eq!(
            picks,
            [1, 3, 1, 1, 4, 0, 4, 4],
            "written down, so that no change goes unnoticed"
        );
    }

    proptest! {
        #[test]
        fn the_order_of_the_settings_does_not_matter(key in any::<u64>(), turn in 0_usize..5) {
            let name = |index: usize| digest(NAMES[(index + turn) % 5].as_bytes());
            let turned = rendezvous(all(), key, name, |_| 1_000).unwrap();
            prop_assert_eq!((turned + turn) % 5, pick(all(), key, &[1_000; 5]));
        }
    }
}
