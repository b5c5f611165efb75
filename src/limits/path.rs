//! Paths as a backend may read them, and the patterns they are held against; pure.
//!
//! Backends differ: some merge doubled slashes, decode `%2F`, take a backslash for a slash or drop what stands behind a
//! semicolon, or do not tell capitals from small letters. The canonical reading is that of RFC 3986, section 6.2.2, with doubled slashes merged; the others are what
//! laxer or stricter backends make of it.
//!
//! A plain path, which all read alike, is not copied.

use std::borrow::Cow;

/// Nobody decodes more often than that.
const MAX_DECODINGS: usize = 3;

/// All that a path may be taken for; the canonical reading first, the path as it came last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readings<'a> {
    raw: &'a str,
    /// Empty where the path is plain.
    others: Vec<String>,
}

impl<'a> Readings<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        let others = if is_plain(path) { Vec::new() } else { read(path) };
        Self { raw: path, others }
    }

    /// The one that rules decide by.
    pub(super) fn canonical(&self) -> &str {
        self.others.first().map_or(self.raw, String::as_str)
    }

    /// Every other one.
    pub(super) fn rest(&self) -> impl Iterator<Item = &str> {
        let raw = (!self.others.is_empty()).then_some(self.raw);
        self.others.iter().skip(1).map(String::as_str).chain(raw)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str).chain([self.raw])
    }
}

/// Whether every backend reads this path as it stands.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let odd =
            matches!(byte, b'%' | b'\\' | b';') || (before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        !odd
    })
}

/// The readings of a path that is not plain, without repeats.
fn read(path: &str) -> Vec<String> {
    let decoded = decode(path.as_bytes(), |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
    });
    let lax = lax(path);
    let mut readings: Vec<String> = Vec::with_capacity(4);
    for (bytes, merged) in [(&*decoded, true), (&*decoded, false), (&lax, true), (&lax, false)] {
        let reading = String::from_utf8_lossy(&resolve(bytes, merged)).into_owned();
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

/// Everything decoded, as often as somebody might; backslashes are slashes; what stands behind a semicolon, a NUL or
/// an encoded `?` or `#` is dropped.
fn lax(path: &str) -> Vec<u8> {
    let mut bytes = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_DECODINGS {
        let more = decode(&bytes, |_| true).into_owned();
        if *more == *bytes {
            break;
        }
        bytes = Cow::Owned(more);
    }
    let end = bytes.iter().position(|byte| matches!(byte, 0 | b'?' | b'#')).unwrap_or(bytes.len());
    let mut kept = Vec::with_capacity(end);
    let mut in_parameter = false;
    for byte in bytes.iter().take(end) {
        let byte = if *byte == b'\\' { b'/' } else { *byte };
        in_parameter = byte != b'/' && (in_parameter || byte == b';');
        if !in_parameter {
            kept.push(byte);
        }
    }
    kept
}

/// A text with everything decoded, once.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    decode(text, |_| true)
}

/// `%XX` as the byte it stands for, where `wanted`; what is left encoded has capital digits.
fn decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (first, behind) {
            (b'%', [high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(one), Some(two)) => {
                    let byte = one << 4 | two;
                    if wanted(byte) {
                        decoded.push(byte);
                    } else {
                        let digits = [high.to_ascii_uppercase(), low.to_ascii_uppercase()];
                        decoded.push(b'%');
                        decoded.extend_from_slice(&digits);
                    }
                    rest = behind;
                }
                _ => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Without dot segments (RFC 3986, section 5.2.4); with `merged`, without empty ones before that.
fn resolve(path: &[u8], merged: bool) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_open = false;
    for segment in path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/') {
        ends_open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b"" if merged => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    // Not merged, an empty last segment was pushed.
    if ends_open && (merged || segments.last().is_none_or(|last| !last.is_empty())) {
        segments.push(b"");
    }
    let mut resolved = vec![b'/'];
    resolved.extend_from_slice(&segments.join(&b'/'));
    resolved
}

/// `/login`, or `/api/*` for `/api` and all below it.
///
/// A slash at the end makes no difference: too many backends see none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    /// Prefixes come after what is exact.
    is_prefix: bool,
    /// Longer ones come first.
    shortness: usize,
    /// Without the last slash.
    path: Box<str>,
}

