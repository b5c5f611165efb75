//! What a request head must satisfy before anything else looks at it (RFC 9110 and 9112); pure.

use http::header::{COOKIE, HOST, HeaderMap};
use http::{HeaderValue, Method, Request, Uri, Version, uri::Authority};
use hyper::ext::Protocol;

use super::answer::Refused;
use crate::settings::ProxySettings;

/// Checks the head of a request.
///
/// # Errors
/// The refusal, where a rule is broken.
pub(super) fn check<B>(request: &Request<B>, max_target: usize) -> Result<(), Refused> {
    let method = request.method();
    if request.version() == Version::HTTP_2 && !are_trimmed(request.headers()) {
        return Err(Refused::BadRequest("the value of a field must not begin or end with a space"));
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > max_target {
        return Err(Refused::TargetTooLong);
    }
    if *method == Method::CONNECT
        && let Some(protocol) = request.extensions().get::<Protocol>()
    {
        return if is_websocket(protocol) { Ok(()) } else { Err(Refused::ProtocolUnknown) };
    }
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Refused::MethodNotAllowed);
    }
    if is_in_place(method, request.uri()) {
        Ok(())
    } else {
        Err(Refused::BadRequest("the request target must be a path, or an absolute URL"))
    }
}

/// Whether the target has one of the forms that a method other than CONNECT may have (RFC 9112, section 3.2).
fn is_in_place(method: &Method, uri: &Uri) -> bool {
    match uri.path() {
        "*" => *method == Method::OPTIONS,
        // A host alone is for CONNECT; beside a path there is a scheme.
        _ => uri.authority().is_none() || uri.scheme().is_some(),
    }
}

/// Whether the values of all fields are such as HTTP/2 has them (RFC 9113, section 8.2.1), where space around a value is not
/// taken away by the parser. The next hop's would, and what was compared here would be another value there.
fn are_trimmed(headers: &HeaderMap) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers
        .values()
        .map(HeaderValue::as_bytes)
        .all(|value| !is_space(value.first()) && !is_space(value.last()))
}

/// Holds the header fields to their bounds (RFC 6585, section 5). Cookies count as one field, as which they go on: a browser
/// that speaks HTTP/2 sends a field for each (RFC 9113, section 8.2.3). Their bytes all count.
///
/// # Errors
/// Where they are too many, or too large together.
pub(super) fn check_size(headers: &HeaderMap, settings: &ProxySettings) -> Result<(), Refused> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let most = settings.max_headers.get();
    let joined = || headers.len() - headers.get_all(COOKIE).iter().skip(1).count();
    let is_within =
        size <= settings.max_header_bytes.get() && (headers.len() <= most || joined() <= most);
    if is_within { Ok(()) } else { Err(Refused::HeadersTooLarge) }
}

/// Whether an extended CONNECT asks for a WebSocket (RFC 8441, section 5).
fn is_websocket(protocol: &Protocol) -> bool {
    protocol.as_str().eq_ignore_ascii_case("websocket")
}

/// The authority a request is for: of an absolute target, else of its one `Host`
/// (RFC 9112, section 3.2); empty for HTTP/1.0 without either.
///
/// # Errors
/// Where `Host` is missing, repeated or malformed, even beside an absolute target; in HTTP/2 also where it says another
/// host than `:authority` (RFC 9113, section 8.3.1).
pub(super) fn host(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
) -> Result<HeaderValue, Refused> {
    let mut lines = headers.get_all(HOST).iter();
    let (first, more) = (lines.next(), lines.next());
    if more.is_some() {
        return Err(Refused::BadRequest("send the Host header once"));
    }
    if let Some(value) = first
        && !is_host(value.as_bytes())
    {
        return Err(Refused::BadRequest(
            "the Host header must be one host name, with or without a port",
        ));
    }
    let is_missing = first.is_none() && version == Version::HTTP_11;
    if let Some(authority) = uri.authority().filter(|_| !is_missing) {
        return match HeaderValue::from_str(authority.as_str()) {
            Ok(value) if is_host(value.as_bytes()) => match first {
                Some(other) if version == Version::HTTP_2 && !is_same(other, &value) => {
                    Err(Refused::BadRequest("Host must be what :authority is; leave it away"))
                }
                _ => Ok(value),
            },
            _ => Err(Refused::BadRequest("the target's authority must be a host name")),
        };
    }
    match first {
        Some(value) => Ok(value.clone()),
        None if version >= Version::HTTP_11 => {
            Err(Refused::BadRequest("send a Host header; HTTP/1.1 requires it"))
        }
        None => Ok(HeaderValue::from_static("")),
    }
}

fn is_same(one: &HeaderValue, other: &HeaderValue) -> bool {
    one.as_bytes().eq_ignore_ascii_case(other.as_bytes())
}

/// Whether `value` is `uri-host [":" port]` (RFC 9110, section 7.2); empty is allowed, for targets without one.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || is_plain_host(value) || is_odd_host(value)
}

/// Whether it is as nearly all are: letters, digits, dots and hyphens, with or without a port. Seen in one pass, which the
/// whole grammar is not.
fn is_plain_host(value: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let name = value.iter().position(|byte| !is_of_name(byte));
    match name.map(|end| value.split_at(end)) {
        None => true,
        Some((name, [b':', port @ ..])) => {
            let digit = |number: u32, byte: &u8| number * 10 + u32::from(byte - b'0');
            !name.is_empty()
                && matches!(port.len(), 1..=5)
                && port.iter().all(u8::is_ascii_digit)
                && u16::try_from(port.iter().fold(0, digit)).is_ok()
        }
        Some(_) => false,
    }
}

