//! Handshakes: each refusal, and what the query means.

use proptest::prelude::*;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request(headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get("/ws?userId=alice");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("connection", "keep-alive"),
        ("connection", "foo , UPGRADE"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ]
}

#[test]
fn the_sample_of_the_rfc_gets_its_key() {
    let key = upgrade(&request(&good())).unwrap();
    assert_eq!(key.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn over_http_2_there_is_no_key() {
    let connect = |protocol, version| {
        let mut parts = request(&[("sec-websocket-version", version)]);
        (parts.method, parts.version) = (Method::CONNECT, Version::HTTP_2);
        parts.extensions.insert(Protocol::from_static(protocol));
        upgrade(&parts)
    };
    assert_eq!(connect("websocket", "13"), Ok(None));
    assert_eq!(connect("websocket", "8"), Err(Refusal::VersionUnsupported));
    assert_eq!(connect("other", "13"), Err(Refusal::UpgradeRequired));
}

#[test]
fn each_missing_part_has_its_refusal() {
    for (dropped, refusal) in [
        ("connection", Refusal::UpgradeRequired),
        ("upgrade", Refusal::UpgradeRequired),
        ("sec-websocket-version", Refusal::VersionUnsupported),
        ("sec-websocket-key", Refusal::UpgradeRequired),
    ] {
        let mut headers = good();
        headers.retain(|(name, _)| *name != dropped);
        assert_eq!(upgrade(&request(&headers)), Err(refusal), "without {dropped}");
    }
}

#[test]
fn wrong_versions_and_keys_are_refused() {
    for (name, value, refusal) in [
        ("sec-websocket-version", "8", Refusal::VersionUnsupported),
        ("sec-websocket-key", "dGhlIHNhbXBsZQ==", Refusal::UpgradeRequired),
        ("sec-websocket-key", "!GhlIHNhbXBsZSBub25jZQ==", Refusal::UpgradeRequired),
        ("upgrade", "h2c", Refusal::UpgradeRequired),
    ] {
        let mut headers = good();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
        assert_eq!(upgrade(&request(&headers)), Err(refusal), "{name}: {value}");
    }
    let mut twice = good();
    twice.push(("sec-websocket-key", KEY));
    assert_eq!(upgrade(&request(&twice)), Err(Refusal::UpgradeRequired));
}

#[test]
fn only_get_over_http_1_1_upgrades() {
    let mut old = request(&good());
    old.version = Version::HTTP_10;
    assert_eq!(upgrade(&old), Err(Refusal::UpgradeRequired));
    let mut post = request(&good());
    post.method = Method::POST;
    assert_eq!(upgrade(&post), Err(Refusal::UpgradeRequired));
}

#[test]
fn users_are_decoded_and_checked() {
    for (query, user) in [
        ("userId=alice", Ok("alice")),
        ("region=1&userId=al%69ce%2B1", Ok("alice+1")),
        ("userId=a&userId=%61", Ok("a")),
        ("userId=100%", Ok("100%")),
        ("", Err(UserFault::Missing)),
        ("userId", Err(UserFault::Missing)),
        ("userid=alice", Err(UserFault::Missing)),
        ("userId=a&userId=b", Err(UserFault::Repeated)),
        ("userId=a+b", Err(UserFault::Malformed)),
        ("userId=%7Ba%7D", Err(UserFault::Malformed)),
        ("userId=%C3%A9", Err(UserFault::Malformed)),
        ("userId=%FF", Err(UserFault::Malformed)),
        ("userId=a%00", Err(UserFault::Malformed)),
    ] {
        let parsed = Query::parse(query).map(|query| query.user);
        assert_eq!(parsed, user.map(str::to_owned), "{query}");
    }
    assert!(Query::parse(&format!("userId={}", "a".repeat(128))).is_ok());
    assert!(Query::parse(&format!("userId={}", "a".repeat(129))).is_err());
}

#[test]
fn resume_needs_both_parts() {
    for (query, cursor) in [
        ("userId=a", Cursor::fresh()),
        ("userId=a&epoch=e", Cursor::fresh()),
        ("userId=a&since=5&epoch=e", Cursor::after(5, Arc::from("e"))),
        ("userId=a&since=5", Cursor::unclear()),
        ("userId=a&since=%2B5&epoch=e", Cursor::unclear()),
        ("userId=a&since=&epoch=e", Cursor::unclear()),
        ("userId=a&since=99999999999999999999&epoch=e", Cursor::unclear()),
        ("userId=a&since=1&since=2&epoch=e", Cursor::unclear()),
    ] {
        let parsed = Query::parse(query).unwrap();
        assert_eq!(parsed.cursor, cursor, "{query}");
    }
}

#[test]
fn origins_count_only_where_some_are_named() {
    let page = request(&[("origin", "https://chat.example")]).headers;
    let other = request(&[("origin", "https://evil.example")]).headers;
    let allowed = ["https://chat.example".to_owned()];
    assert!(origin_allowed(&other, &[]));
    assert!(origin_allowed(&page, &allowed));
    assert!(!origin_allowed(&other, &allowed));
    assert!(origin_allowed(&HeaderMap::new(), &allowed));
}

proptest! {
    #[test]
    fn no_query_panics_and_no_bad_user_passes(query in ".{0,200}") {
        if let Ok(parsed) = Query::parse(&query) {
            prop_assert!(protocol::is_user(&parsed.user));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(user in "[!-z|~]{1,128}") {
        let escapes: Vec<_> = user.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let query = format!("userId={}", escapes.concat());
        prop_assert_eq!(Query::parse(&query).unwrap().user, user);
    }
}
