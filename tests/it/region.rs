//! Region → backend: the table of the contract, once as HTTP and once as WebSocket handshakes.

use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{exchange, get};
use meridian::settings::RegionName;

/// The region served, or the status and the error code.
type Verdict = Result<&'static str, (u16, &'static str)>;

/// Header lines, query, and what comes of them: a status and an error code, or the region served.
const TABLE: &[(&str, &str, Verdict)] = &[
    ("x-region: 1\r\n", "", Ok("1")),
    ("x-region: 2\r\n", "", Ok("2")),
    ("X-Region: 1\r\n", "", Ok("1")),
    ("x-region:  1 \r\n", "", Ok("1")),
    ("x-region:\t2\t\r\n", "", Ok("2")),
    ("", "region=1", Ok("1")),
    ("", "region=2&x=y", Ok("2")),
    ("", "x=y&region=2", Ok("2")),
    ("", "region=%31", Ok("1")),
    ("", "region=+1+", Ok("1")),
    ("x-region: 1\r\n", "region=2", Ok("1")),
    ("x-region: 1\r\nx-region: 1\r\n", "", Ok("1")),
    ("", "region=1&region=1", Ok("1")),
    ("", "", Err((400, "region_required"))),
    ("", "regions=1", Err((400, "region_required"))),
    ("x-region: \r\n", "", Err((400, "region_invalid"))),
    ("", "region=", Err((400, "region_invalid"))),
    ("x-region: 1\r\nx-region: 2\r\n", "", Err((400, "region_invalid"))),
    ("", "region=1&region=2", Err((400, "region_invalid"))),
    ("x-region: a b\r\n", "", Err((400, "region_invalid"))),
    ("x-region: 1,2\r\n", "", Err((400, "region_invalid"))),
    ("x-region: ../1\r\n", "", Err((400, "region_invalid"))),
    ("x-region: r\u{e9}gion\r\n", "", Err((400, "region_invalid"))),
    ("", "region=%00", Err((400, "region_invalid"))),
    ("", "region=%zz", Err((400, "region_invalid"))),
    ("x-region: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", "", Err((400, "region_invalid"))),
    ("x-region: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", "", Err((404, "region_unknown"))),
    ("x-region: 3\r\n", "", Err((404, "region_unknown"))),
    ("", "region=eu-west_1", Err((404, "region_unknown"))),
    ("x-region: 3\r\n", "region=1", Err((404, "region_unknown"))),
    ("x_region: 1\r\n", "", Err((400, "region_required"))),
    ("connection: x-region\r\nx-region: 2\r\n", "", Ok("2")),
];

#[tokio::test]
async fn the_table_as_http() {
    let (one, two) = (Backend::saying("from 1").await, Backend::saying("from 2").await);
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", one.address);
        add_backend(settings, "2", two.address);
    })
    .await;
    for (headers, query, expected) in TABLE {
        let answer = get(gateway.proxy(), &format!("/x?{query}"), headers).await;
        match expected {
            Ok(region) => {
                assert_eq!(answer.status, 200, "{headers:?} {query:?}");
                assert_eq!(answer.text(), format!("from {region}"), "{headers:?} {query:?}");
            }
            Err((status, code)) => {
                assert_eq!(answer.status, *status, "{headers:?} {query:?}");
                assert_eq!(answer.code(), *code, "{headers:?} {query:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_table_as_websocket_handshakes() {
    let gateway = Gateway::start(|_| ()).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (headers, query, expected) in TABLE {
        let path = format!("/ws?userId=alice&{query}");
        let answer = get(gateway.proxy(), &path, &format!("{headers}{upgrade}")).await;
        match expected {
            Ok(_) => {
                assert_eq!(answer.status, 101, "{headers:?} {query:?}");
                let accept = answer.header("sec-websocket-accept");
                assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            }
            Err((status, code)) => {
                assert_eq!(answer.status, *status, "{headers:?} {query:?}");
                assert_eq!(answer.code(), *code, "{headers:?} {query:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_default_region_serves_those_that_name_none() {
    let backend = Backend::saying("home").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "2", backend.address);
        settings.default_region = Some(RegionName::new("2").unwrap());
    })
    .await;
    assert_eq!(get(gateway.proxy(), "/", "").await.text(), "home");
    assert_eq!(backend.header("x-region"), ["2"]);
    assert_eq!(get(gateway.proxy(), "/", "x-region: 9\r\n").await.status, 404);
}

#[tokio::test]
async fn the_backend_gets_one_canonical_region() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let headers = "x-region: 1\r\nX-Region:  1 \r\nx_region: 2\r\n";
    assert_eq!(get(gateway.proxy(), "/?region=2", headers).await.status, 200);
    assert_eq!(backend.header("x-region"), ["1"]);
    assert!(backend.header("x_region").is_empty());
    assert!(backend.head().starts_with("GET /?region=2 HTTP/1.1\r\n"), "{}", backend.head());
}

#[tokio::test]
async fn refusals_are_json_that_says_what_to_do() {
    let gateway = Gateway::start(|_| ()).await;
    let answer = get(gateway.proxy(), "/", "").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = &answer.json()["error"];
    assert_eq!(error["requestId"].as_str(), answer.header("x-request-id"));
    assert_eq!(error["regions"], serde_json::json!(["1", "2"]));
    assert!(error["message"].as_str().unwrap().contains("x-region"), "{error}");
    // HEAD: the same status and headers, and no body.
    let head = exchange(gateway.proxy(), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(head.status, 400);
    assert_eq!(head.header("content-type"), Some("application/json"));
    assert_eq!(head.header("content-length"), answer.header("content-length"));
}

#[tokio::test]
async fn a_region_without_backends_is_unavailable() {
    let gateway = Gateway::start(|_| ()).await;
    let answer = get(gateway.proxy(), "/", "x-region: 1\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "region_unavailable"));
    let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds > 0);
}
