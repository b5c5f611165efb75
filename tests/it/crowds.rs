//! Many at once, against the built binary: a storm of handshakes, readers that do not read, a stop with hundreds of
//! sockets. A process of its own, so that its memory can be looked at and its exit code counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::chat::{Chat, Refused, open};
use crate::harness::http::get;
use crate::harness::{eventually, within};
use crate::running::Process;

/// A process whose clients may send as fast as they can, and need not read: on a slow machine pings would find no answer.
fn unlimited(more: &[&str]) -> Process {
    let mut variables = vec![
        "LOG_LEVEL=error",
        "CONF__HUB__MESSAGES_PER_SECOND=1000000",
        "CONF__HUB__MESSAGE_BURST=1000000",
        "CONF__HUB__PING_INTERVAL=10m",
        "CONF__HUB__PONG_TIMEOUT=9m",
    ];
    variables.extend(more);
    Process::start(&[], &variables)
}

#[tokio::test]
async fn in_a_storm_those_who_are_let_in_are_served_and_the_rest_are_told_when_to_come_back() {
    const STORM: usize = 2_000;
    const LET_IN: usize = 300;
    let rates = ["CONF__HUB__CONNECTS_PER_SECOND=10", "CONF__HUB__CONNECT_BURST=300"];
    let mut process = unlimited(&rates);
    let proxy = process.address("proxy").await;
    let start = Instant::now();
    let mut storm = JoinSet::new();
    for number in 0..STORM {
        storm.spawn(async move {
            let user = format!("u{number}");
            let target = format!("/ws?userId={user}&region=1");
            let socket = open(proxy, &target, &[]).await?;
            let mut chat = Chat { socket, welcome: Value::Null };
            assert_eq!(chat.hears_type("welcome").await["userId"], user);
            // To oneself: ack and message in either order.
            chat.send(json!({"type": "message", "to": user, "text": "in", "id": "c1"})).await;
            let kinds = BTreeSet::from([chat.hears().await, chat.hears().await].map(|frame| {
                assert_eq!(frame["id"], "c1");
                frame["type"].as_str().unwrap().to_owned()
            }));
            assert_eq!(kinds, BTreeSet::from(["ack".to_owned(), "message".to_owned()]));
            Ok(chat)
        });
    }
    // HTTP goes on meanwhile.
    assert_eq!(get(proxy, "/health", "").await.status, 200);
    let ended = within("the storm", storm.join_all()).await;
    let took = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let (served, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    assert!((LET_IN..=LET_IN + took * 10).contains(&served.len()), "{} served", served.len());
    let mut pauses = BTreeSet::new();
    for refused in refused {
        let refused: Refused = refused.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (503, "overloaded"));
        pauses.insert(refused.retry_after.expect("Retry-After").parse::<u32>().unwrap());
    }
    assert_eq!(pauses, (5..=10).collect(), "they do not come back in step");
    // The other region has turns of its own.
    Chat::at(proxy, "/ws?userId=elsewhere&region=2").await;
}

/// A socket whose system takes little, and that nobody reads.
async fn deaf(proxy: SocketAddr, user: &str) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = within("a connection", socket.connect(proxy)).await.unwrap();
    let target = format!("ws://{proxy}/ws?userId={user}&region=1");
    within("a handshake", tokio_tungstenite::client_async(target, stream)).await.unwrap().0
}

/// Sends `each` long messages to each of `users`, as fast as they are acknowledged.
async fn floods(proxy: SocketAddr, name: String, users: Vec<String>, each: usize) {
    const AT_ONCE: usize = 16;
    let mut chat = Chat::at(proxy, &format!("/ws?userId={name}&region=1")).await;
    let text = "x".repeat(16 * 1024);
    let mut unanswered = 0;
    for _ in 0..each {
        for user in &users {
            let frame = json!({"type": "message", "to": user, "text": text}).to_string();
            chat.socket.feed(Message::text(frame)).await.unwrap();
            unanswered += 1;
            if unanswered == AT_ONCE {
                chat.socket.flush().await.unwrap();
                for _ in 0..std::mem::take(&mut unanswered) {
                    chat.hears_type("ack").await;
                }
            }
        }
    }
}

