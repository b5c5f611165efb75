//! What passes and what does not, field by field.

use http::header::{ACCEPT, VIA};
use proptest::prelude::*;

use super::super::Scheme;
use super::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn caller() -> Caller {
    Caller {
        peer: "9.9.9.9".parse().unwrap(),
        client: "9.9.9.9".parse().unwrap(),
        trusted: false,
        scheme: Scheme::Https,
        tls: None,
        host: HeaderValue::from_static("shop.example"),
        max_body_bytes: None,
        arrival: std::sync::Arc::default(),
        request_id: HeaderValue::from_static("r1"),
    }
}

/// Of region `eu`, by the gateway `edge`.
fn prepare(
    headers: &mut HeaderMap,
    version: Version,
    has_body: bool,
) -> Result<Prepared, ForwardError> {
    let (region, hops) = (HeaderValue::from_static("eu"), Hops::new("edge", 8));
    let marks = Marks { region: &region, hops: &hops, trace: TraceMode::Pass };
    prepare_request(headers, version, &caller(), marks, has_body)
}

/// As [`prepare`], for an answer.
fn answer(
    headers: &mut HeaderMap,
    length: Option<u64>,
    trailers: bool,
) -> Result<(), AmbiguousReply> {
    let (region, hops) = (HeaderValue::from_static("eu"), Hops::new("edge", 8));
    let marks = Marks { region: &region, hops: &hops, trace: TraceMode::Pass };
    prepare_response(headers, Version::HTTP_10, marks, length, trailers)
}

