//! How many gateways a request has passed, and whether this one is among them: `Via` (RFC 9110, 7.6.3) and
//! `Max-Forwards` (7.6.2).
//!
//! Pure. A field of earlier hops is only counted and never rewritten; this hop's entry is a line of its own behind it.
//! Where the operator wants no name to be seen, the count travels alone in `x-gateway-hops`.

use http::header::{HeaderName, MAX_FORWARDS, VIA};
use http::{HeaderMap, HeaderValue, Method, Version};

use super::error::ForwardError;

/// The count of hops, where gateways do not name themselves.
static X_GATEWAY_HOPS: HeaderName = HeaderName::from_static("x-gateway-hops");

/// How this process names itself.
#[derive(Clone, Debug)]
pub(super) struct Hops {
    name: Option<Name>,
    max: u8,
}

/// The entries of `Via` by the version that was received.
#[derive(Clone, Debug)]
struct Name {
    bare: Box<str>,
    http_10: HeaderValue,
    http_11: HeaderValue,
    http_2: HeaderValue,
}

impl Name {
    fn new(bare: &str) -> Option<Self> {
        let entry = |version: &str| HeaderValue::from_str(&format!("{version} {bare}")).ok();
        Some(Self {
            bare: Box::from(bare),
            http_10: entry("1.0")?,
            http_11: entry("1.1")?,
            http_2: entry("2")?,
        })
    }

    fn entry(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_10 | Version::HTTP_09 => &self.http_10,
            Version::HTTP_2 | Version::HTTP_3 => &self.http_2,
            _ => &self.http_11,
        }
        .clone()
    }
}

/// A name that no other process has.
pub(super) fn random_name() -> String {
    format!("meridian-{:08x}", fastrand::u32(..))
}

impl Hops {
    /// `name`: this process in `Via`; empty for none.
    pub(super) fn new(name: &str, max: u8) -> Self {
        Self { name: Some(name).filter(|name| !name.is_empty()).and_then(Name::new), max }
    }

    /// Looks at what a request has passed.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), ForwardError> {
        let mut hops = usize::from(count(headers));
        for entry in headers.get_all(VIA).iter().flat_map(entries) {
            hops += 1;
            if self.name.as_ref().is_some_and(|name| is_by(entry, &name.bare)) {
                return Err(ForwardError::Loop);
            }
        }
        if hops < usize::from(self.max) { Ok(()) } else { Err(ForwardError::Loop) }
    }

    /// Adds this hop to a request; `present`: there are fields of earlier ones.
    pub(super) fn pass(&self, headers: &mut HeaderMap, version: Version, present: bool) {
        if self.name.is_none() || (present && headers.contains_key(&X_GATEWAY_HOPS)) {
            let count = HeaderValue::from(u16::from(count(headers)) + 1);
            headers.insert(&X_GATEWAY_HOPS, count);
        }
        self.sign(headers, version);
    }

    /// Adds this hop to a message that was received in `version`.
    pub(super) fn sign(&self, headers: &mut HeaderMap, version: Version) {
        if let Some(name) = &self.name {
            headers.append(VIA, name.entry(version));
        }
    }
}

/// Whether a field tells of hops.
pub(super) fn is_of_hops(name: &str) -> bool {
    matches!(name, "via" | "x-gateway-hops")
}

