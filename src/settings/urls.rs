//! The URLs that settings hold: what is refused, and what is hidden when one is printed.

use http::uri::Authority;

/// What is wrong with the URL of a backend or hub: it must be `http://host:port` or `https://host:port`,
/// nothing more.
pub(super) fn refuse_http(text: &str) -> Option<String> {
    let like = "write it like http://127.0.0.1:4001";
    // A password that stands there by mistake is not repeated into a log.
    let shown = mask_password(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some(format!("{shown:?} is not a URL; {like}"));
    };
    if !matches!(scheme, "http" | "https") {
        return Some(format!("{shown:?} does not begin with http:// or https://; {like}"));
    }
    if rest.contains(['/', '?', '#']) {
        return Some(format!("{shown:?} has a path or query, which it must not have; {like}"));
    }
    if rest.contains('@') {
        return Some(format!("{shown:?} has a user, which it must not have; {like}"));
    }
    let Ok(authority) = rest.parse::<Authority>() else {
        return Some(format!("{shown:?} has no valid host and port; {like}"));
    };
    match authority.port_u16() {
        Some(port) if port > 0 && !authority.host().is_empty() => None,
        Some(0) => Some(format!("{shown:?} names port 0, where nothing can listen; {like}")),
        _ => Some(format!("{shown:?} has no host and port; {like}")),
    }
}

/// Whether a page's `Origin` can have this value: scheme and host, no path; or `null`.
pub(super) fn is_origin(text: &str) -> bool {
    text == "null"
        || text.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty()
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                && !rest.contains(['/', '?', '#', '@'])
                && rest.parse::<Authority>().is_ok_and(|host| !host.host().is_empty())
        })
}

/// The URL with `***` for its password, and for the values in its query, which may be one too.
pub(super) fn mask_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    // A password may hold `/`, `?` and `#` where it was not encoded: the last `@` decides.
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let place = match place.split_once('?') {
        Some((place, _)) => format!("{place}?***"),
        None => place.to_owned(),
    };
    match user.map(|user| user.split_once(':')) {
        Some(Some((name, _))) => format!("{scheme}://{name}:***@{place}"),
        Some(None) => format!("{scheme}://{}@{place}", user.unwrap_or_default()),
        None => format!("{scheme}://{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_a_scheme_a_host_and_a_port() {
        for good in [
            "http://127.0.0.1:4001",
            "http://[::1]:80",
            "http://api.internal:8080",
            "https://api.internal:8443",
        ] {
            assert_eq!(refuse_http(good), None, "{good}");
        }
        for (bad, why) in [
            ("127.0.0.1:4001", "not a URL"),
            ("https://a:1/x", "path or query"),
            ("ws://a:1", "begin with http://"),
            ("http://a:1/", "path or query"),
            ("http://a:1?x", "path or query"),
            ("http://u:p@a:1", "a user"),
            ("http://a", "no host and port"),
            ("http://:80", "no host and port"),
            ("http://a:99999", "no host and port"),
            ("http://a:0", "port 0"),
            ("http://a b:1", "no valid host"),
            ("http://", "host and port"),
        ] {
            let said = refuse_http(bad).unwrap_or_default();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn only_the_password_is_hidden() {
        assert_eq!(mask_password("redis://u:p@h:1/0"), "redis://u:***@h:1/0");
        assert_eq!(mask_password("redis://:p/q@r@h:1"), "redis://:***@h:1");
        assert_eq!(mask_password("redis://u@h:1"), "redis://u@h:1");
        assert_eq!(mask_password("redis://h:1?password=x"), "redis://h:1?***");
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!(is_origin("https://chat.example") && is_origin("http://localhost:3000"));
        assert!(is_origin("null") && is_origin("capacitor://localhost"));
        assert!(
            !is_origin("https://chat.example/") && !is_origin("chat.example") && !is_origin("*")
        );
    }
}
