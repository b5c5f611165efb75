//! One device of a user: at most one socket, and all that was ever shown on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::schedule::With;
use super::store::{Age, Store};
use crate::harness::chat::open;
use crate::harness::ledger::{Account, Position, Post, Reader, is_settled};

/// A message that has not come after this long is lost; a hub that failed to read an inbox tries again within some
/// seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a device has: everything that was shown, and how old the store was when it last said where it stands.
#[derive(Clone)]
struct Memory {
    reader: Reader,
    age: Age,
}

pub(super) struct Device {
    name: String,
    user: usize,
    socket: Option<WebSocketStream<TcpStream>>,
    memory: Memory,
    remembered: Vec<Memory>,
    began: Instant,
}

impl Device {
    pub(super) fn new(number: usize, user: usize, began: Instant) -> Self {
        let name = format!("device {number} of {}", name(user));
        let memory = Memory { reader: Reader::default(), age: Age::default() };
        Self { name, user, socket: None, memory, remembered: Vec::new(), began }
    }

    pub(super) fn user(&self) -> usize {
        self.user
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    pub(super) fn remember(&mut self) {
        if self.memory.reader.position().is_some() {
            self.remembered.push(self.memory.clone());
        }
    }

    /// Connects anew, and judges the welcome.
    pub(super) async fn connect(&mut self, hub: SocketAddr, with: With, store: &Store) {
        self.disconnect();
        if let (With::Remembered(index), false) = (with, self.remembered.is_empty()) {
            self.memory = self.remembered[index % self.remembered.len()].clone();
        }
        let known = self.memory.reader.position().cloned();
        let asked: Option<Position> = match (with, known) {
            (With::Nothing, _) | (With::Own | With::Remembered(_), None) => None,
            (With::Own | With::Remembered(_), Some(position)) => Some(position),
            (With::Future, Some((epoch, _))) => Some((epoch, store.last(self.user) + 1_000)),
            (With::MadeUp | With::Future, _) => Some(("made-up".to_owned(), 1)),
            (With::NoEpoch, position) => Some((String::new(), position.map_or(0, |(_, seq)| seq))),
        };
        let honest = matches!(with, With::Own | With::Remembered(_));
        if asked.is_none() {
            self.memory.reader = Reader::new(self.now());
        }
        let query = match &asked {
            Some((epoch, since)) if epoch.is_empty() => format!("&since={since}"),
            Some((epoch, since)) => format!("&since={since}&epoch={epoch}"),
            None => String::new(),
        };
        let target = format!("/?userId={}{query}", name(self.user));
        self.socket = Some(open(hub, &target, &[]).await.expect("admitted"));
        let frame = self.next().await.expect("a welcome comes at once");
        println!("       {} asks {asked:?}: {frame}", self.name);
        assert_eq!(frame["type"], "welcome", "{frame}");
        let now = self.now();
        let resumed = frame["resumed"] == true;
        assert!(!resumed || honest, "a position that never was is resumed: {frame}");
        let placed = frame["epoch"] != "";
        if let (true, true, Some((_, seq))) = (honest, placed, &asked) {
            let sound = store.is_sound(now, self.user, self.memory.age, *seq);
            assert!(resumed || !sound, "nothing is missing after {asked:?}, and yet: {frame}");
        }
        self.memory.reader.welcomed(now, asked.as_ref(), &frame);
        if placed {
            self.memory.age = store.age(now, self.user);
        } else if !honest || asked.is_none() {
            // It will be told where it stands, and rightly.
            self.memory.age = Age::UNKNOWN;
        }
        self.check();
    }

    /// Hears until it has all that it has a right to, and whatever else is there by then.
    pub(super) async fn settle(&mut self, post: &Post, store: &Store) {
        while self.socket.is_some() && !is_settled(post, &self.memory.reader) {
            let Some(frame) = self.next().await else {
                let account = self.account(post);
                panic!("nothing came for {PATIENCE:?}; {account:?}\n{}", account.explain());
            };
            self.hear(&frame, store);
        }
        while let Some(socket) = &mut self.socket {
            let Ok(frame) = tokio::time::timeout(Duration::ZERO, socket.next()).await else {
                break;
            };
            if let Some(frame) = text(frame) {
                self.hear(&frame, store);
            }
        }
    }

    pub(super) fn account(&self, post: &Post) -> Account {
        Account::of(post, &self.memory.reader)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn hear(&mut self, frame: &Value, store: &Store) {
        println!("       {} hears {frame}", self.name);
        let now = self.now();
        match frame["type"].as_str().unwrap_or_default() {
            "message" => self.memory.reader.message(now, frame),
            "reset" => {
                let (told, seq) = (self.memory.reader.told(), self.seq());
                self.memory.reader.reset(now, frame);
                let anew = self.memory.reader.told() > told;
                let sound = store.is_sound(now, self.user, self.memory.age, seq);
                assert!(!anew || !sound, "nothing is gone, and yet: {frame}");
                self.memory.age = store.age(now, self.user);
            }
            other => panic!("a frame of type {other}: {frame}"),
        }
        self.check();
    }

    fn seq(&self) -> u64 {
        self.memory.reader.position().map_or(0, |(_, seq)| *seq)
    }

    fn check(&self) {
        let words = self.memory.reader.words();
        assert!(words.is_empty(), "{words:?}");
    }

    async fn next(&mut self) -> Option<Value> {
        let socket = self.socket.as_mut().expect("it is connected");
        let next = async {
            loop {
                if let Some(frame) = text(socket.next().await) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.ok()
    }
}

type Heard = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

/// The frame, where it is one to look at.
fn text(heard: Heard) -> Option<Value> {
    match heard {
        Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).expect("JSON")),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
        other => panic!("the hub ended the connection: {other:?}"),
    }
}

/// What a user is called.
pub(super) fn name(user: usize) -> String {
    format!("r{user}")
}
