//! Clients of HTTP/2: gRPC through and through, and WebSockets by extended CONNECT.

use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::http2 as client;
use hyper::ext::Protocol;
use hyper::server::conn::http2 as server;
use hyper_util::rt::TokioExecutor;
use tokio::io::duplex;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::secure::{Authority, region};
use super::*;

/// A client of HTTP/2 before the gateway, over a pipe.
pub(super) async fn http2_client<B>(gateway: &Gateway) -> (client::SendRequest<B>, JoinSet<()>)
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (near, far) = duplex(64 * 1024);
    let (proxy, peer) = (Arc::clone(&gateway.proxy), gateway.address);
    let service = service_fn(move |request| answer(Arc::clone(&proxy), peer, request));
    let mut serving = server::Builder::new(TokioExecutor::new());
    serving.enable_connect_protocol();
    let mut tasks = JoinSet::new();
    let connection = serving.serve_connection(TokioIo::new(far), service);
    tasks.spawn(async { drop(connection.await) });
    let (sender, connection) =
        client::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    tasks.spawn(async { drop(connection.await) });
    (sender, tasks)
}

/// A call as gRPC makes it, told back by a backend that says in trailers how it went.
async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = hyper::Error>>, Infallible> {
    assert_eq!((request.method().as_str(), request.version()), ("POST", http::Version::HTTP_2));
    assert_eq!(request.uri().authority().map(http::uri::Authority::as_str), Some("shop.example"));
    let headers = request.headers();
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["x-region"], "1");
    for gone in ["connection", "transfer-encoding", "host"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    let body = request.into_body().collect().await.unwrap();
    let asked = body.trailers().unwrap().get("x-asked").unwrap().clone();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-asked", asked);
    let frames =
        [Ok(http_body::Frame::data(body.to_bytes())), Ok(http_body::Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

#[tokio::test]
async fn grpc_passes_from_end_to_end() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[b"h2"], false);
    let gateway = Gateway::of(region(backend.https(), true), authority.trusted()).await;
    let (mut client, _tasks) = http2_client(&gateway).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-asked", HeaderValue::from_static("yes"));
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi"))),
        Ok(http_body::Frame::trailers(trailers)),
    ];
    let call = Request::post("https://front.example/pkg.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let serve = async {
        let stream = backend.accept_tls(&acceptor).await.stream;
        let server = server::Builder::new(TokioExecutor::new());
        drop(server.serve_connection(TokioIo::new(stream), service_fn(echo)).await);
    };
    let call = async {
        let answer = client.send_request(call).await.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["content-type"].as_bytes()),
            (StatusCode::OK, &b"application/grpc"[..])
        );
        answer.into_body().collect().await.unwrap()
    };
    let body = within("the call", async {
        tokio::select! { () = serve => panic!("the backend left"), body = call => body }
    })
    .await;
    let trailers = body.trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-asked"]),
        (&"0".parse().unwrap(), &"yes".parse().unwrap())
    );
    assert_eq!(body.to_bytes().as_ref(), b"\0\0\0\0\x02hi");
    gateway.idle().await;
}

/// A WebSocket as HTTP/2 asks for one; row 35.
fn extended_connect() -> Request<Empty<Bytes>> {
    let mut request = Request::connect("https://front.example/chat?x=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(Empty::new())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// Answers a handshake with the right key, or with another.
async fn switches(peer: &mut Peer, right: bool) {
    let head = peer.until("\r\n\r\n").await;
    assert!(head.starts_with("GET /chat?x=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-protocol: chat\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = derive_accept_key(if right { key } else { "another" }.as_bytes());
    peer.say(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
    .await;
}

#[tokio::test]
async fn an_extended_connect_becomes_a_tunnel() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, _tasks) = http2_client::<Empty<Bytes>>(&gateway).await;
    // So that the settings of the connection are known.
    let plain =
        client.send_request(Request::get("https://front.example/").body(Empty::new()).unwrap());
    let (answered, _) =
        tokio::join!(plain, async { backend.accept().await.answers("plain").await });
    assert_eq!(answered.unwrap().status(), StatusCode::OK);

    let (answered, mut peer) = tokio::join!(client.send_request(extended_connect()), async {
        let mut peer = backend.accept().await;
        switches(&mut peer, true).await;
        peer
    });
    let answered = answered.unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(answered.headers()["sec-websocket-protocol"], "chat");
    for gone in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answered.headers().contains_key(gone), "{gone}");
    }
    let stream = hyper::upgrade::on(answered).await.unwrap();
    let mut socket = Peer::new(TokioIo::new(stream));
    peer.say("down").await;
    socket.hears("down").await;
    assert_eq!(gateway.count("proxy_tunnels"), 1);
    drop(socket);
    assert_eq!(peer.rest().await, b"");
    drop(peer);
    gateway.idle().await;

    let (answered, mut peer) = tokio::join!(client.send_request(extended_connect()), async {
        let mut peer = backend.accept().await;
        switches(&mut peer, true).await;
        peer
    });
    let mut socket = Peer::new(TokioIo::new(hyper::upgrade::on(answered.unwrap()).await.unwrap()));
    gateway.drain.begin(Duration::ZERO);
    tunnels::parts(&mut socket, &mut peer).await;
    gateway.idle().await;
}

#[tokio::test]
async fn what_is_no_tunnel_is_not_passed_off_as_one() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, _tasks) = http2_client::<Empty<Bytes>>(&gateway).await;
    let plain =
        client.send_request(Request::get("https://front.example/").body(Empty::new()).unwrap());
    let (answered, _) =
        tokio::join!(plain, async { backend.accept().await.answers("plain").await });
    assert_eq!(answered.unwrap().status(), StatusCode::OK);
    for (said, status, body) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, "no"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502, "NotSwitched"),
        ("", 502, "UnaskedUpgrade"),
    ] {
        let (answered, ()) = tokio::join!(client.send_request(extended_connect()), async {
            let mut peer = backend.accept().await;
            if said.is_empty() {
                switches(&mut peer, false).await;
            } else {
                peer.head().await;
                peer.say(said).await;
            }
        });
        let answered = answered.unwrap();
        assert_eq!(answered.status().as_u16(), status, "{said}");
        let text = answered.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&text), body);
    }
    let mut other = extended_connect();
    other.extensions_mut().insert(Protocol::from_static("connect-udp"));
    let answered = client.send_request(other).await.unwrap();
    assert_eq!(answered.status(), StatusCode::BAD_REQUEST);
    gateway.idle().await;
}
