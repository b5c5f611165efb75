//! A hub on its own bus, and clients that speak to it.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::super::{Admission, Hub, Refusal};
use crate::bus::{Bus, BusError, Envelope};
use crate::observability::Registry;
use crate::settings::{HubSettings, InboxSettings, RegionName};
use crate::shutdown::Drain;

/// Longer than anything a test waits for, also in paused time (a ping and its silence).
const DEADLINE: Duration = Duration::from_secs(50);

/// A hub for regions 1 and 2.
pub(in crate::hub) struct House {
    pub(in crate::hub) hub: Arc<Hub>,
    pub(in crate::hub) bus: Bus,
    pub(in crate::hub) drain: Drain,
    pub(in crate::hub) registry: Registry,
    pub(in crate::hub) sessions: TaskTracker,
    /// The work of the hub itself, while there is a runtime to do it.
    _work: Option<AbortOnDropHandle<()>>,
}

pub(in crate::hub) struct Client {
    pub(in crate::hub) socket: WebSocketStream<DuplexStream>,
}

pub(in crate::hub) fn nz(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).unwrap()
}

pub(in crate::hub) fn nz32(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

/// A handshake as a browser sends it.
pub(in crate::hub) fn request(query: &str) -> Parts {
    http::Request::get(format!("/ws?{query}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

impl House {
    pub(in crate::hub) fn new() -> Self {
        Self::with(&HubSettings::default())
    }

    pub(in crate::hub) fn with(settings: &HubSettings) -> Self {
        Self::with_inbox(settings, &InboxSettings::default())
    }

    pub(in crate::hub) fn with_inbox(settings: &HubSettings, inbox: &InboxSettings) -> Self {
        let mut registry = Registry::default();
        let bus = Bus::embedded(inbox, &mut registry);
        Self::on(bus, settings, registry)
    }

    /// On a bus that the caller keeps at work.
    pub(in crate::hub) fn on(bus: Bus, settings: &HubSettings, mut registry: Registry) -> Self {
        let drain = Drain::new();
        let regions = [RegionName::literal("1"), RegionName::literal("2")];
        let hub = Hub::new(settings, &regions, bus.clone(), drain.clone(), &mut registry);
        let work = tokio::runtime::Handle::try_current().ok().map(|runtime| {
            let running = hub.clone();
            let work = async move { running.run(CancellationToken::new()).await };
            AbortOnDropHandle::new(runtime.spawn(work))
        });
        Self { hub, bus, drain, registry, sessions: TaskTracker::new(), _work: work }
    }

    pub(in crate::hub) async fn admit(&self, query: &str) -> Result<Admission, Refusal> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.hub.admit(&RegionName::literal("1"), &request(query), client).await
    }

    /// Connects over a pipe that holds `capacity` bytes.
    pub(in crate::hub) async fn connect_over(&self, query: &str, capacity: usize) -> Client {
        let admission = self.admit(query).await.unwrap();
        let (near, far) = tokio::io::duplex(capacity);
        self.sessions.spawn(self.hub.clone().serve(admission, far, Bytes::new()));
        Client { socket: WebSocketStream::from_raw_socket(near, Role::Client, None).await }
    }

    /// Connects, and gives the welcome too.
    pub(in crate::hub) async fn join(&self, query: &str) -> (Client, Value) {
        let mut client = self.connect_over(query, 64 * 1024).await;
        let welcome = client.hears().await;
        assert_eq!(welcome["type"], "welcome");
        (client, welcome)
    }

    pub(in crate::hub) async fn connect(&self, query: &str) -> Client {
        self.join(query).await.0
    }

    /// Publishes as a backend would; gives the position.
    pub(in crate::hub) async fn publish(&self, to: &str, id: &str) -> u64 {
        self.try_publish(to, id).await.unwrap()
    }

    pub(in crate::hub) async fn try_publish(&self, to: &str, id: &str) -> Result<u64, BusError> {
        let head = json!({"type": "message", "id": id, "from": "api", "to": to}).to_string();
        let head = format!(r#"{},"seq":"#, head.trim_end_matches('}'));
        let envelope = Envelope {
            to,
            from: "api",
            id,
            at_ms: 0,
            head: head.as_bytes(),
            tail: br#","ts":"1970-01-01T00:00:00.000Z"}"#,
        };
        self.bus.publish(envelope).await.map(|receipt| receipt.seq)
    }

    /// Waits until every session is gone.
    pub(in crate::hub) async fn is_left(&self) {
        self.sessions.close();
        timeout(DEADLINE, self.sessions.wait()).await.expect("a session stays");
        assert_eq!(self.hub.snapshot().sockets, 0);
    }

    /// Throws away what waits for `user`, as if the bus had lost it on its way.
    pub(in crate::hub) fn lose_what_waits(&self, user: &str) {
        for seat in self.hub.registry.seats(user) {
            seat.outbox.take(&mut std::collections::VecDeque::new());
        }
    }
}

impl Client {
    pub(in crate::hub) async fn sends(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(in crate::hub) async fn says(&mut self, to: &str, text: &str, id: &str) {
        self.sends(&json!({"type": "message", "to": to, "text": text, "id": id})).await;
    }

    async fn next(&mut self) -> Message {
        let next = async {
            loop {
                match self.socket.next().await.expect("the connection is gone").unwrap() {
                    Message::Ping(_) | Message::Pong(_) => {}
                    message => return message,
                }
            }
        };
        timeout(DEADLINE, next).await.expect("nothing came")
    }

    /// The next frame.
    pub(in crate::hub) async fn hears(&mut self) -> Value {
        let message = self.next().await;
        serde_json::from_str(message.to_text().unwrap())
            .unwrap_or_else(|error| panic!("{error}: {message:?}"))
    }

    /// How many typing notices stand before the answer to a ping.
    pub(in crate::hub) async fn heard_typing(&mut self) -> usize {
        self.sends(&json!({"type": "ping"})).await;
        let mut count = 0;
        loop {
            let frame = self.hears().await;
            match frame["type"].as_str() {
                Some("typing") => count += 1,
                Some("pong") => return count,
                _ => panic!("{frame}"),
            }
        }
    }

    /// The code of the next frame, which is an error; and its id.
    pub(in crate::hub) async fn hears_error(&mut self) -> (String, Value) {
        let frame = self.hears().await;
        assert_eq!(frame["type"], "error", "{frame}");
        (frame["code"].as_str().unwrap().to_owned(), frame["id"].clone())
    }

    /// The code of the close frame, and the frames before it.
    pub(in crate::hub) async fn closes(&mut self) -> (u16, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Message::Close(frame) => return (frame.unwrap().code.into(), before),
                message => before.push(serde_json::from_str(message.to_text().unwrap()).unwrap()),
            }
        }
    }
}
