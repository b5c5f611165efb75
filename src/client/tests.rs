//! The client against servers that follow a script.

use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Ws;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Address, Client, Draft, Event, Options, Start};

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_mins(1), future).await.expect("waited in vain")
}

struct Server {
    listener: TcpListener,
}

/// One connection, as the server has it.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// The path and query of its handshake.
    target: String,
}

impl Server {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn options(&self, start: Start) -> Options {
        let url = format!("ws://{}/ws", self.listener.local_addr().unwrap());
        let address = Address::parse(&url).unwrap();
        Options { address, user: "al".into(), region: None, token: None, start }
    }

    fn client(&self) -> Client {
        Client::new(self.options(Start::Now)).unwrap()
    }

    /// The next connection, welcomed at this position.
    async fn accept(&self, epoch: &str, seq: u64, resumed: bool) -> Peer {
        let mut peer = self.silent().await;
        let welcome = json!({
            "type": "welcome", "userId": "al", "region": "1", "epoch": epoch, "seq": seq,
            "resumed": resumed, "pingIntervalMs": 30_000, "maxTextBytes": 100,
        });
        peer.says(welcome).await;
        peer
    }

    /// The next connection, with nothing said yet.
    async fn silent(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut target = String::new();
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let read = |request: &Request, response: Response| {
            target = request.uri().to_string();
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, read).await.unwrap();
        Peer { socket, target }
    }
}

impl Peer {
    async fn says(&mut self, frame: Value) {
        self.socket.send(Ws::text(frame.to_string())).await.unwrap();
    }