fn is_odd_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else { return false };
    let text = authority.as_str();
    let port = match (authority.host().len(), text.len()) {
        (host, all) if host == all => Some(""),
        (host, _) => text.get(host..).and_then(|rest| rest.strip_prefix(':')),
    };
    let Some(port) = port else { return false };
    !text.contains([',', '@', '/', ' '])
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host_of(target: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HOST, HeaderValue::from_str(line).unwrap());
        }
        host(&target.parse().unwrap(), &headers, Version::HTTP_11)
            .ok()
            .map(|value| value.to_str().unwrap().to_owned())
    }

    proptest! {
        /// Without the shortcut, the verdict would be the same.
        #[test]
        fn a_plain_host_is_a_host(value in "[a-zA-Z0-9.:_-]{1,12}(:[0-9]{0,6})?") {
            let is_plain = is_plain_host(value.as_bytes());
            prop_assert!(!is_plain || is_odd_host(value.as_bytes()), "{}", value);
        }
    }

    #[test]
    fn one_host_and_a_clean_one() {
        assert_eq!(host_of("/x", &["a.example"]).as_deref(), Some("a.example"));
        assert_eq!(host_of("/x", &["a:80"]).as_deref(), Some("a:80"));
        assert_eq!(host_of("/x", &["[::1]:80"]).as_deref(), Some("[::1]:80"));
        assert_eq!(host_of("/x", &[""]).as_deref(), Some(""));
        let refused: &[&[&str]] = &[
            &[],
            &["a", "a"],
            &["a", "b"],
            &["a, b"],
            &["user@a"],
            &["a/path"],
            &["a:http"],
            &["a:99999"],
            &["a b"],
            &["http://a"],
        ];
        for lines in refused {
            assert_eq!(host_of("/x", lines), None, "{lines:?}");
        }
    }

    #[test]
    fn an_absolute_target_wins() {
        assert_eq!(host_of("http://a/x", &["b"]).as_deref(), Some("a"));
        assert_eq!(host_of("http://a/x", &["b", "c"]), None);
        assert_eq!(host_of("http://a/x", &[]), None);
        assert_eq!(host_of("http://u@a/x", &["a"]), None);
    }

    #[test]
    fn http_1_0_may_go_without() {
        let host = host(&"/".parse().unwrap(), &HeaderMap::new(), Version::HTTP_10).unwrap();
        assert!(host.is_empty());
    }

    #[test]
    fn http_2_has_one_authority() {
        let host_of = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(line));
            host(&"https://a.example/x".parse().unwrap(), &headers, Version::HTTP_2).is_ok()
        };
        assert!(host_of("A.example") && !host_of("b.example"));
    }

    #[test]
    fn space_around_a_value_is_seen() {
        for (value, good) in
            [("", true), ("a b", true), (" a", false), ("a\t", false), (" ", false)]
        {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(value))]);
            assert_eq!(are_trimmed(&headers), good, "{value:?}");
        }
    }

    fn request(method: Method, target: &str) -> Request<()> {
        Request::builder().method(method).uri(target).body(()).unwrap()
    }

    #[test]
    fn heads_are_bounded() {
        let mut get = request(Method::GET, "/");
        let long = request(Method::GET, &format!("/{}", "a".repeat(100)));
        assert!(matches!(check(&long, 50), Err(Refused::TargetTooLong)));
        for index in 0..5 {
            let name: http::HeaderName = format!("x-{index}").parse().unwrap();
            get.headers_mut().insert(name, HeaderValue::from_str(&"v".repeat(8_000)).unwrap());
        }
        let headers = get.headers_mut();
        let mut settings = ProxySettings::default();
        assert!(matches!(check_size(headers, &settings), Err(Refused::HeadersTooLarge)));
        settings.max_header_bytes = 50_000.try_into().unwrap();
        assert!(check_size(headers, &settings).is_ok());
        settings.max_headers = 4.try_into().unwrap();
        assert!(matches!(check_size(headers, &settings), Err(Refused::HeadersTooLarge)));
        assert!(check(&get, 50).is_ok());
        for (method, target, in_place) in [
            (Method::GET, "a", false),
            (Method::GET, "a:80", false),
            (Method::GET, "*", false),
            (Method::OPTIONS, "*", true),
            (Method::GET, "http://a", true),
            (Method::GET, "/*", true),
        ] {
            assert_eq!(check(&request(method, target), 50).is_ok(), in_place, "{target}");
        }
        settings.max_headers = 6.try_into().unwrap();
        for _ in 0..50 {
            get.headers_mut().append(COOKIE, HeaderValue::from_static("a=1"));
        }
        assert!(check_size(get.headers(), &settings).is_ok(), "five fields and a cookie");
        settings.max_header_bytes = 40_400.try_into().unwrap();
        assert!(matches!(check_size(get.headers(), &settings), Err(Refused::HeadersTooLarge)));
        let trace = request(Method::TRACE, "/");
        assert!(matches!(check(&trace, 50), Err(Refused::MethodNotAllowed)));
    }

    #[test]
    fn of_connects_only_a_websocket_is_one_for_us() {
        let mut connect = request(Method::CONNECT, "a:443");
        assert!(matches!(check(&connect, 50), Err(Refused::MethodNotAllowed)));
        connect.extensions_mut().insert(Protocol::from_static("websocket"));
        assert!(check(&connect, 50).is_ok());
        connect.extensions_mut().insert(Protocol::from_static("connect-udp"));
        assert!(matches!(check(&connect, 50), Err(Refused::ProtocolUnknown)));
    }
}