#[tokio::test]
async fn readers_that_do_not_read_cost_no_more_than_their_bound_and_nobody_else_anything() {
    const DEAF: usize = 100;
    const CAP: usize = 256 * 1024;
    /// Of each frame that is being written, of the allocator, of what is under way.
    const SLACK: usize = 40 * 1024 * 1024;
    const EACH: usize = 96;
    let cap = format!("CONF__HUB__OUTBOX_BYTES={CAP}");
    // What is measured is the queues, and not the inboxes.
    let mut process = unlimited(&[&cap, "CONF__BUS__INBOX__MAX_MESSAGES=1"]);
    let proxy = process.address("proxy").await;
    let admin = process.address("metrics").await;
    let users: Vec<String> = (0..DEAF).map(|number| format!("deaf{number}")).collect();
    let mut held = Vec::new();
    for user in &users {
        held.push(deaf(proxy, user).await);
    }
    let mut alice = Chat::at(proxy, "/ws?userId=alice&region=1").await;
    let mut bob = Chat::at(proxy, "/ws?userId=bob&region=2").await;
    alice.say("bob", "before", "c0").await;
    assert_eq!(bob.hears_type("message").await["id"], "c0");
    let before = process.memory("VmRSS");

    let mut flood = JoinSet::new();
    for (number, users) in users.chunks(DEAF / 4).enumerate() {
        flood.spawn(floods(proxy, format!("flooder{number}"), users.to_vec(), EACH));
    }
    let mut said = 0;
    while !flood.is_empty() {
        said += 1;
        alice.say("bob", "in between", &format!("c{said}")).await;
        assert_eq!(bob.hears_type("message").await["id"], format!("c{said}"));
        while let Some(ended) = flood.try_join_next() {
            ended.unwrap();
        }
    }
    let series = format!(r#"hub_closes_total{{region="1",code="4008"}} {DEAF}"#);
    eventually("all of the deaf to be closed", async || {
        get(admin, "/metrics", "").await.text().contains(&series)
    })
    .await;
    let grown = process.memory("VmHWM") - before;
    let bound = DEAF * (CAP + 2 * 16 * 1024) + SLACK;
    assert!(EACH * 16 * 1024 * DEAF > 2 * bound, "too little was sent to show anything");
    assert!(grown < bound, "it grew by {grown} bytes; {bound} are allowed");
    drop(held);
}

#[tokio::test]
async fn a_stop_closes_hundreds_one_after_the_other_and_http_goes_on() {
    const SOCKETS: usize = 600;
    // Four fifths of it are for the closes.
    const GRACE: Duration = Duration::from_secs(5);
    let mut process = unlimited(&["CONF__SHUTDOWN__GRACE=5s"]);
    let proxy = process.address("proxy").await;
    let mut alice = Chat::at(proxy, "/ws?userId=alice&region=1").await;
    let mut readers = JoinSet::new();
    for number in 0..SOCKETS {
        let mut chat = Chat::at(proxy, &format!("/ws?userId=u{number}&region=1")).await;
        readers.spawn(async move {
            let mut kinds = Vec::new();
            loop {
                match within("the close", chat.socket.next()).await.unwrap().unwrap() {
                    Message::Text(text) => {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        kinds.push(frame["type"].as_str().unwrap().to_owned());
                    }
                    Message::Close(frame) => {
                        assert_eq!(u16::from(frame.unwrap().code), 1012);
                        return kinds;
                    }
                    _ => {}
                }
            }
        });
    }
    for number in 0..SOCKETS {
        alice.say(&format!("u{number}"), "acknowledged", "c1").await;
    }
    let start = Instant::now();
    process.signal("TERM").await;
    let answered = async {
        let mut answered = 0;
        // Right after the last close the process ends, which is no time to ask.
        while readers.len() > SOCKETS / 4 {
            assert_eq!(get(proxy, "/", "x-region: 1\r\n").await.status, 200);
            answered += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            while let Some(closed) = readers.try_join_next() {
                assert_eq!(closed.unwrap(), ["message", "reconnect"]);
            }
        }
        // Whoever is cut at the end of the grace is told nothing.
        while let Some(closed) = readers.join_next().await {
            assert_eq!(closed.unwrap(), ["message", "reconnect"]);
        }
        answered
    };
    let answered = within("the last close", answered).await;
    assert!(start.elapsed() > GRACE / 2, "they were closed in {:?}", start.elapsed());
    assert!(answered > 5, "{answered} requests were answered meanwhile");
    assert_eq!(alice.closed().await, 1012);
    let (code, said) = process.end().await;
    assert_eq!(code, Some(0), "{said}");
}