    async fn hears(&mut self) -> Value {
        match self.socket.next().await {
            Some(Ok(Ws::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("no frame but {other:?}"),
        }
    }

    /// Hears a message and acknowledges it; gives its id.
    async fn takes(&mut self) -> String {
        let id = self.hears().await["id"].as_str().unwrap().to_owned();
        self.says(json!({"type": "ack", "id": id, "seq": 1, "ts": "", "duplicate": false})).await;
        id
    }

    async fn brings(&mut self, id: &str, seq: u64) {
        let ts = format!("2026-11-21T09:30:0{}Z", seq % 10);
        let message = json!({"type": "message", "id": id, "from": "bob", "to": "al", "text": id, "seq": seq, "ts": ts});
        self.says(message).await;
    }

    async fn closes(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "for a reason".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

fn draft(id: &str, text: &str) -> Draft {
    Draft { id: id.into(), to: "bob".into(), text: Some(text.into()), data: None }
}

/// What the client tells, in short, up to the line that begins like this.
async fn until(client: &mut Client, last: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().is_none_or(|line: &String| !line.starts_with(last)) {
        let event = client.next().await.unwrap_or_else(|| panic!("the end comes after {told:?}"));
        told.push(match event {
            Event::Connected { whole, .. } => format!("connected {whole}"),
            Event::Disconnected { why, .. } => format!("disconnected: {why}"),
            Event::Message(message) => format!("message {}", message.id),
            Event::Acknowledged(draft, ack) => format!("ack {} {}", draft.id, ack.id),
            Event::Refused(draft, fault) => format!("refused {} {}", draft.id, fault.code),
            Event::Typing { from } => format!("typing {from}"),
            Event::Presence(presence) => {
                format!("presence {} {}", presence.user_id, presence.online)
            }
            Event::Lost => "lost".into(),
            Event::Ended { why } => format!("ended: {why}"),
        });
    }
    told
}

#[tokio::test]
async fn what_was_not_acknowledged_goes_out_again_with_its_id() {
    let server = Server::start().await;
    let mut client = server.client();
    client.send(draft("a", "1")).unwrap();
    client.send(draft("b", "2")).unwrap();
    let script = async {
        let mut peer = server.accept("e", 0, false).await;
        assert_eq!(peer.hears().await["id"], "a");
        drop(peer);
        let mut peer = server.accept("e", 0, true).await;
        assert_eq!((peer.takes().await, peer.takes().await), ("a".into(), "b".into()));
        peer
    };
    let (told, _peer) = within(async { tokio::join!(until(&mut client, "ack b"), script) }).await;
    let cut = "disconnected: the connection was cut";
    assert_eq!(told, ["connected true", cut, "connected true", "ack a a", "ack b b"]);
    assert_eq!(client.unsettled(), 0);
}

#[tokio::test]
async fn a_refusal_for_the_moment_keeps_the_order_and_one_for_good_is_told() {
    let server = Server::start().await;
    let mut client = server.client();
    for (id, text) in [("a", "1"), ("b", "2"), ("c", &"x".repeat(101)), ("d", "4")] {
        client.send(draft(id, text)).unwrap();
    }
    let script = async {
        let mut peer = server.accept("e", 0, false).await;
        for code in ["bus_unavailable", "rate_limited"] {
            assert_eq!(peer.hears().await["id"], "a");
            peer.says(
                json!({"type": "error", "code": code, "message": "", "id": "a", "retryable": true}),
            )
            .await;
        }
        assert_eq!(peer.takes().await, "a");
        assert_eq!(peer.hears().await["id"], "b");
        peer.says(json!({"type": "error", "code": "bad_frame", "message": "", "id": "b"})).await;
        // The third is over what the welcome allows, and never comes.
        assert_eq!(peer.hears().await["id"], "d");
        peer.closes(1009).await;
    };
    let (told, ()) =
        within(async { tokio::join!(until(&mut client, "disconnected"), script) }).await;
    assert_eq!(
        told[..5],
        [
            "connected true",
            "ack a a",
            "refused b bad_frame",
            "refused c text_too_long",
            "refused d text_too_long"
        ]
    );
}

#[tokio::test]
async fn it_resumes_where_it_was_and_drops_repeats() {
    let server = Server::start().await;
    let mut client = Client::new(server.options(Start::Retained)).unwrap();
    let script = async {
        let mut peer = server.accept("e", 4, false).await;
        assert_eq!(peer.target, "/ws?userId=al&since=0&epoch=");
        peer.brings("m5", 5).await;
        peer.brings("m6", 6).await;
        peer.says(json!({"type": "novelty"})).await;
        peer.closes(1001).await;
        // The bus is away: the welcome promises nothing, and the place is kept.
        let peer = server.accept("", 0, false).await;
        assert_eq!(peer.target, "/ws?userId=al&since=6&epoch=e");
        peer.closes(4008).await;
        let mut peer = server.accept("f", 0, false).await;
        assert_eq!(peer.target, "/ws?userId=al&since=6&epoch=e");
        for seq in 5..8 {
            peer.brings(&format!("m{seq}"), seq).await;
        }
        peer.says(json!({"type": "reset", "epoch": "g", "seq": 20})).await;
        peer.brings("m21", 21).await;
        peer.closes(1013).await;
        let peer = server.accept("g", 21, true).await;
        assert_eq!(peer.target, "/ws?userId=al&since=21&epoch=g");
        peer.closes(1008).await;
    };
    let (told, ()) = within(async { tokio::join!(until(&mut client, "ended"), script) }).await;
    let told: Vec<_> = told.iter().filter(|line| !line.starts_with("disconnected")).collect();
    assert_eq!(
        told,
        [
            "connected true",
            "message m5",
            "message m6",
            "connected true",
            "connected false",
            "message m7",
            "lost",
            "message m21",
            "connected true",
            "ended: the gateway closed the connection with 1008: for a reason",
        ]
    );
    assert!(client.next().await.is_none(), "there are no more attempts");
}

#[tokio::test]
async fn the_seat_given_to_another_is_the_end() {
    let server = Server::start().await;
    let mut client = server.client();
    let script = async { server.accept("e", 0, false).await.closes(4001).await };
    let (told, ()) = within(async { tokio::join!(until(&mut client, "ended"), script) }).await;
    assert_eq!(told.len(), 2);
}

#[tokio::test]
async fn it_leaves_when_it_is_told_to_and_comes_back_after_that_time() {
    let server = Server::start().await;
    let mut client = server.client();
    let script = async {
        let mut peer = server.accept("e", 0, false).await;
        peer.says(json!({"type": "reconnect", "afterMs": 400})).await;
        let began = tokio::time::Instant::now();
        peer.closes(1012).await;
        let mut peer = server.accept("e", 0, true).await;
        // The client's clock began a moment before ours.
        assert!(began.elapsed() > Duration::from_millis(350));
        // A server that does not close is left.
        peer.says(json!({"type": "reconnect", "afterMs": 1})).await;
        let again = server.accept("e", 0, true).await;
        (peer, again)
    };
    let told = async {
        let mut told = until(&mut client, "disconnected").await;
        told.extend(until(&mut client, "disconnected").await);
        told.extend(until(&mut client, "connected").await);
        told
    };
    let (told, _peers) = within(async { tokio::join!(told, script) }).await;
    assert_eq!(told.iter().filter(|line| *line == "connected true").count(), 3, "{told:?}");
}

#[tokio::test]
async fn presence_is_asked_for_on_each_connection_and_missing_it_does_no_harm() {
    let server = Server::start().await;
    let mut client = server.client();
    client.watch(vec!["bob".into()]);
    let script = async {
        let mut peer = server.accept("e", 0, false).await;
        assert_eq!(peer.hears().await, json!({"type": "presence", "users": ["bob"]}));
        peer.says(json!({"type": "error", "code": "unknown_type", "message": ""})).await;
        peer.closes(1012).await;
        let mut peer = server.accept("e", 0, true).await;
        assert_eq!(peer.hears().await["type"], "presence");
        peer.says(json!({"type": "presence", "userId": "bob", "online": true, "lastSeen": null}))
            .await;
        peer
    };
    let (told, _peer) =
        within(async { tokio::join!(until(&mut client, "presence"), script) }).await;
    assert_eq!(told.last().unwrap(), "presence bob true");
    assert_eq!(told.len(), 4, "{told:?}");
}

/// What it is doing survives that nobody awaits it for a while.
#[tokio::test]
async fn awaiting_it_may_be_stopped_at_any_moment() {
    let server = Server::start().await;
    let mut client = server.client();
    for index in 0..50 {
        client.send(draft(&format!("c{index}"), "hi")).unwrap();
    }
    let script = async {
        let mut peer = server.accept("e", 0, false).await;
        for index in 0..50 {
            assert_eq!(peer.takes().await, format!("c{index}"));
        }
        peer
    };
    let told = async {
        let mut acknowledged = 0;
        while acknowledged < 50 {
            if let Ok(Some(Event::Acknowledged(draft, _))) =
                timeout(Duration::from_micros(300), client.next()).await
            {
                assert_eq!(draft.id, format!("c{acknowledged}"));
                acknowledged += 1;
            }
        }
    };
    within(async { tokio::join!(told, script) }).await;
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again_only_where_that_may_help() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = Server::start().await;
    let mut client = server.client();
    let script = async {
        for status in ["503 Service Unavailable", "401 Unauthorized"] {
            let (mut stream, _) = server.listener.accept().await.unwrap();
            let mut head = vec![0; 4_096];
            let length = stream.read(&mut head).await.unwrap();
            assert!(head[..length].ends_with(b"\r\n\r\n"));
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let (told, ()) = within(async { tokio::join!(until(&mut client, "ended"), script) }).await;
    assert!(told[0].starts_with("disconnected: refused with 503"), "{told:?}");
    assert!(told[1].starts_with("ended: refused with 401"), "{told:?}");
    assert_eq!(told.len(), 2);
}