fn request(fields: &[(&'static str, &str)], has_body: bool) -> (HeaderMap, Prepared) {
    let mut headers = map(fields);
    let prepared = prepare(&mut headers, Version::HTTP_11, has_body).unwrap();
    (headers, prepared)
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

#[test]
fn transfer_encoding_is_one_chunked_or_nothing() {
    let te = "transfer-encoding";
    let fine: &[&[(&'static str, &str)]] = &[
        &[],
        &[(te, "chunked")],
        &[(te, " Chunked ")],
        &[(te, "chunked"), ("content-length", "3")],
    ];
    for fields in fine {
        assert_eq!(check_framing(&map(fields), Version::HTTP_11), Ok(()), "{fields:?}");
    }
    let wrong: &[&[(&'static str, &str)]] = &[
        &[(te, "")],
        &[(te, "gzip")],
        &[(te, "identity")],
        &[(te, "gzip, chunked")],
        &[(te, "chunked, chunked")],
        &[(te, "chunked"), (te, "chunked")],
        &[(te, "gzip"), (te, "chunked")],
        &[(te, "chunked;q=1")],
    ];
    for fields in wrong {
        let verdict = check_framing(&map(fields), Version::HTTP_11);
        assert_eq!(verdict, Err(FramingError::TransferEncoding), "{fields:?}");
    }
    let old = check_framing(&map(&[(te, "chunked")]), Version::HTTP_10);
    assert_eq!(old, Err(FramingError::Version));
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let (headers, prepared) = request(
        &[
            ("connection", "keep-alive, Upgrade, x-secret"),
            ("connection", "X-Other ,, @ é"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("accept", "*/*"),
        ],
        false,
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-region",
        "x-region-requested",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(prepared, Prepared { expects: false, trailers: false, trace: None });
}

#[test]
fn what_a_client_nominates_is_gone_before_ours_is_added() {
    let (headers, _) = request(
        &[
            ("connection", "close, x-region, x-forwarded-for, x-request-id, host"),
            ("x-region", "us"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-request-id", "theirs"),
            ("host", "evil.example"),
        ],
        false,
    );
    assert_eq!(lines(&headers, "x-region"), [b"eu"]);
    assert_eq!(lines(&headers, "x-forwarded-for"), [b"9.9.9.9"]);
    assert_eq!(lines(&headers, "x-request-id"), [b"r1"]);
    assert_eq!(lines(&headers, "host"), [b"shop.example"]);
    assert!(!headers.contains_key(CONNECTION));
}

#[test]
fn underscore_spellings_of_our_fields_are_dropped_and_others_pass() {
    let (headers, _) = request(
        &[
            ("x_region", "us"),
            ("x-forwarded_for", "6.6.6.6"),
            ("x_real_ip", "6.6.6.6"),
            ("x_request_id", "6"),
            ("content_length", "6"),
            ("my_own", "1"),
        ],
        false,
    );
    let aliases = headers.keys().filter(|name| name.as_str().contains('_'));
    assert_eq!(aliases.map(HeaderName::as_str).collect::<Vec<_>>(), ["my_own"]);
}

#[test]
fn a_chunked_body_is_chunked_anew_and_has_no_length() {
    let fields = [
        ("transfer-encoding", "chunked"),
        ("content-length", "3"),
        ("trailer", "x-sum"),
        ("te", "deflate, Trailers"),
    ];
    let (headers, prepared) = request(&fields, true);
    assert_eq!(lines(&headers, "transfer-encoding"), [b"chunked"]);
    assert!(!headers.contains_key(CONTENT_LENGTH));
    assert_eq!(lines(&headers, "trailer"), [b"x-sum"]);
    assert_eq!(lines(&headers, "te"), [b"trailers"]);
    assert_eq!(lines(&headers, "connection"), [b"te"]);
    assert!(prepared.trailers);
    let (headers, _) = request(&[("content-length", "3"), ("accept", "a")], true);
    assert_eq!(lines(&headers, "content-length"), [b"3"]);
}

#[test]
fn expect_means_something_only_with_a_body_to_come() {
    let expect = [("expect", "100-Continue"), ("content-length", "3")];
    assert!(request(&expect, true).1.expects);
    assert!(!request(&expect, false).1.expects);
    let mut headers = map(&expect);
    let old = prepare(&mut headers, Version::HTTP_10, true).unwrap();
    assert!(!old.expects && !headers.contains_key(EXPECT));
}

#[test]
fn cookie_crumbs_are_one_field() {
    let (headers, _) = request(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], false);
    assert_eq!(lines(&headers, "cookie"), [b"a=1; b=2; c=3"]);
}

#[test]
fn a_reply_that_states_two_lengths_is_refused() {
    let te = "transfer-encoding";
    let wrong: &[&[(&'static str, &str)]] = &[
        &[(te, "chunked"), ("content-length", "5")],
        &[(te, "gzip, chunked")],
        &[(te, "gzip")],
        &[(te, "chunked"), (te, "chunked")],
    ];
    for fields in wrong {
        let verdict = answer(&mut map(fields), None, true);
        assert_eq!(verdict, Err(AmbiguousReply), "{fields:?}");
    }
    let mut equal = map(&[("content-length", "5"), ("content-length", "5")]);
    answer(&mut equal, Some(5), true).unwrap();
    assert_eq!(lines(&equal, "content-length"), [b"5"]);
    let mut listed = map(&[("content-length", "5, 5")]);
    answer(&mut listed, Some(5), true).unwrap();
    assert_eq!(lines(&listed, "content-length"), [b"5"]);
}

#[test]
fn a_reply_keeps_what_is_the_clients() {
    let mut headers = map(&[
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("proxy-authenticate", "Basic"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x_own", "1"),
    ]);
    answer(&mut headers, None, false).unwrap();
    assert_eq!(lines(&headers, "set-cookie"), [b"a=1", b"b=2"]);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["set-cookie", "via", "x-region-served", "x_own"]);
    let mut headers = map(&[("transfer-encoding", "chunked"), ("trailer", "x-sum")]);
    answer(&mut headers, None, true).unwrap();
    assert_eq!(lines(&headers, "trailer"), [b"x-sum"]);
}

#[test]
fn regions_are_told_by_the_gateway_alone() {
    let fields = [
        ("x-region-requested", "us"),
        ("x-region-served", "us"),
        ("x_region_requested", "us"),
        ("x-region_served", "us"),
    ];
    let (mut headers, _) = request(&fields, false);
    assert_eq!(lines(&headers, "x-region"), [b"eu"]);
    assert_eq!(lines(&headers, "x-region-requested"), [b"eu"]);
    assert!(headers.keys().all(|name| !name.as_str().contains("served")));
    assert!(headers.keys().all(|name| !name.as_str().contains('_')));
    hand_over(&mut headers, &HeaderValue::from_static("us"));
    assert_eq!(lines(&headers, "x-region"), [b"us"]);
    assert_eq!(lines(&headers, "x-region-requested"), [b"eu"]);
    let mut headers = map(&fields);
    answer(&mut headers, None, false).unwrap();
    assert_eq!(lines(&headers, "x-region-served"), [b"eu"]);
    assert_eq!(headers.keys_len(), 2, "and via: {headers:?}");
}

#[test]
fn each_hop_is_signed_both_ways() {
    let (headers, _) = request(&[("connection", "via"), ("via", "1.1 a")], false);
    assert_eq!(lines(&headers, "via"), [b"1.1 edge"]);
    let (headers, _) = request(&[("via", "1.0 a, 1.1 b")], false);
    assert_eq!(lines(&headers, "via"), [&b"1.0 a, 1.1 b"[..], b"1.1 edge"]);
    let mut headers = map(&[("via", "1.1 a")]);
    answer(&mut headers, None, false).unwrap();
    assert_eq!(lines(&headers, "via"), [&b"1.1 a"[..], b"1.0 edge"]);
    let circle = prepare(&mut map(&[("via", "1.1 edge")]), Version::HTTP_11, false);
    assert_eq!(circle, Err(ForwardError::Loop));
    assert!(headers.contains_key(VIA));
}

proptest! {
    #[test]
    fn no_request_gets_through_with_a_hop_field_or_a_second_region(
        fields in prop::collection::vec((
            prop::sample::select(vec![
                "connection", "te", "upgrade", "x-region", "x_region", "keep-alive", "trailer",
                "accept", "authorization", "host", "x-forwarded-for", "content-length", "cookie",
                "transfer-encoding", "proxy-connection",
            ]),
            "[a-z ,_-]{0,20}",
        ), 0..12),
        has_body in any::<bool>(),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut headers = map(&fields);
        let verdict = prepare(&mut headers, Version::HTTP_11, has_body);
        if let Ok(prepared) = verdict {
            prop_assert_eq!(lines(&headers, "x-region"), vec![b"eu"]);
            prop_assert_eq!(lines(&headers, "host").len(), 1);
            prop_assert!(!headers.contains_key("x_region") && !headers.contains_key(UPGRADE));
            prop_assert!(!headers.contains_key(&KEEP_ALIVE));
            prop_assert_eq!(headers.contains_key(TE), prepared.trailers);
            let nominated = fields.iter().any(|(name, value)| {
                *name == "connection" && value.split(',').any(|token| token.trim() == "accept")
            });
            let sent = fields.iter().any(|(name, _)| *name == "accept");
            prop_assert_eq!(headers.contains_key(ACCEPT), sent && !nominated);
        }
    }
}
