//! Whether a path may name a file of a mounted folder; pure.
//!
//! The file server behind this takes dot segments out by itself; what is refused here is what it would serve or read
//! in another way than whoever wrote the rules in front: hidden files, and separators in disguise.

/// The one hidden folder that is public by its definition (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// Whether `path`, the rest of a request's path below the mount, as it was sent, may be looked up.
///
/// Not with doubled slashes: no file is called so, and a redirect to `//folder/` would name a host (RFC 3986, 4.2).
pub(super) fn is_servable(path: &str) -> bool {
    !path.contains("//") && path.split('/').all(is_plain)
}

/// Whether one segment is a name that is not hidden, and has no separator or control character in it.
fn is_plain(segment: &str) -> bool {
    let Some(name) = decoded(segment) else { return false };
    let hidden = name.first() == Some(&b'.') && name != WELL_KNOWN;
    !hidden
        && !name.iter().any(|byte| matches!(byte, b'/' | b'\\' | b':') || byte.is_ascii_control())
}

/// A segment without its percent-encoding (RFC 3986, 2.1); `None` where that is malformed.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    Some(name)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::is_servable;

    #[test]
    fn names_pass() {
        for path in
            ["", "/", "/a.js", "/a/b-1.min.css", "/%C3%BC.txt", "/a%20b", "/.well-known/x", "/a..b"]
        {
            assert!(is_servable(path), "{path}");
        }
    }

    #[test]
    fn what_is_hidden_or_disguised_does_not() {
        for path in [
            "/.env",
            "/.git/config",
            "/a/.htpasswd",
            "/%2eenv",
            "/..",
            "/../etc/passwd",
            "/a/%2e%2e/b",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/c:/x",
            "//evil.example",
            "/a//b",
            "/a%00b",
            "/a%0ab",
            "/%",
            "/%2",
            "/%zz",
        ] {
            assert!(!is_servable(path), "{path}");
        }
    }
}
