//! The chat page and the client library, carried by the binary.
//!
//! Walk: [`find`] knows the files by their names under the page's path; [`answer()`] sends one, or says that the
//! caller has it already (RFC 9110, 13.1.2).
//!
//! Invariants: the page may run what comes from its own origin and nothing else, by its policy; the library may be
//! imported by pages of any origin.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::answer;
use super::body::Content;

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
    tag: u64,
    /// What its kind is told besides.
    headers: &'static [(HeaderName, &'static str)],
}

/// A page says itself where its servers are, so it may connect anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
     connect-src 'self' ws: wss: http: https:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";
const OF_PAGE: &[(HeaderName, &str)] = &[(CONTENT_SECURITY_POLICY, POLICY)];
const OF_LIBRARY: &[(HeaderName, &str)] = &[(ACCESS_CONTROL_ALLOW_ORIGIN, "*")];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Not that of a video, which some give `.ts`.
const TYPES: &str = "application/typescript; charset=utf-8";

static ASSETS: [Asset; 6] = [
    Asset::new("index.html", HTML, include_str!("../../client/index.html"), OF_PAGE),
    Asset::new("page.css", CSS, include_str!("../../client/page.css"), &[]),
    Asset::new("view.js", SCRIPT, include_str!("../../client/view.js"), &[]),
    Asset::new("page.js", SCRIPT, include_str!("../../client/page.js"), &[]),
    Asset::new("meridian.js", SCRIPT, include_str!("../../client/meridian.js"), OF_LIBRARY),
    Asset::new("meridian.d.ts", TYPES, include_str!("../../client/meridian.d.ts"), OF_LIBRARY),
];

impl Asset {
    const fn new(
        name: &'static str,
        content_type: &'static str,
        text: &'static str,
        headers: &'static [(HeaderName, &'static str)],
    ) -> Self {
        Self { name, content_type, text, tag: fingerprint(text.as_bytes()), headers }
    }
}

/// FNV-1a, which the compiler can work out: it tells builds apart, and guards nothing.
#[expect(clippy::indexing_slicing, reason = "an iterator cannot be used in a const function")]
const fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash
}

/// The file of this name; the empty one is the page itself.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    let name = if name.is_empty() { "index.html" } else { name };
    ASSETS.iter().find(|asset| asset.name == name)
}

/// The file, or 304 where the request has this version of it.
pub(super) fn answer(asset: &'static Asset, request: &HeaderMap) -> Response<Content> {
    let tag = format!("\"{:016x}\"", asset.tag);
    let mut response = if has(request, &tag) {
        answer::not_modified()
    } else {
        answer::ok(Bytes::from_static(asset.text.as_bytes()))
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Kept, and asked about each time: page and library change together, with the process.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(HeaderValue::from_str(&tag).map(|tag| (ETAG, tag)));
    for (name, value) in asset.headers {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the request names this version: tags are compared weakly, and `*` is any.
fn has(request: &HeaderMap, tag: &str) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn asked(name: &str, tags: &str) -> Response<Content> {
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, tags.parse().unwrap())]);
        answer(find(name).unwrap(), &headers)
    }

    #[test]
    fn a_version_that_the_caller_has_is_not_sent_again() {
        let first = asked("meridian.js", "\"other\"");
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].to_str().unwrap();
        for tags in [tag, "*", &format!("\"other\", {tag}"), &format!("W/{tag}")] {
            let again = asked("meridian.js", tags);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{tags}");
            assert_eq!(again.headers()[ETAG], tag);
        }
        assert_eq!(asked("page.js", tag).status(), StatusCode::OK, "the tag of another file");
    }

    #[test]
    fn only_the_library_is_for_other_origins() {
        for (name, open) in [("", false), ("page.js", false), ("meridian.js", true)] {
            let headers = asked(name, "").headers().clone();
            assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), open, "{name}");
            assert_eq!(headers.contains_key(CONTENT_SECURITY_POLICY), name.is_empty(), "{name}");
            let policy =
                headers.get(CONTENT_SECURITY_POLICY).map(|policy| policy.to_str().unwrap());
            assert!(policy.is_none_or(|policy| policy.ends_with("; frame-ancestors 'none'")));
        }
        assert!(find("other").is_none());
    }
}
