//! Which coding a client likes best (RFC 9110, 12.5.3); pure.

use http::HeaderValue;

use crate::settings::Coding;

/// The best liked of `offered`, which stand in our own order; nothing where the client names none of them, or likes
/// the plain answer better.
pub(super) fn best<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
    offered: &[Coding],
) -> Option<Coding> {
    let (mut named, mut plain, mut rest) = (Vec::new(), None, None);
    for line in lines {
        for element in line.as_bytes().split(|byte| *byte == b',') {
            let Some((name, weight)) = element_of(element) else { continue };
            if name.eq_ignore_ascii_case(b"identity") {
                plain = Some(weight);
            } else if name == b"*" {
                rest = Some(weight);
            } else if let Some(coding) = offered.iter().find(|coding| is(**coding, name)) {
                named.push((*coding, weight));
            }
        }
    }
    let weight = |coding: Coding| {
        let named = named.iter().find(|(name, _)| *name == coding);
        named.map(|(_, weight)| *weight).or(rest).unwrap_or_default()
    };
    let plain = plain.unwrap_or_default();
    let liked = offered.iter().copied().filter(|coding| weight(*coding) > 0);
    // The last of equals would win: the order is turned, so that ours counts.
    let best = liked.rev().max_by_key(|coding| weight(*coding))?;
    (weight(best) >= plain).then_some(best)
}

fn is(coding: Coding, name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(coding.name().as_bytes())
        || (coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
}

/// A name and its weight in thousandths; a weight that cannot be read is none.
fn element_of(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_at_checked(2)?;
        key.eq_ignore_ascii_case(b"q=").then(|| thousandths(value).unwrap_or_default())
    });
    Some((name, weight.unwrap_or(1000)))
}

fn thousandths(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = format!("{part:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_of(line: &'static str) -> Option<Coding> {
        best(&[HeaderValue::from_static(line)], &[Coding::Br, Coding::Zstd, Coding::Gzip])
    }

    #[test]
    fn the_client_chooses_and_ties_are_ours() {
        assert_eq!(best_of("gzip, deflate, br, zstd"), Some(Coding::Br));
        assert_eq!(best_of("gzip"), Some(Coding::Gzip));
        assert_eq!(best_of("X-GZIP"), Some(Coding::Gzip));
        assert_eq!(best_of("br;q=0.5, gzip;q=0.9"), Some(Coding::Gzip));
        assert_eq!(best_of("br;q=0, *"), Some(Coding::Zstd));
        assert_eq!(best_of("*;q=0.1"), Some(Coding::Br));
    }

    #[test]
    fn nothing_where_it_is_not_wanted() {
        for line in [
            "",
            "identity",
            "deflate",
            "br;q=0",
            "*;q=0",
            "gzip;q=0.5, identity",
            "gzip;q=x",
            "gzip;q=2",
        ] {
            assert_eq!(best_of(line), None, "{line:?}");
        }
        assert_eq!(best(&[], &[Coding::Gzip]), None);
    }
}
