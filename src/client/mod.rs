//! A client of the chat protocol: sends with acknowledgement, receives each message once, and comes back by itself.
//!
//! Walk: [`Client::next`] drives everything. It waits out a pause (`backoff`), connects (`connect`), and then lives on
//! one `link`: what the `outbox` holds goes out, what the server sends becomes an [`Event`]; `inbox` keeps the
//! position to resume from and drops repeats. When the link is gone it begins again.
//!
//! Invariants: no task is spawned: whoever owns the client polls it; what [`Client::next`] is doing survives that its
//! future is dropped. A message stays in the outbox until it is acknowledged or refused for good, and always goes
//! out with the id that it had first. After an end that more attempts cannot mend there are none.
//! Absent on purpose: storage; what waits in the outbox is gone with the process.

mod address;
mod backoff;
mod connect;
mod frames;
mod inbox;
mod link;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use tokio::time::Instant;

pub use self::address::{Address, AddressError};
pub use self::connect::ConnectError;
use self::connect::Opened;
use self::frames::ServerFrame;
pub use self::frames::{Ack, Draft, Fault, Message, Presence};
use self::inbox::Inbox;
pub use self::inbox::Start;
use self::link::{Happened, Link};
use self::outbox::Outbox;
pub use self::outbox::OutboxFull;

/// The first pause before another attempt, and the longest; each is drawn from the whole range.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A connection that lived this long proves the server well: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(5);
/// The longest that a server may send a client away for.
const LONGEST_PLAN: Duration = Duration::from_mins(10);

/// Policy, and the seat given to another connection: coming back would only bring the same again.
const FINAL_CLOSES: [u16; 2] = [1008, 4001];
/// A frame over the limit.
const TOO_BIG: u16 = 1009;

/// Whom to be, and where.
#[derive(Clone)]
pub struct Options {
    pub address: Address,
    /// See [`crate::protocol::is_user`].
    pub user: String,
    /// Wins over the one that the address names.
    pub region: Option<String>,
    pub token: Option<String>,
    pub start: Start,
}

/// What happened, in order.
#[derive(Debug)]
pub enum Event {
    /// There is a connection, and the server has said its welcome.
    Connected {
        region: String,
        /// Nothing is missing since the last connection; always so of the first.
        whole: bool,
        /// The server's clock at the handshake, to the second.
        server_time: Option<SystemTime>,
    },
    /// There is none any more, or still none; the next attempt comes by itself.
    Disconnected {
        why: String,
        again_in: Duration,
    },
    /// A message that was not given before.
    Message(Message),
    /// One of ours is stored.
    Acknowledged(Draft, Ack),
    /// One of ours was refused for good.
    Refused(Draft, Fault),
    Typing {
        from: String,
    },
    Presence(Presence),
    /// Messages to this user are lost for good, and the server says so.
    Lost,
    /// The last event: more attempts would bring the same.
    Ended {
        why: String,
    },
}

enum Phase {
    Waiting { until: Instant },
    Connecting(Pin<Box<dyn Future<Output = Result<Opened, ConnectError>> + Send>>),
    Open { link: Box<Link>, server_time: Option<SystemTime> },
    Ended,
}

/// One user's connection, as long as it is wanted.
pub struct Client {
    options: Options,
    tls: Option<Arc<ClientConfig>>,
    phase: Phase,
    events: VecDeque<Event>,
    outbox: Outbox,
    inbox: Inbox,
    watched: Vec<String>,
    /// Attempts in a row that led to nothing lasting.
    failures: u32,
}

impl Client {
    /// A client that connects with the first call of [`Client::next`].
    ///
    /// # Errors
    /// Where the address asks for TLS and the system's root certificates cannot be read.
    pub fn new(options: Options) -> std::io::Result<Self> {
        let tls = options.address.is_secure().then(connect::tls).transpose()?;
        let inbox = Inbox::new(options.start);
        Ok(Self {
            options,
            tls,
            phase: Phase::Waiting { until: Instant::now() },
            events: VecDeque::new(),
            outbox: Outbox::default(),
            inbox,
            watched: Vec::new(),
            failures: 0,
        })
    }

    /// Sends a message, now or as soon as there is a connection; in the order of the calls.
    ///
    /// # Errors
    /// Where too many wait already.
    pub fn send(&mut self, draft: Draft) -> Result<(), OutboxFull> {
        self.outbox.push(draft)
    }

    /// Messages that are neither acknowledged nor refused yet.
    pub fn unsettled(&self) -> usize {
        self.outbox.len()
    }

    /// Tells `to` that something is being written; nothing where there is no connection.
    pub fn typing(&mut self, to: &str) {
        if let Some(link) = self.welcomed() {
            link.notice(frames::typing(to));
        }
    }

    /// Asks for the presence of `users`, now and with each connection, and to be told of changes.
    pub fn watch(&mut self, users: Vec<String>) {
        self.watched = users;
        let frame = frames::presence(&self.watched);
        if let Some(link) = self.welcomed() {
            link.notice(frame);
        }
    }

    fn welcomed(&mut self) -> Option<&mut Link> {
        match &mut self.phase {
            Phase::Open { link, .. } if link.is_welcomed() => Some(link),
            _ => None,
        }
    }

