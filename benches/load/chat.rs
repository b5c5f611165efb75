//! Messages between pairs: how many arrive, and for how much processor time of whom.
//!
//! Walk: `Chat::run` opens two sockets a pair and starts one task for each pair; the task keeps a fixed
//! number of messages in flight (sent, not yet seen by the receiver). After a warm-up the deliveries and
//! the processor seconds between two instants are taken, then sending stops and the rest must arrive.
//!
//! Invariants: nothing is sent after the stop; a message counts once, and only when its receiver has it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{FutureExt, SinkExt, StreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::meter::Process;
use crate::{CONNECTS_AT_ONCE, Socket, Target};

/// After the stop, what is still on its way has this long to arrive; then it counts as lost.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    target: Target,
    /// Senders, each with a receiver of its own.
    #[arg(long, default_value_t = 200)]
    pairs: usize,
    /// Messages of one sender that are on their way at once.
    #[arg(long, default_value_t = 8)]
    window: u64,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Seconds before the measurement.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Part of every user's name, so that runs do not meet each other's messages.
    #[arg(long, default_value = "run")]
    tag: String,
    /// A process whose processor time is reported, as `name=pid`; may be repeated.
    #[arg(long)]
    process: Vec<Process>,
}

/// What all pairs count together.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    /// Frames that came back to a sender: acknowledgements.
    answers: AtomicU64,
    /// Received with another number than the one due: lost before it, repeated, or overtaken.
    out_of_order: AtomicU64,
    /// Answers that say the message was refused.
    refused: AtomicU64,
}

/// One sender and its receiver.
struct Pair {
    sender: Socket,
    receiver: Socket,
    to: String,
    text: Arc<str>,
    window: u64,
    sent: u64,
    received: u64,
    tally: Arc<Tally>,
}

impl Chat {
    /// Runs the load and describes what happened.
    pub(crate) async fn run(self) -> String {
        let tally = Arc::new(Tally::default());
        let pairs: Vec<Pair> = stream::iter(0..self.pairs)
            .map(|number| self.connect(number, &tally))
            .buffer_unordered(CONNECTS_AT_ONCE)
            .collect()
            .await;
        // Nchan registers its subscriptions after the handshake is answered.
        sleep(Duration::from_millis(500)).await;
        let mut tasks = JoinSet::new();
        for pair in pairs {
            tasks.spawn(pair.run());
        }
        sleep(Duration::from_secs_f64(self.warm_up)).await;
        let start = self.sample(&tally);
        sleep(Duration::from_secs_f64(self.seconds)).await;
        let end = self.sample(&tally);
        tally.stop.store(true, Relaxed);
        let drained = async { while tasks.join_next().await.is_some() {} };
        let whole = timeout(DRAIN_LIMIT, drained).await.is_ok();
        Self::report(&self.process, &tally, &start, &end, whole)
    }

    async fn connect(&self, number: usize, tally: &Arc<Tally>) -> Pair {
        let (from, to) = (format!("{}-s{number}", self.tag), format!("{}-r{number}", self.tag));
        Pair {
            receiver: self.target.connect(&to, &from).await,
            sender: self.target.connect(&from, &to).await,
            to,
            text: "x".repeat(self.bytes).into(),
            window: self.window,
            sent: 0,
            received: 0,
            tally: Arc::clone(tally),
        }
    }

    fn sample(&self, tally: &Tally) -> Sample {
        Sample {
            at: Instant::now(),
            received: tally.received.load(Relaxed),
            cpu: self.process.iter().map(Process::cpu_seconds).collect(),
        }
    }

    fn report(
        processes: &[Process],
        tally: &Tally,
        start: &Sample,
        end: &Sample,
        whole: bool,
    ) -> String {
        let mut line = format!(
            "delivered={} seconds={:.3} sent={} received={} answers={} out_of_order={} refused={} drained={whole}",
            end.received - start.received,
            (end.at - start.at).as_secs_f64(),
            tally.sent.load(Relaxed),
            tally.received.load(Relaxed),
            tally.answers.load(Relaxed),
            tally.out_of_order.load(Relaxed),
            tally.refused.load(Relaxed),
        );
        for (process, (start, end)) in processes.iter().zip(start.cpu.iter().zip(&end.cpu)) {
            write!(line, " cpu_{}={:.2}", process.name, end - start)
                .expect("a String takes everything");
        }
        line
    }
}

/// The counters at one instant.
struct Sample {
    at: Instant,
    received: u64,
    /// Processor seconds, in the order of the processes.
    cpu: Vec<f64>,
}

impl Pair {
    /// Sends while it may, and ends when everything sent has arrived.
    async fn run(mut self) {
        loop {
            self.fill_window().await;
            if self.sent <= self.received {
                return;
            }
            // What else is ready is taken before the next send, so that the answers to a burst cost one wake-up.
            tokio::select! {
                biased;
                frame = self.receiver.next() => {
                    self.take_delivery(frame);
                    while let Some(frame) = self.receiver.next().now_or_never() {
                        self.take_delivery(frame);
                    }
                }
                frame = self.sender.next() => {
                    self.take_answer(frame);
                    while let Some(frame) = self.sender.next().now_or_never() {
                        self.take_answer(frame);
                    }
                }
            }
        }
    }

    async fn fill_window(&mut self) {
        let before = self.sent;
        while !self.tally.stop.load(Relaxed)
            && self.sent.saturating_sub(self.received) < self.window
        {
            let Self { to, text, sent, .. } = &*self;
            let frame =
                format!(r#"{{"type":"message","to":"{to}","text":"{text}","id":"{sent}"}}"#);
            self.sender.feed(Message::text(frame)).await.expect("the server reads");
            self.sent += 1;
        }
        if self.sent != before {
            self.sender.flush().await.expect("the server reads");
            self.tally.sent.fetch_add(self.sent - before, Relaxed);
        }
    }

    fn take_delivery(&mut self, frame: Option<Result<Message, Error>>) {
        let frame = frame.expect("the receiver stays open").expect("a frame");
        let Message::Text(frame) = frame else { return };
        let Some(id) = message_id(&frame) else { return };
        if id != self.received {
            self.tally.out_of_order.fetch_add(1, Relaxed);
        }
        self.received += 1;
        self.tally.received.fetch_add(1, Relaxed);
    }

    fn take_answer(&self, frame: Option<Result<Message, Error>>) {
        let frame = frame.expect("the sender stays open").expect("a frame");
        let Message::Text(frame) = frame else { return };
        self.tally.answers.fetch_add(1, Relaxed);
        if frame.starts_with(r#"{"type":"error""#) {
            self.tally.refused.fetch_add(1, Relaxed);
        }
    }
}

/// The number that the sender gave; the text holds no quotes, so that a search is enough.
fn message_id(frame: &str) -> Option<u64> {
    let (_, rest) = frame.split_once(r#""id":""#)?;
    let (id, _) = rest.split_once('"')?;
    id.parse().ok()
}
