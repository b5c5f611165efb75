//! One of the talking users: a client that comes back whatever happens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{Order, Plan, Shared};
use crate::harness::ledger::Key;

/// Messages of one user that may be unacknowledged.
const WINDOW: usize = 16;
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// A refused message goes out again after this and up to as much again.
const RETRY: Duration = Duration::from_millis(150);
/// The pause before the first new connection is at most this long; it doubles, up to the second.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_600);

/// A message that is not acknowledged yet.
struct Unacked {
    id: u64,
    /// When it goes out: again after a refusal, or at once; never while the hub has it.
    due: Option<Instant>,
}

/// Why a connection ended.
enum End {
    /// Come back after this time.
    Asked(Duration),
    Lost,
    Left,
}

pub(super) struct User {
    number: usize,
    hubs: Vec<SocketAddr>,
    /// Connections attempted, which picks the hub.
    attempts: usize,
    /// Attempts in a row that came to nothing.
    failures: u32,
    every: Duration,
    composed: u64,
    unacked: VecDeque<Unacked>,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
}

impl User {
    pub(super) fn new(
        number: usize,
        plan: &Plan,
        shared: Arc<Shared>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let (hubs, every) = (plan.hubs.clone(), plan.every);
        let unacked = VecDeque::new();
        let (composed, failures) = (0, 0);
        Self { number, hubs, attempts: number, failures, every, composed, unacked, shared, orders }
    }

    fn partner(&self) -> usize {
        self.number ^ 1
    }

    fn key(&self, id: u64) -> Key {
        (name(self.number), format!("m{id}"))
    }

    pub(super) async fn run(mut self) {
        while *self.orders.borrow() != Order::Leave {
            let end = match self.connect().await {
                Some(socket) => self.talk(socket).await,
                None => End::Lost,
            };
            self.shared.flow(self.number).connected = false;
            let pause = match end {
                End::Left => break,
                End::Asked(after) => after,
                End::Lost => {
                    let most = LONGEST_PAUSE.min(PAUSE * 2_u32.pow(self.failures.min(10)));
                    self.failures += 1;
                    most.mul_f64(fastrand::f64())
                }
            };
            sleep(pause).await;
        }
    }

    /// A socket at the next node; `None` where there is none to be had.
    async fn connect(&mut self) -> Option<WebSocketStream<TcpStream>> {
        let hub = self.hubs[self.attempts % self.hubs.len()];
        self.attempts += 1;
        let position = self.shared.flow(self.number).reader.position().cloned();
        let resume = position.map(|(epoch, since)| format!("&since={since}&epoch={epoch}"));
        let (user, resume) = (name(self.number), resume.unwrap_or_default());
        let url = format!("ws://{hub}/?userId={user}{resume}");
        let request = url.into_client_request().unwrap();
        let open = async {
            let stream = TcpStream::connect(hub).await.ok()?;
            stream.set_nodelay(true).ok()?;
            Some(tokio_tungstenite::client_async(request, stream).await.ok()?.0)
        };
        timeout(HANDSHAKE, open).await.ok()?
    }

    /// One connection, to its end.
    async fn talk(&mut self, mut socket: WebSocketStream<TcpStream>) -> End {
        // Nothing is known of what the last connection took with it.
        for unacked in &mut self.unacked {
            unacked.due = Some(Instant::now());
        }
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut leave: Option<Instant> = None;
        let mut welcomed = false;
        loop {
            let due = self.unacked.iter().filter_map(|unacked| unacked.due).min();
            let due = due.filter(|_| welcomed);
            let ordered = *self.orders.borrow();
            tokio::select! {
                _ = self.orders.changed() => {
                    if *self.orders.borrow() == Order::Leave {
                        drop(timeout(HANDSHAKE, socket.close(None)).await);
                        return End::Left;
                    }
                }
                () = until(leave) => {
                    // In order, as a client that moves does; what it still hears before the end counts.
                    drop(socket.close(None).await);
                    self.hear_out(&mut socket).await;
                    return End::Asked(Duration::ZERO);
                }
                () = until(due) => if self.send_due(&mut socket).await.is_none() { return End::Lost },
                _ = ticks.tick(), if ordered == Order::Talk => self.compose(),
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("JSON");
                        if frame["type"] == "reconnect" {
                            let after = frame["afterMs"].as_u64().expect("milliseconds");
                            leave = Some(Instant::now() + Duration::from_millis(after));
                        }
                        welcomed |= frame["type"] == "welcome";
                        self.hear(&frame);
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        return leave.map_or(End::Lost, |at| {
                            End::Asked(at.saturating_duration_since(Instant::now()))
                        });
                    }
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    async fn hear_out(&mut self, socket: &mut WebSocketStream<TcpStream>) {
        let rest = async {
            while let Some(Ok(frame)) = socket.next().await {
                if let Message::Text(text) = frame {
                    self.hear(&serde_json::from_str(&text).expect("JSON"));
                }
            }
        };
        drop(timeout(HANDSHAKE, rest).await);
    }

    fn compose(&mut self) {
        if self.unacked.len() < WINDOW {
            self.composed += 1;
            self.unacked.push_back(Unacked { id: self.composed, due: Some(Instant::now()) });
            self.shared.flow(self.partner()).under_way = self.unacked.len();
        }
    }

    /// Sends what is due, in the order in which it was composed; `None` where the socket takes nothing.
    async fn send_due(&mut self, socket: &mut WebSocketStream<TcpStream>) -> Option<()> {
        let now = Instant::now();
        let (to, number) = (name(self.partner()), self.number);
        for unacked in &mut self.unacked {
            if unacked.due.take_if(|due| *due <= now).is_none() {
                continue;
            }
            let (id, text) = (format!("m{}", unacked.id), format!("{} of {number}", unacked.id));
            let frame = json!({"type": "message", "to": to, "text": text, "id": id});
            let at = self.shared.now();
            self.shared.flow(number ^ 1).post.sent(at, (name(number), id));
            socket.feed(Message::text(frame.to_string())).await.ok()?;
        }
        timeout(HANDSHAKE, socket.flush()).await.ok()?.ok()
    }

    fn hear(&mut self, frame: &Value) {
        let now = self.shared.now();
        let id = frame["id"].as_str().and_then(|id| id.strip_prefix('m')?.parse().ok());
        match frame["type"].as_str().unwrap_or_default() {
            "welcome" => {
                self.failures = 0;
                let mut flow = self.shared.flow(self.number);
                let asked = flow.reader.position().cloned();
                flow.reader.welcomed(now, asked.as_ref(), frame);
                flow.connected = true;
                flow.connections += 1;
            }
            "message" => self.shared.flow(self.number).reader.message(now, frame),
            "reset" => self.shared.flow(self.number).reader.reset(now, frame),
            "ack" => {
                let id = id.expect("an ack names the message");
                self.unacked.retain(|unacked| unacked.id != id);
                let mut flow = self.shared.flow(self.partner());
                flow.post.acked(now, &self.key(id), frame["duplicate"] == true);
                flow.under_way = self.unacked.len();
            }
            "error" => {
                assert_eq!(
                    frame["retryable"], true,
                    "an error that no client of ours causes: {frame}"
                );
                let pause = RETRY.mul_f64(1.0 + fastrand::f64());
                let id: u64 = id.expect("a retryable error names the message");
                if let Some(unacked) = self.unacked.iter_mut().find(|unacked| unacked.id == id) {
                    unacked.due = Some(Instant::now() + pause);
                }
            }
            _ => {}
        }
    }
}

fn name(user: usize) -> String {
    format!("u{user}")
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
