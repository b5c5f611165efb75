//! What a certificate says of itself (RFC 5280): the hosts it is for, and until when; pure.
//!
//! Only what this gateway needs is read, from files of the operator's own that rustls has accepted. Each step is bounded by
//! the bytes that are left, so that nonsense is an error and nothing else.

use std::net::IpAddr;

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Host names in lower case, `*.` in front of those that stand for every name one label below; and addresses.
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// The last second at which it is valid, since the Unix epoch.
    pub(super) not_after: i64,
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The explicit `[0]` of the version and `[3]` of the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// In a `GeneralName`: `[2]`, a host, and `[7]`, an address.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Reads a certificate in DER; nothing where it is none.
pub(super) fn facts(der: &[u8]) -> Option<Facts> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut body, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(body, VERSION) {
        body = rest;
    }
    body = expect(body, INTEGER)?.1; // serial number
    body = expect(body, SEQUENCE)?.1; // signature algorithm
    body = expect(body, SEQUENCE)?.1; // issuer
    let (validity, rest) = expect(body, SEQUENCE)?;
    let (_, _, after) = take(validity)?;
    let (tag, text, _) = take(after)?;
    let mut facts =
        Facts { names: Vec::new(), addresses: Vec::new(), not_after: moment(tag, text)? };
    let mut rest = rest;
    while let Some((tag, content, behind)) = take(rest) {
        if tag == EXTENSIONS {
            alternative_names(expect(content, SEQUENCE)?.0, &mut facts)?;
        }
        rest = behind;
    }
    Some(facts)
}

fn alternative_names(mut extensions: &[u8], facts: &mut Facts) -> Option<()> {
    while let Some((extension, rest)) = expect(extensions, SEQUENCE) {
        extensions = rest;
        let (id, mut value) = expect(extension, OBJECT)?;
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        // A flag says before it whether the extension is critical.
        while let Some((tag, content, rest)) = take(value) {
            value = rest;
            if tag == OCTETS {
                general_names(expect(content, SEQUENCE)?.0, facts);
            }
        }
    }
    Some(())
}

fn general_names(mut names: &[u8], facts: &mut Facts) {
    while let Some((tag, content, rest)) = take(names) {
        names = rest;
        match tag {
            DNS_NAME => {
                if let Ok(name) = std::str::from_utf8(content) {
                    facts.names.push(name.trim_end_matches('.').to_ascii_lowercase());
                }
            }
            IP_ADDRESS => facts.addresses.extend(address(content)),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// One element: its tag, its content, and what stands behind it.
fn take(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        // The long form; certificates are far below four bytes of length.
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, behind) = rest.split_at_checked(count)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// One element of this tag: its content, and what stands behind it.
fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    take(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// A time in seconds since the Unix epoch (RFC 5280, 4.1.2.5: always in Z, always with seconds).
fn moment(tag: u8, text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z")?;
    let digits: Vec<i64> = text
        .iter()
        .map(|byte| byte.is_ascii_digit().then(|| i64::from(byte - b'0')))
        .collect::<Option<_>>()?;
    let (year, rest) = match (tag, digits.as_slice()) {
        (UTC_TIME, [a, b, rest @ ..]) => {
            let year = a * 10 + b;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, [a, b, c, d, rest @ ..]) => (a * 1000 + b * 100 + c * 10 + d, rest),
        _ => return None,
    };
    let mut pairs =
        rest.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum * 10 + digit));
    let mut next = || pairs.next();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    let is_whole = rest.len() == 10 && (1..=12).contains(&month) && (1..=31).contains(&day);
    let seconds = hour * 3_600 + minute * 60 + second;
    is_whole.then(|| days(year, month, day) * 86_400 + seconds)
}

/// Days from 1 January 1970 to a date of the Gregorian calendar. Years are counted from March, so that a leap day is
/// the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // The months from March on have 31, 30, 31, 30, 31 days, over and over.
    year * 365 + leaps + (from_march * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(names: &[&str], until: (i32, u8, u8)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_addresses_and_the_end_are_found() {
        let facts = facts(&made(&["A.example", "*.b.example", "127.0.0.1", "::1"], (2030, 2, 28)));
        let facts = facts.unwrap();
        assert_eq!(facts.names, ["a.example", "*.b.example"]);
        assert_eq!(
            facts.addresses,
            ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]
        );
        assert_eq!(facts.not_after, 1_898_467_200);
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        assert_eq!(facts(&made(&["a"], (2026, 1, 1))).unwrap().not_after, 1_767_225_600);
        // From 2050 on there are four digits of the year.
        assert_eq!(facts(&made(&["a"], (2052, 2, 29))).unwrap().not_after, 2_592_777_600);
        assert_eq!(moment(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(moment(UTC_TIME, b"700101000000"), None);
        assert_eq!(moment(UTC_TIME, b"701301000000Z"), None);
        assert_eq!(moment(OCTETS, b"700101000000Z"), None);
    }

    #[test]
    fn days_follow_each_other_over_four_centuries() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut expected = days(1970, 1, 1);
        assert_eq!(expected, 0);
        for year in 1970..2370 {
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            for (month, length) in (1..).zip(lengths) {
                for day in 1..=length + i64::from(leap && month == 2) {
                    assert_eq!(days(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_nothing(at in 0_usize..400, with in any::<u8>(), cut in 0_usize..600) {
            let mut der = made(&["a.example", "::1"], (2030, 1, 1));
            if let Some(byte) = der.get_mut(at) {
                *byte = with;
            }
            der.truncate(cut);
            drop(facts(&der));
        }
    }
}
