//! Who the API lets in, and what it bears: keys, bodies, rates, slow clients, a drain.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::api::{AUTHORIZATION, gateway, message, post, post_text, request, with_key};
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::http::{Http, exchange, get};

#[tokio::test]
async fn only_who_shows_a_key_is_let_in() {
    let gateway = gateway().await;
    let body = message("c1", "x").to_string();
    for (headers, hint) in [
        ("", "send an API key"),
        ("Authorization: Basic a-key-of-the-tests\r\n", "send an API key"),
        ("Authorization: Bearer a-key-of-the-test\r\n", "not known"),
        ("Authorization: Bearer A-KEY-OF-THE-TESTS\r\n", "not known"),
    ] {
        let refused = [
            exchange(gateway.api(), &request("/api/messages", headers, &body)).await,
            get(gateway.api(), "/api/presence?user=bob", headers).await,
        ];
        for answer in refused {
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{headers}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"meridian\""));
            assert!(answer.text().contains(hint), "{}", answer.text());
            assert_eq!(answer.header("x-request-id"), answer.json()["error"]["requestId"].as_str());
        }
    }
    let keyless = Gateway::start(|_| ()).await;
    let answer = post(keyless.api(), &message("c1", "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert!(answer.text().contains("API_KEY"), "{}", answer.text());
    // Anyone may read how it is used.
    let docs = get(keyless.api(), "/api/docs", "").await;
    assert_eq!(docs.status, 200);
    // … but not in a frame of somebody else's page.
    assert_eq!(docs.header("content-security-policy"), Some("frame-ancestors 'none'"));
    assert_eq!(docs.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn requests_that_are_none() {
    let gateway = gateway().await;
    for (body, code) in [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("[{\"from\":", "bad_json"),
        ("7", "bad_frame"),
        ("{}", "user_invalid"),
        ("[]", "batch_empty"),
        (r#"{"messages":[]}"#, "batch_empty"),
        (r#"{"messages":{}}"#, "bad_frame"),
        (r#"{"from":"a","to":"b"}"#, "text_empty"),
    ] {
        let answer = post_text(gateway.api(), body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
    }
    let body = message("c1", "x").to_string();
    for (kind, status) in [
        ("application/json; charset=utf-8", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ] {
        let request = request("/api/messages", AUTHORIZATION, &body);
        let answer = exchange(gateway.api(), &request.replace("application/json", kind)).await;
        assert_eq!(answer.status, status, "{kind}: {}", answer.text());
    }
    let headers = format!("{AUTHORIZATION}Content-Encoding: gzip\r\n");
    let answer = exchange(gateway.api(), &request("/api/messages", &headers, &body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (415, "media_type_unsupported"));
    let answer = get(gateway.api(), "/api/messages", AUTHORIZATION).await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("POST"));
    for path in ["/api", "/api/", "/api/nothing", "/apimessages", "/messages", "/"] {
        let answer = get(gateway.api(), path, AUTHORIZATION).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn bodies_and_rates_have_bounds() {
    let gateway = Gateway::start(|settings| {
        with_key(settings);
        settings.api.max_body_bytes = NonZeroUsize::new(200_000).unwrap();
        settings.api.requests_per_second = NonZeroU32::MIN;
        settings.api.request_burst = NonZeroU32::new(4).unwrap();
    })
    .await;
    // Sent whole before the answer is read, as most clients do.
    let body = message("c1", &"x".repeat(9_000_000)).to_string();
    let answer = post_text(gateway.api(), &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let chunked = format!(
        "POST /api/messages HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = exchange(gateway.api(), &chunked).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Who asks first is spared the sending.
    let expects = format!(
        "POST /api/messages HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}Expect: 100-continue\r\n\
         Content-Length: 300000\r\n\r\n"
    );
    assert_eq!(exchange(gateway.api(), &expects).await.status, 413);
    assert_eq!(post(gateway.api(), &message("c1", "x")).await.status, 202);
    let answer = post(gateway.api(), &message("c2", "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["error"]["retryable"], true);
    // A large body is read away for whoever shows no key, so that the answer is not lost.
    let refused = exchange(gateway.api(), &request("/api/messages", "", &body)).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for_and_a_broken_one_is_noticed() {
    let gateway = Gateway::start(|settings| {
        with_key(settings);
        settings.api.body_timeout = Duration::from_millis(200);
    })
    .await;
    let head = format!(
        "POST /api/messages HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}Content-Length: 9\r\n\r\n{{"
    );
    let answer = exchange(gateway.api(), &head).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
    let patient = Gateway::start(with_key).await;
    let mut http = Http::connect(patient.api()).await;
    http.send(&head).await;
    http.stream.shutdown().await.unwrap();
    http.rest().await;
    // Half-closed after the whole request is no break.
    let mut http = Http::connect(patient.api()).await;
    let whole = request("/api/messages", AUTHORIZATION, &message("c1", "x").to_string());
    http.send(&whole).await;
    http.stream.shutdown().await.unwrap();
    assert_eq!(http.answer(&whole).await.status, 202);
}

#[tokio::test]
async fn a_connection_is_kept_and_requests_follow_each_other() {
    let gateway = gateway().await;
    let mut http = Http::connect(gateway.api()).await;
    for index in 0..3 {
        let body = message(&format!("c{index}"), "x").to_string();
        let good = request("/api/messages", AUTHORIZATION, &body);
        http.send(&good).await;
        assert_eq!(http.answer(&good).await.json()["seq"], index + 1);
        let bad = request("/api/messages", "", &body);
        http.send(&bad).await;
        assert_eq!(http.answer(&bad).await.status, 401);
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_by_a_drain() {
    let gateway = gateway().await;
    let mut http = Http::connect(gateway.api()).await;
    let request = request("/api/messages", AUTHORIZATION, &message("c1", "x").to_string());
    let (first, last) = request.split_at(request.len() - 1);
    http.send(first).await;
    // Its head has been read when a later connection is answered: all of them are on one thread.
    get(gateway.api(), "/health", "").await;
    gateway.begin_stop().await;
    eventually("the drain", async || get(gateway.api(), "/ready", "").await.status == 503).await;
    http.send(last).await;
    let answer = http.answer(&request).await;
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    gateway.ended().await.unwrap();
}
