//! What the gateway says of a request, and what it leaves alone; the rules on single fields stand in the tables of `rows`.

use crate::harness::backend::{Backend, Step};
use crate::harness::gateway::Gateway;
use crate::harness::http::{exchange, get};

#[tokio::test]
async fn every_request_has_an_id_of_ours() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let answer = get(gateway.proxy(), "/", "x-region: 1\r\nX-Request-Id: mine\r\n").await;
    let id = answer.header("x-request-id").unwrap();
    assert_ne!(id, "mine", "a stranger's id was believed");
    assert_eq!(id.len(), 32);
    assert_eq!(backend.header("x-request-id"), [id]);
}

#[tokio::test]
async fn everything_else_passes_untouched() {
    let reply = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: pot\r\n\r\nok";
    let backend = Backend::scripted([Step::Reply(reply.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let request = "PATCH /a%20b//../c?x=%41&y=+ HTTP/1.1\r\nHost: gateway.test\r\nx-region: 1\r\nCookie: a=1\r\nCookie: b=2\r\n\
                   Content-Length: 3\r\n\r\nabc";
    let answer = exchange(gateway.proxy(), request).await;
    assert_eq!(answer.status, 418);
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("server"), Some("pot"));
    assert!(
        backend.head().starts_with("PATCH /a%20b//../c?x=%41&y=+ HTTP/1.1\r\n"),
        "{}",
        backend.head()
    );
    assert_eq!(backend.header("host"), ["gateway.test"]);
    assert_eq!(backend.header("cookie").join("; "), "a=1; b=2");
}

/// A client of HTTP/1.0 need not name a host (RFC 9112, section 3.2); a backend that got an empty one would refuse it.
#[tokio::test]
async fn without_a_host_the_backend_is_meant_itself() {
    for lines in ["x-region: 1\r\n", "x-region: 1\r\nHost:\r\n"] {
        let backend = Backend::saying("ok").await;
        let gateway = Gateway::before(backend.address).await;
        let answer = exchange(gateway.proxy(), &format!("GET / HTTP/1.0\r\n{lines}\r\n")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(backend.header("host"), [backend.address.to_string()]);
        assert!(backend.header("x-forwarded-host").is_empty());
    }
}
