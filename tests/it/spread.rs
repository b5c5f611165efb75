//! How even a stop is, at size: chat sockets and tunnels of one process are told to go in one row over the window, so that
//! their comeback is no storm anywhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::chat::{Chat, open};
use crate::running::Process;

const CHATS: usize = 1_000;
const TUNNELS: usize = 200;
const WINDOW: Duration = Duration::from_secs(5);
/// Four fifths of it are for the closes.
const GRACE: &str = "CONF__SHUTDOWN__GRACE=6250ms";

/// When a socket was told to connect anew. Whatever else may end it is a fault: nobody is cut.
async fn told(mut socket: WebSocketStream<TcpStream>) -> Instant {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1012 => {
                let at = Instant::now();
                // Answers, and waits for the end.
                while let Some(Ok(_)) = socket.next().await {}
                return at;
            }
            Some(Ok(Message::Text(_) | Message::Ping(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn sockets(proxy: SocketAddr) -> JoinSet<Instant> {
    let mut sockets = JoinSet::new();
    for number in 0..CHATS {
        let chat = Chat::at(proxy, &format!("/ws?userId=u{number}&region=1")).await;
        sockets.spawn(told(chat.socket));
        if number % (CHATS / TUNNELS) == 0 {
            sockets.spawn(told(open(proxy, "/live?region=1", &[]).await.unwrap()));
        }
    }
    assert_eq!(sockets.len(), CHATS + TUNNELS);
    sockets
}

#[tokio::test]
#[ignore = "tells little on a busy machine; scripts/drain.sh runs it"]
async fn no_second_of_a_stop_has_more_than_half_over_its_share() {
    let echo = crate::upgrade::echo().await;
    let backends = format!("regions.1.backends=[\"http://{echo}\"]");
    let arguments =
        ["--set", &backends, "--set", "regions.1.hub.port=0", "--set", "regions.2.hub.port=0"];
    let mut process = Process::start(&arguments, &["LOG_LEVEL=error", GRACE]);
    let proxy = process.address("proxy").await;
    let sockets = sockets(proxy).await;
    let start = Instant::now();
    process.signal("TERM").await;
    let told = tokio::time::timeout(WINDOW * 4, sockets.join_all()).await.expect("all are told");
    let seconds = usize::try_from(WINDOW.as_secs()).unwrap();
    let mut counts = vec![0; seconds + 1];
    for at in told {
        counts[usize::try_from((at - start).as_secs()).unwrap().min(seconds)] += 1;
    }
    println!("closes in each second: {counts:?}");
    let mean = (CHATS + TUNNELS) / seconds;
    assert!(counts.iter().all(|count| *count <= mean * 3 / 2), "{counts:?}, the mean is {mean}");
    assert_eq!(process.end().await.0, Some(0));
}
