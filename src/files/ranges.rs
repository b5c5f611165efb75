//! What part of a file a request asks for (RFC 9110, 14.1 and 14.2); pure.

use http::HeaderMap;
use http::header::RANGE;

/// Parts that one answer has; whoever asks for more gets the whole file.
const MOST_PARTS: usize = 64;

/// What is to be sent of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// No part is asked for, or none in a way that must be heeded.
    Whole,
    /// At least one, in the order in which they were asked for, none over another.
    Parts(Vec<Part>),
    /// Parts of which the file has none.
    Nothing,
}

/// Bytes of a file, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Part {
    pub(super) fn length(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// What of a file of `length` bytes these headers ask for.
pub(super) fn asked(headers: &HeaderMap, length: u64) -> Asked {
    let mut lines = headers.get_all(RANGE).iter();
    // It is no list: two of them say nothing.
    let (Some(line), None) = (lines.next(), lines.next()) else { return Asked::Whole };
    let Some(specifiers) = in_bytes(line.as_bytes()) else { return Asked::Whole };
    // Clients that only bound what they get ask it of empty files, too, which have no part.
    if length == 0 {
        return Asked::Whole;
    }
    let mut parts = Vec::new();
    let elements = specifiers.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    for element in elements.filter(|element| !element.is_empty()) {
        match part_of(element, length) {
            Ok(Some(part)) if parts.len() < MOST_PARTS => parts.push(part),
            Ok(Some(_)) => return Asked::Whole,
            Ok(None) => {}
            Err(Malformed) => return Asked::Nothing,
        }
    }
    match parts.len() {
        0 => Asked::Nothing,
        1 => Asked::Parts(parts),
        _ if is_worth_it(&parts, length) => Asked::Parts(parts),
        _ => Asked::Whole,
    }
}

/// What stands behind the unit, where that is bytes; any other is to be ignored.
fn in_bytes(line: &[u8]) -> Option<&[u8]> {
    let (unit, rest) = line.split_at_checked(b"bytes".len())?;
    rest.strip_prefix(b"=").filter(|_| unit.eq_ignore_ascii_case(b"bytes"))
}

struct Malformed;

/// One part as far as the file has it.
fn part_of(element: &[u8], length: u64) -> Result<Option<Part>, Malformed> {
    let dash = element.iter().position(|byte| *byte == b'-').ok_or(Malformed)?;
    let (first, last) = element.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    let end = length.saturating_sub(1);
    if first.is_empty() {
        let count = number(last)?;
        let part = Part { first: length.saturating_sub(count), last: end };
        return Ok((count > 0).then_some(part));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return Err(Malformed);
    }
    Ok((first < length).then_some(Part { first, last: last.min(end) }))
}

/// However large it is: what is beyond every file is beyond this one.
fn number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let add = |number: u64, digit: &u8| {
        number.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    };
    Ok(digits.iter().fold(0, add))
}

/// Parts over each other, or that are all of the file together, are a waste or an attack (RFC 9110, 17.15).
fn is_worth_it(parts: &[Part], length: u64) -> bool {
    let mut sorted = parts.to_vec();
    sorted.sort_unstable_by_key(|part| part.first);
    let apart = sorted.is_sorted_by(|before, after| before.last < after.first);
    apart && parts.iter().map(|part| part.length()).sum::<u64>() < length
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(line: &str, length: u64) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(line).unwrap());
        asked(&headers, length)
    }

    fn parts(parts: &[(u64, u64)]) -> Asked {
        Asked::Parts(
            parts.iter().map(|(first, last)| Part { first: *first, last: *last }).collect(),
        )
    }

    #[test]
    fn parts_are_those_that_the_file_has() {
        for (line, expected) in [
            ("bytes=0-0", parts(&[(0, 0)])),
            ("bytes=3-", parts(&[(3, 9)])),
            ("bytes=-3", parts(&[(7, 9)])),
            ("bytes=-99", parts(&[(0, 9)])),
            ("bytes=8-99999999999999999999999999", parts(&[(8, 9)])),
            ("BYTES=1-2", parts(&[(1, 2)])),
            ("bytes=6-7, 0-1 ,,-1", parts(&[(6, 7), (0, 1), (9, 9)])),
            ("bytes=0-1,20-30", parts(&[(0, 1)])),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=20-30,40-", Asked::Nothing),
            ("bytes=", Asked::Nothing),
            ("bytes=5-3", Asked::Nothing),
            ("bytes=a-b", Asked::Nothing),
            ("bytes=+1-3", Asked::Nothing),
            ("bytes=-", Asked::Nothing),
            ("items=0-4", Asked::Whole),
            ("bytes 0-4", Asked::Whole),
            ("", Asked::Whole),
            ("bytes=0-4,3-5", Asked::Whole),
            ("bytes=0-4,5-9", Asked::Whole),
        ] {
            assert_eq!(of(line, 10), expected, "{line:?}");
        }
        assert_eq!(of("bytes=0-0", 0), Asked::Whole);
        assert_eq!(of("bytes=-1", 0), Asked::Whole);
    }

    #[test]
    fn many_parts_and_two_fields_are_the_whole_file() {
        let asking = |count: u64| {
            let parts: Vec<_> = (0..count).map(|at| format!("{0}-{0}", at * 2)).collect();
            of(&format!("bytes={}", parts.join(",")), 1000)
        };
        assert!(matches!(asking(64), Asked::Parts(parts) if parts.len() == 64));
        assert_eq!(asking(65), Asked::Whole);
        let mut headers = HeaderMap::new();
        assert_eq!(asked(&headers, 10), Asked::Whole);
        headers.append(RANGE, HeaderValue::from_static("bytes=0-0"));
        headers.append(RANGE, HeaderValue::from_static("bytes=1-1"));
        assert_eq!(asked(&headers, 10), Asked::Whole);
    }

    proptest! {
        #[test]
        fn no_part_is_beyond_the_file(line in "(?:bytes=)?[0-9, -]{0,24}", length in 0..100_u64) {
            if let Asked::Parts(parts) = of(&line, length) {
                prop_assert!(!parts.is_empty());
                for part in &parts {
                    prop_assert!(part.first <= part.last && part.last < length);
                }
                prop_assert!(parts.iter().map(|part| part.length()).sum::<u64>() <= length);
            }
        }
    }
}