impl Pattern {
    /// Of a text that the settings have accepted.
    pub(super) fn new(text: &str) -> Self {
        let (path, is_prefix) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text.strip_suffix('/').unwrap_or(text), false),
        };
        Self { is_prefix, shortness: usize::MAX - path.len(), path: Box::from(path) }
    }

    pub(super) fn fits(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| self.fits_behind(rest))
    }

    /// As a backend reads that takes `/Login` for `/login`, which the routers of many do unless they are told.
    pub(super) fn fits_in_any_case(&self, path: &str) -> bool {
        path.split_at_checked(self.path.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(&self.path) && self.fits_behind(rest)
        })
    }

    fn fits_behind(&self, rest: &str) -> bool {
        matches!(rest, "" | "/") || (self.is_prefix && rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn canonical(path: &str) -> String {
        Readings::of(path).canonical().to_owned()
    }

    #[test]
    fn plain_paths_are_not_copied() {
        for path in ["/", "/a", "/a/b.c/d-e_f~", "/a/", "/a.b/..c"] {
            let readings = Readings::of(path);
            assert!(path.contains("/.") || readings.others.is_empty(), "{path}");
            assert_eq!(readings.canonical(), path);
        }
    }

    #[test]
    fn the_canonical_reading_is_that_of_the_rfc_with_slashes_merged() {
        for (path, expected) in [
            ("/%61dmin", "/admin"),
            ("/%61%64%6D%69n", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("//admin", "/admin"),
            ("///a//b/", "/a/b/"),
            ("/./admin/.", "/admin/"),
            ("/admin/..", "/"),
            ("/../../a", "/a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%zz%4", "/a%zz%4"),
            ("/a;b/c", "/a;b/c"),
            ("/a\\b", "/a\\b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("*", "*"),
        ] {
            assert_eq!(canonical(path), expected, "{path}");
        }
    }

    #[test]
    fn laxer_backends_are_thought_of() {
        for path in [
            "/x%2f..%2fadmin",
            "/x/..%2Fadmin",
            "/x\\..\\admin",
            "/x%5C..%5cadmin",
            "/x/..;/admin",
            "/admin;a=b",
            "/%2561dmin",
            "/%25252Fadmin",
            "/admin%00.css",
            "/admin%3Fa",
            "/x//../admin",
            "//admin",
            "/x;y/../admin",
        ] {
            let readings = Readings::of(path);
            assert!(readings.all().any(|reading| reading == "/admin"), "{path}: {readings:?}");
        }
        // A backend that keeps doubled slashes.
        assert!(Readings::of("/a//../b").all().any(|reading| reading == "/a/b"));
    }

    #[test]
    fn patterns_fit_themselves_and_what_is_below() {
        let login = Pattern::new("/login");
        let api = Pattern::new("/api/*");
        assert!(login.fits("/login") && login.fits("/login/"));
        assert!(!login.fits("/login/x") && !login.fits("/logins") && !login.fits("/Login"));
        assert!(api.fits("/api") && api.fits("/api/") && api.fits("/api/a/b"));
        assert!(!api.fits("/apis") && !api.fits("/"));
        assert!(Pattern::new("/*").fits("/") && Pattern::new("/*").fits("/a"));
        assert!(Pattern::new("/").fits("/") && !Pattern::new("/").fits("/a"));
        assert!(!Pattern::new("/*").fits("*"));
        assert!(login.fits_in_any_case("/LogIn/") && api.fits_in_any_case("/API/a"));
        assert!(!login.fits_in_any_case("/logins") && !login.fits_in_any_case("/LOGIN/x"));
        assert!(!login.fits_in_any_case("/log") && !login.fits_in_any_case("/logi\u{e4}"));
        let mut order = ["/*", "/a/*", "/a/b/*", "/a", "/a/b"].map(Pattern::new);
        order.sort();
        let paths: Vec<_> = order.iter().map(|p| (&*p.path, p.is_prefix)).collect();
        assert_eq!(
            paths,
            [("/a/b", false), ("/a", false), ("/a/b", true), ("/a", true), ("", true)]
        );
    }

    /// `path` spelled in another way that RFC 3986 holds for the same, by the numbers of `how`.
    fn respelled(path: &str, how: &[u8]) -> String {
        let mut spelled = String::new();
        for (byte, how) in path.bytes().zip(how.iter().cycle()) {
            match (byte, how % 5) {
                (b'/', 0) => spelled.push_str("/./"),
                (b'/', 1) => spelled.push_str("//"),
                (b'/', 2) => spelled.push_str("/zz/%2e./"),
                (byte, 0) if byte != b'/' => write!(spelled, "%{byte:02x}").unwrap(),
                (byte, 1) if byte != b'/' => write!(spelled, "%{byte:02X}").unwrap(),
                (byte, _) => spelled.push(char::from(byte)),
            }
        }
        spelled
    }

    proptest! {
        #[test]
        fn other_spellings_have_the_same_canonical_reading(
            path in "(/[a-z0-9_~-]{1,6}){1,5}",
            how in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            prop_assert_eq!(canonical(&respelled(&path, &how)), path);
        }

        /// No reading is left with a segment that changes what it means, and reading it again changes nothing.
        #[test]
        fn the_canonical_reading_is_final(path in "/[a-c./%2eEfF5;\\\\]{0,30}") {
            let once = canonical(&path);
            prop_assert!(once.starts_with('/'));
            let bad = |segment: &str| matches!(segment, "." | "..");
            prop_assert!(!once.split('/').any(bad) && !once.contains("//"), "{}", once);
            prop_assert!(Readings::of(&path).all().count() <= 5);
            // What was encoded twice is not decoded twice.
            if !path.contains("%25") {
                prop_assert_eq!(canonical(&once), once);
            }
        }
    }
}