/// What the last gateway has counted; anything else than a number is none of ours.
fn count(headers: &HeaderMap) -> u8 {
    let value = headers.get(&X_GATEWAY_HOPS).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The entries of a line of `Via`, parted at commas outside of comments.
fn entries(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut depth = 0_usize;
    line.as_bytes()
        .split(move |byte| {
            match byte {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            *byte == b',' && depth == 0
        })
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// Whether an entry, `protocol received-by [comment]`, is by `name`.
fn is_by(entry: &[u8], name: &str) -> bool {
    let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a request asks to go no further than here (RFC 9110, 7.6.2).
pub fn ends_here(method: &Method, headers: &HeaderMap) -> bool {
    is_counted(method) && left(headers) == Some(0)
}

/// Takes one from what a request may still pass.
pub(super) fn count_down(method: &Method, headers: &mut HeaderMap) {
    if is_counted(method)
        && let Some(left) = left(headers)
    {
        headers.insert(MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
}

/// The methods for which `Max-Forwards` means something.
fn is_counted(method: &Method) -> bool {
    *method == Method::OPTIONS || *method == Method::TRACE
}

/// What is no number, or one too large for any way there is, says nothing.
fn left(headers: &HeaderMap) -> Option<u32> {
    let text = headers.get(MAX_FORWARDS)?.to_str().ok()?.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        headers
    }

    /// Checks a request and lets it pass.
    fn pass(hops: &Hops, headers: &mut HeaderMap, version: Version) -> Result<(), ForwardError> {
        hops.check(headers)?;
        hops.pass(headers, version, true);
        Ok(())
    }

    fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
        headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_hop_adds_itself_behind_the_others() {
        let hops = Hops::new("edge-1", 8);
        for (version, before, after) in [
            (Version::HTTP_11, vec![], vec!["1.1 edge-1"]),
            (Version::HTTP_10, vec!["1.1 a"], vec!["1.1 a", "1.0 edge-1"]),
            (Version::HTTP_2, vec!["1.1 a, 2 b"], vec!["1.1 a, 2 b", "2 edge-1"]),
        ] {
            let mut headers = with(&VIA, &before);
            assert_eq!(pass(&hops, &mut headers, version), Ok(()));
            assert_eq!(lines(&headers, &VIA), after);
            assert!(!headers.contains_key(&X_GATEWAY_HOPS));
        }
    }

    #[test]
    fn one_that_comes_back_is_known() {
        let hops = Hops::new("edge-1", 8);
        for (line, known) in [
            ("1.1 edge-1", true),
            ("1.1 a, 1.0 EDGE-1 (x), 1.1 b", true),
            ("HTTP/1.1  edge-1", true),
            ("1.1 a (by, 1.1 edge-1)", false),
            ("1.1 edge-10, 1.1 a", false),
            ("edge-1", false),
            (",, ,", false),
            ("1.1 a (((", false),
        ] {
            assert_eq!(hops.check(&with(&VIA, &[line])).is_err(), known, "{line:?}");
        }
    }

    #[test]
    fn too_many_gateways_are_a_loop() {
        let hops = Hops::new("edge-1", 3);
        assert_eq!(hops.check(&with(&VIA, &["1.1 a, 1.1 b"])), Ok(()));
        let third = hops.check(&with(&VIA, &["1.1 a, 1.1 b", "1.1 c"]));
        assert_eq!(third, Err(ForwardError::Loop));
    }

    #[test]
    fn without_a_name_the_count_travels() {
        let hops = Hops::new("", 3);
        let mut headers = HeaderMap::new();
        for _ in 0..3 {
            assert_eq!(pass(&hops, &mut headers, Version::HTTP_11), Ok(()));
        }
        assert_eq!(lines(&headers, &X_GATEWAY_HOPS), ["3"]);
        assert!(!headers.contains_key(VIA));
        assert_eq!(hops.check(&headers), Err(ForwardError::Loop));
        // One with a name counts on.
        assert!(Hops::new("a", 3).check(&headers).is_err());
        let mut nonsense = with(&X_GATEWAY_HOPS, &["many"]);
        assert_eq!(pass(&hops, &mut nonsense, Version::HTTP_11), Ok(()));
        assert_eq!(lines(&nonsense, &X_GATEWAY_HOPS), ["1"]);
    }

    #[test]
    fn forwards_are_counted_down_where_they_mean_something() {
        let cases = [
            (Method::OPTIONS, "0", true, "0"),
            (Method::TRACE, "0", true, "0"),
            (Method::GET, "0", false, "0"),
            (Method::OPTIONS, "1", false, "0"),
            (Method::OPTIONS, "007", false, "6"),
            (Method::OPTIONS, "-1", false, "-1"),
            (Method::OPTIONS, "", false, ""),
            (Method::OPTIONS, "99999999999", false, "99999999999"),
        ];
        for (method, value, ends, after) in cases {
            let mut headers = with(&MAX_FORWARDS, &[value]);
            assert_eq!(ends_here(&method, &headers), ends, "{method} {value:?}");
            if !ends {
                count_down(&method, &mut headers);
            }
            assert_eq!(lines(&headers, &MAX_FORWARDS), [after], "{method} {value:?}");
        }
    }

    proptest! {
        /// Whatever others have written, the second time round it is a loop.
        #[test]
        fn no_circle_is_longer_than_the_limit(
            first in "[ -~]{0,40}",
            named in any::<bool>(),
            max in 1_u8..10,
        ) {
            let hops = Hops::new(if named { "edge" } else { "" }, max);
            let mut headers = with(&VIA, &[&first]);
            let most = if named { 1 } else { usize::from(max) };
            let mut rounds = 0;
            while pass(&hops, &mut headers, Version::HTTP_11).is_ok() {
                rounds += 1;
                // A comment that is never closed hides what stands in its own line alone.
                prop_assert!(rounds <= most);
            }
        }
    }
}