    /// The next event; none after [`Event::Ended`]. Safe to stop awaiting.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if matches!(self.phase, Phase::Ended) {
                return None;
            }
            self.step().await;
        }
    }

    /// Says goodbye to the server, where there is a connection.
    pub async fn close(self) {
        if let Phase::Open { link, .. } = self.phase {
            link.close().await;
        }
    }

    async fn step(&mut self) {
        match &mut self.phase {
            Phase::Waiting { until } => {
                tokio::time::sleep_until(*until).await;
                self.dial();
            }
            Phase::Connecting(attempt) => match attempt.await {
                Ok(Opened { socket, server_time }) => {
                    let link = Box::new(Link::new(socket));
                    self.phase = Phase::Open { link, server_time };
                }
                Err(error) => self.not_connected(&error),
            },
            Phase::Open { link, server_time } => {
                let at = *server_time;
                if let Some(draft) = link.max_text.and_then(|most| self.outbox.settle_too_big(most))
                {
                    self.events.push_back(too_big(draft));
                    return;
                }
                match link.next(&mut self.outbox).await {
                    Happened::Frame(frame) => self.on_frame(frame, at),
                    Happened::Gone { code, why } => self.gone(code, why),
                    Happened::Planned => self.gone(1012, "the gateway asked for it".to_owned()),
                }
            }
            Phase::Ended => {}
        }
    }

    fn dial(&mut self) {
        let Options { address, user, region, token, .. } = &self.options;
        let url = address.handshake(user, region.as_deref(), self.inbox.resume());
        let attempt = connect::connect(address.clone(), url, token.clone(), self.tls.clone());
        self.phase = Phase::Connecting(Box::pin(attempt));
    }

    fn not_connected(&mut self, error: &ConnectError) {
        if error.is_final() {
            return self.end(error.to_string());
        }
        let pause = backoff::pause(self.failures, PAUSE_FIRST, PAUSE_MOST);
        self.failures = self.failures.saturating_add(1);
        // Not sooner than the server wants it, and not all at that very moment either.
        let pause = error.retry_after().unwrap_or_default() + pause;
        self.wait(pause, error.to_string());
    }

    fn gone(&mut self, code: u16, why: String) {
        let Phase::Open { link, .. } = &self.phase else { return };
        let planned = link.planned().map(|at| at.saturating_duration_since(Instant::now()));
        if link.is_welcomed() && link.opened.elapsed() >= STEADY {
            self.failures = 0;
        }
        if code == TOO_BIG
            && let Some(draft) = self.outbox.settle_under_way()
        {
            self.events.push_back(too_big(draft));
        }
        self.outbox.disconnected();
        self.inbox.leave();
        if FINAL_CLOSES.contains(&code) {
            return self.end(format!("the gateway closed the connection with {code}: {why}"));
        }
        let pause = planned.unwrap_or_else(|| {
            let pause = backoff::pause(self.failures, PAUSE_FIRST, PAUSE_MOST);
            self.failures = self.failures.saturating_add(1);
            pause
        });
        self.wait(pause, why);
    }

    fn wait(&mut self, pause: Duration, why: String) {
        self.phase = Phase::Waiting { until: Instant::now() + pause };
        self.events.push_back(Event::Disconnected { why, again_in: pause });
    }

    fn end(&mut self, why: String) {
        self.phase = Phase::Ended;
        self.events.push_back(Event::Ended { why });
    }

    fn on_frame(&mut self, frame: ServerFrame, server_time: Option<SystemTime>) {
        let Phase::Open { link, .. } = &mut self.phase else { return };
        match frame {
            ServerFrame::Welcome(welcome) => {
                link.welcome(&welcome);
                if !self.watched.is_empty() {
                    link.notice(frames::presence(&self.watched));
                }
                // Without an epoch the bus is away, and a reset tells later whether anything is missing.
                let blind = welcome.epoch.is_empty();
                let whole = welcome.resumed || blind || !self.inbox.has_begun();
                self.inbox.place(welcome.epoch, welcome.seq);
                self.events.push_back(Event::Connected {
                    region: welcome.region,
                    whole,
                    server_time,
                });
            }
            ServerFrame::Message(message) => {
                if self.inbox.take(&message) {
                    self.events.push_back(Event::Message(message));
                }
            }
            ServerFrame::Ack(ack) => {
                if let Some(draft) = self.outbox.settle(&ack.id) {
                    self.events.push_back(Event::Acknowledged(draft, ack));
                }
            }
            ServerFrame::Error(fault) => self.on_error(fault),
            ServerFrame::Typing { from } => self.events.push_back(Event::Typing { from }),
            ServerFrame::Presence(presence) => self.events.push_back(Event::Presence(presence)),
            ServerFrame::Reset { epoch, seq } => {
                if self.inbox.loses_by(&epoch, seq) {
                    self.events.push_back(Event::Lost);
                }
                self.inbox.place(epoch, seq);
            }
            ServerFrame::Reconnect { after_ms } => {
                link.plan(Duration::from_millis(after_ms).min(LONGEST_PLAN));
            }
            ServerFrame::Unknown => {}
        }
    }

    /// An error without the id of a message concerns a notice, which nobody waits for: an older server, for one,
    /// does not know `presence`.
    fn on_error(&mut self, fault: Fault) {
        let Some(id) = fault.id.clone() else { return };
        if fault.retryable {
            self.outbox.hold(&id, Instant::now());
        } else if let Some(draft) = self.outbox.settle(&id) {
            self.events.push_back(Event::Refused(draft, fault));
        }
    }
}

fn too_big(draft: Draft) -> Event {
    let (code, message) = ("text_too_long".to_owned(), "the gateway takes no message of this size");
    Event::Refused(draft, Fault { code, message: message.to_owned(), id: None, retryable: false })
}
