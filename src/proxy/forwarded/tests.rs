//! Chains of hops, believed and not.

use proptest::prelude::*;

use super::super::Scheme;
use super::*;

type Fields<'a> = &'a [(&'static str, &'a str)];

fn map(fields: Fields<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn caller(peer: &str, client: &str, trusted: bool) -> Caller {
    Caller {
        peer: peer.parse().unwrap(),
        client: client.parse().unwrap(),
        trusted,
        scheme: Scheme::Http,
        tls: None,
        host: HeaderValue::from_static("shop.example"),
        max_body_bytes: None,
        arrival: std::sync::Arc::default(),
        request_id: HeaderValue::from_static("r1"),
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn the_client_is_the_right_most_hop_that_is_not_trusted() {
    let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let xff = "x-forwarded-for";
    let rows: &[(&str, Fields<'_>, &str, bool)] = &[
        ("9.9.9.9", &[(xff, "1.1.1.1")], "9.9.9.9", false),
        ("::ffff:9.9.9.9", &[], "9.9.9.9", false),
        ("10.0.0.1", &[], "10.0.0.1", true),
        ("::ffff:10.0.0.1", &[(xff, "1.1.1.1")], "1.1.1.1", true),
        ("10.0.0.1", &[(xff, "6.6.6.6, 1.1.1.1")], "1.1.1.1", true),
        ("10.0.0.1", &[(xff, "6.6.6.6, 1.1.1.1, 10.0.0.2")], "1.1.1.1", true),
        ("10.0.0.1", &[(xff, "6.6.6.6"), (xff, "1.1.1.1")], "1.1.1.1", true),
        ("10.0.0.1", &[(xff, "10.0.0.3,10.0.0.2")], "10.0.0.3", true),
        ("10.0.0.1", &[(xff, "1.1.1.1:4711")], "1.1.1.1", true),
        ("10.0.0.1", &[(xff, "2001:db8::1")], "2001:db8::1", true),
        ("fd00::1", &[(xff, "[2001:db8::1]:443")], "2001:db8::1", true),
        ("10.0.0.1", &[(xff, "garbage")], "10.0.0.1", true),
        ("10.0.0.1", &[(xff, "1.1.1.1, unknown, 10.0.0.2")], "10.0.0.2", true),
        ("10.0.0.1", &[(xff, "")], "10.0.0.1", true),
        ("10.0.0.1", &[("forwarded", "for=1.1.1.1;proto=https")], "1.1.1.1", true),
        (
            "10.0.0.1",
            &[("forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:80\"")],
            "2001:db8::1",
            true,
        ),
        ("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden")], "10.0.0.1", true),
        ("10.0.0.1", &[("forwarded", "host=\"a,b;for=6.6.6.6\";for=1.1.1.1")], "1.1.1.1", true),
        ("10.0.0.1", &[("forwarded", "proto=http")], "10.0.0.1", true),
        ("10.0.0.1", &[(xff, "1.1.1.1"), ("forwarded", "for=6.6.6.6")], "1.1.1.1", true),
    ];
    for (peer, fields, client, trusted) in rows {
        let found = client_address(&map(fields), peer.parse().unwrap(), &nets);
        assert_eq!(found, (client.parse().unwrap(), *trusted), "{peer} {fields:?}");
    }
}

#[test]
fn nothing_is_believed_of_a_stranger() {
    let mut headers = map(&[
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/admin"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("accept", "*/*"),
    ]);
    apply(&mut headers, &caller("9.9.9.9", "9.9.9.9", false), true);
    assert_eq!(lines(&headers, "x-forwarded-for"), ["9.9.9.9"]);
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(lines(&headers, "x-real-ip"), ["9.9.9.9"]);
    assert_eq!(lines(&headers, "accept"), ["*/*"]);
    assert_eq!(headers.len(), 5);
}

#[test]
fn a_trusted_chain_grows_by_one() {
    let mut headers = map(&[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "10.0.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/shop"),
        ("forwarded", "for=1.1.1.1"),
    ]);
    apply(&mut headers, &caller("fd00::1", "1.1.1.1", true), true);
    assert_eq!(lines(&headers, "x-forwarded-for"), ["1.1.1.1, 10.0.0.9, fd00::1"]);
    assert_eq!(lines(&headers, "forwarded"), ["for=1.1.1.1, for=\"[fd00::1]\";proto=http"]);
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(lines(&headers, "x-forwarded-prefix"), ["/shop"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(lines(&headers, "x-real-ip"), ["1.1.1.1"]);
}

#[test]
fn a_chain_that_cannot_be_read_begins_anew() {
    for broken in ["1.1.1.1, <script>", "a b", "1.1.1.1,,"] {
        let mut headers = map(&[("x-forwarded-for", broken), ("x-forwarded-proto", "a,b")]);
        apply(&mut headers, &caller("10.0.0.1", "10.0.0.1", true), true);
        assert_eq!(lines(&headers, "x-forwarded-for"), ["10.0.0.1"], "{broken}");
        assert_eq!(lines(&headers, "x-forwarded-proto"), ["http"]);
    }
    for broken in ["for=\"1.1.1.1", "for=", "proto=http", "for=1.1.1.1,,"] {
        let mut headers = map(&[("forwarded", broken)]);
        apply(&mut headers, &caller("10.0.0.1", "10.0.0.1", true), true);
        assert_eq!(lines(&headers, "forwarded"), ["for=10.0.0.1;proto=http"], "{broken}");
    }
}

proptest! {
    #[test]
    fn no_chain_breaks_the_reader(
        value in prop::collection::vec(32_u8..=255, 0..80),
        name in prop::sample::select(vec!["x-forwarded-for", "forwarded"]),
        trusted in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(name, value);
        }
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        client_address(&headers, peer, &nets);
        apply(&mut headers, &caller("10.0.0.1", "10.0.0.1", trusted), true);
        let chain = headers.get("x-forwarded-for").unwrap().as_bytes();
        prop_assert!(chain.ends_with(b"10.0.0.1"));
    }
}
