//! Which region a request names: the header, then the query parameter, then nothing.
//!
//! Pure. The same verdict for plain requests and WebSocket handshakes, since both ask here. The header
//! wins over the parameter; within each, equal repeats are one and different ones are an error, never
//! a silent choice.

use std::borrow::Cow;

use http::header::HeaderName;
use http::{HeaderMap, Uri};

use crate::settings::RegionName;

/// The header that names a region, and that the backend gets in its one canonical form.
pub(super) static X_REGION: HeaderName = HeaderName::from_static("x-region");

/// Why a request has no region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nothing names one, and there is no default (400 `region_required`).
    #[error("name a region in the header x-region or the query parameter region")]
    Missing,
    /// Malformed, or repeated with two different values (400 `region_invalid`).
    #[error(
        "the region must be named once, by 1 to 32 characters of A-Z a-z 0-9 _ - \
         in the header x-region or the query parameter region"
    )]
    Invalid,
    /// Well-formed, but not configured (404 `region_unknown`).
    #[error("there is no region {0}")]
    Unknown(RegionName),
}

/// The name a request asks for, well-formed; `None` where it names none.
pub(super) fn named<'a>(
    headers: &'a HeaderMap,
    uri: &'a Uri,
) -> Result<Option<Cow<'a, str>>, RouteError> {
    match in_header(headers)? {
        Some(name) => Ok(Some(Cow::Borrowed(name))),
        None => uri.query().map_or(Ok(None), in_query),
    }
}

fn in_header(headers: &HeaderMap) -> Result<Option<&str>, RouteError> {
    let mut found: Option<&str> = None;
    for value in headers.get_all(&X_REGION) {
        let name = std::str::from_utf8(value.as_bytes().trim_ascii()).unwrap_or_default();
        if !RegionName::is_valid(name) || found.is_some_and(|earlier| earlier != name) {
            return Err(RouteError::Invalid);
        }
        found = Some(name);
    }
    Ok(found)
}

fn in_query(query: &str) -> Result<Option<Cow<'_, str>>, RouteError> {
    let mut found: Option<Cow<'_, str>> = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "region" {
            continue;
        }
        let name = trimmed(decoded(value));
        if !RegionName::is_valid(&name) || found.as_ref().is_some_and(|earlier| *earlier != name) {
            return Err(RouteError::Invalid);
        }
        found = Some(name);
    }
    Ok(found)
}

/// A query value without percent and plus coding. What does not decode stays as it is: `%` is in no
/// region's name, so the value is refused for what it is.
fn decoded(value: &str) -> Cow<'_, str> {
    if !value.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(value);
    }
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let coded = match byte {
            b'+' => Some(b' '),
            b'%' => hex(ahead.next()).zip(hex(ahead.next())).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        if byte == b'%' && coded.is_some() {
            rest = ahead;
        }
        text.push(coded.unwrap_or(byte));
    }
    String::from_utf8(text).map_or(Cow::Borrowed(value), Cow::Owned)
}

fn hex(byte: Option<u8>) -> Option<u8> {
    let digit = char::from(byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
        Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    type Verdict = Result<Option<String>, RouteError>;

    fn verdict(headers: &[&[u8]], target: &str) -> Verdict {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(&X_REGION, HeaderValue::from_bytes(value).unwrap());
        }
        let uri = target.parse().unwrap();
        named(&map, &uri).map(|name| name.map(Cow::into_owned))
    }

    #[test]
    fn thirty_requests_and_their_regions() {
        let long = "a".repeat(33);
        let fits = "a".repeat(32);
        let found = |name: &str| Ok(Some(name.to_owned()));
        let invalid = || Err(RouteError::Invalid);
        let header = |value: &'static str| vec![value.as_bytes()];
        let rows: Vec<(Vec<&[u8]>, String, Verdict)> = vec![
            (vec![], "/".into(), Ok(None)),
            (vec![], "/?a=b".into(), Ok(None)),
            (vec![], "/?regions=1".into(), Ok(None)),
            (vec![], "/?Region=1".into(), Ok(None)),
            (vec![], "/region=1".into(), Ok(None)),
            (header("1"), "/".into(), found("1")),
            (header("  1\t"), "/".into(), found("1")),
            (header("eu-west_1"), "/".into(), found("eu-west_1")),
            (header("EU"), "/".into(), found("EU")),
            (vec![fits.as_bytes()], "/".into(), found(&fits)),
            (vec![long.as_bytes()], "/".into(), invalid()),
            (header(""), "/".into(), invalid()),
            (header("   "), "/".into(), invalid()),
            (header("1 2"), "/".into(), invalid()),
            (header("1,1"), "/".into(), invalid()),
            (header("eu.west"), "/".into(), invalid()),
            (vec![b"\xff"], "/".into(), invalid()),
            (vec!["é".as_bytes()], "/".into(), invalid()),
            (vec![b"1", b" 1 "], "/".into(), found("1")),
            (vec![b"1", b"2"], "/".into(), invalid()),
            (vec![b"1", b""], "/".into(), invalid()),
            (header("1"), "/?region=2".into(), found("1")),
            (header("1"), "/?region=%%%".into(), found("1")),
            (header("!"), "/?region=2".into(), invalid()),
            (vec![], "/?region=2".into(), found("2")),
            (vec![], "/x?a=1&region=2&b=3".into(), found("2")),
            (vec![], "/?region=+2%20".into(), found("2")),
            (vec![], "/?region=%65u".into(), found("eu")),
            (vec![], "/?region=".into(), invalid()),
            (vec![], "/?region".into(), invalid()),
            (vec![], "/?region=1&region=1".into(), found("1")),
            (vec![], "/?region=1&region=2".into(), invalid()),
            (vec![], "/?region=%zz".into(), invalid()),
            (vec![], "/?region=%ff".into(), invalid()),
            (vec![], format!("/?region={long}"), invalid()),
        ];
        for (headers, target, expected) in rows {
            assert_eq!(verdict(&headers, &target), expected, "{headers:?} {target}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_out_is_a_name(
            values in prop::collection::vec(prop::collection::vec(32_u8..=255, 0..40), 0..3),
            query in "[a-z=&%+0-9_.-]{0,60}",
        ) {
            let mut map = HeaderMap::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    map.append(&X_REGION, value);
                }
            }
            let uri: Uri = format!("/?{query}").parse().unwrap();
            if let Ok(Some(name)) = named(&map, &uri) {
                prop_assert!(RegionName::is_valid(&name));
            }
        }
    }
}
