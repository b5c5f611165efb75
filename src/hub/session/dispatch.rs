//! What a client's frames give rise to: publishes, signals, answers, or the end.
//!
//! Invariants: a frame that is wrong is answered with one error and booked; one over the rate is answered
//! too, and booked apart, since it was right; every publish is answered once.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::ready;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::super::ending::End;
use super::super::presence::Watching;
use super::super::relay::BusError;
use super::super::sending::Sent;
use super::{Session, now_ms};
use crate::protocol::incoming::{self, ClientFrame, Draft};
use crate::protocol::outgoing::{self, Outgoing};
use crate::protocol::{Close, Code};

const TOO_MANY_USERS: &str = "users lists more than hub.max_presence_users: list fewer";

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) fn on_message(
        &mut self,
        message: Message,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), End> {
        self.heartbeat.heard();
        match message {
            Message::Text(text) => self.on_text(&text, cx, now),
            Message::Binary(_) => Err(End::Server(Close::Binary)),
            Message::Close(frame) => Err(End::by_client(frame.as_ref())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn on_text(&mut self, text: &str, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        self.record.received.count(text.len());
        self.place().region.metrics.received.inc();
        match incoming::parse(text, self.limits().terms.max_text_bytes) {
            Ok(ClientFrame::Message(draft)) => {
                if self.may_send(now) {
                    self.publish(&draft, cx);
                } else {
                    self.refuse_over_rate(draft.id.as_deref(), now)?;
                }
            }
            Ok(ClientFrame::Typing { to }) => {
                if self.may_send(now) {
                    self.signal(&to, cx);
                } else {
                    self.refuse_over_rate(None, now)?;
                }
            }
            Ok(ClientFrame::Presence { users }) => {
                if !self.may_send(now) {
                    self.refuse_over_rate(None, now)?;
                } else if users.len() > self.limits().max_watched {
                    self.on_bad_frame(Code::BadFrame, TOO_MANY_USERS, None, now)?;
                } else {
                    self.watch(&users);
                }
            }
            Ok(ClientFrame::Ping) => self.replies.push_back(outgoing::pong()),
            Err(fault) => self.on_bad_frame(fault.code, fault.advice, fault.id.as_deref(), now)?,
        }
        Ok(())
    }

    fn on_bad_frame(
        &mut self,
        code: Code,
        advice: &'static str,
        id: Option<&str>,
        now: Instant,
    ) -> Result<(), End> {
        self.refuse_with(code, advice, id);
        let rate = self.limits().rates.bad_frames;
        if self.bad_frames.take(&rate, now - self.record.since()) {
            Ok(())
        } else {
            Err(End::Server(Close::Policy))
        }
    }

    /// Follows the presence of `users`, in the place of those before.
    fn watch(&mut self, users: &[Cow<'_, str>]) {
        let users = users.iter().map(|user| Arc::from(&**user)).collect();
        let place = &self.record.place;
        let earlier = self.delivery.watching.take();
        self.delivery.watching =
            Watching::replace(earlier, &place.hub.watchers, &place.seat, users);
    }

    /// Whether the budgets of this connection and of its user allow one more.
    fn may_send(&mut self, now: Instant) -> bool {
        let place = &self.record.place;
        let rates = &place.hub.limits.rates;
        self.messages.take(&rates.messages, now - self.record.since())
            && place.seat.share.may_send(&rates.user_messages, now - place.hub.since)
    }

    fn publish(&mut self, draft: &Draft<'_>, cx: &mut Context<'_>) {
        let place = &self.record.place;
        let outgoing = Outgoing::compose(draft, &place.user, place.region.name.as_str(), now_ms());
        let Some(under_way) = place.seat.share.enter(&place.hub.crowd) else {
            // Behind the answers to what was sent before.
            self.sending.begin(
                ready(Some((
                    outgoing,
                    Err(BusError::Unavailable(Arc::from(
                        "too many messages of this user wait for the bus",
                    ))),
                ))),
                cx,
            );
            return;
        };
        let publish = place.hub.relay.publish(outgoing, &place.user);
        self.sending.begin(publish.inspect(move |_answered| drop(under_way)), cx);
    }

    fn signal(&mut self, to: &str, cx: &mut Context<'_>) {
        let place = &self.record.place;
        // What passes is not missed where too many wait.
        let Some(under_way) = place.seat.share.enter(&place.hub.crowd) else { return };
        let signal = place.hub.relay.signal(to, outgoing::typing(&place.user));
        let passed = signal.map(move |()| {
            drop(under_way);
            None
        });
        self.sending.begin(passed, cx);
    }

    /// Queues an acknowledgement or an error for every publish that is answered.
    pub(super) fn collect_answers(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(sent) = self.sending.poll_next(cx) {
            self.answer(sent);
        }
    }

    pub(super) fn answer(&mut self, sent: Sent) {
        match sent {
            None => {}
            Some((outgoing, Ok(receipt))) => {
                self.place().region.metrics.acknowledged.inc();
                self.replies.push_back(outgoing::ack(
                    outgoing.id(),
                    receipt.seq,
                    receipt.at_ms,
                    receipt.duplicate,
                ));
            }
            Some((outgoing, Err(_))) => self.refuse(Code::BusUnavailable, Some(outgoing.id())),
        }
    }

    fn refuse_over_rate(&mut self, id: Option<&str>, now: Instant) -> Result<(), End> {
        self.refuse(Code::RateLimited, id);
        let rate = self.limits().rates.refusals;
        if self.refusals.take(&rate, now - self.record.since()) {
            Ok(())
        } else {
            Err(End::Server(Close::Flood))
        }
    }

    fn refuse(&mut self, code: Code, id: Option<&str>) {
        self.refuse_with(code, code.advice(), id);
    }

    fn refuse_with(&mut self, code: Code, advice: &'static str, id: Option<&str>) {
        self.place().region.metrics.error(code);
        self.replies.push_back(outgoing::error(code, advice, id));
    }
}
