//! The course of one request: from backend to backend, and from region to region, until one has answered.
//!
//! A backend that could not be reached is followed by the next, whatever the method, for nothing was sent; no budget
//! counts that, since nobody has done any work for it. What may have been seen is sent again only where the terms say
//! that it may be, the region's budget has something left, and there is somebody else to send it to; or to the same
//! backend, where it had closed a kept connection (RFC 9112, 9.3.1). Once the first byte of an answer is there, nothing
//! is sent again, but for an answer that says itself that it is none.
//!
//! Invariants: a backend is tried once at most, apart from that; the border of a `strict` region is not crossed; the
//! error at the end is that of the last backend that was tried, and "no backend" only where none was.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Proxy;
use super::backends::{Active, Group, Tried};
use super::dial::{ConnectError, Sender};
use super::error::{Cause, ForwardError};
use super::failover::Standing;
use super::forward::{Exchange, Terms, refused, send};
use super::headers;
use super::region::{Region, RegionRef};
use super::report::Report;
use super::upload::RequestBody;

/// Which of a region's backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its applications.
    Backends,
    /// Its chat.
    Hub,
}

impl Side {
    pub(super) fn of(self, region: &Region) -> Option<&Group> {
        match self {
            Self::Backends => Some(&region.backends),
            Self::Hub => region.hub.as_deref(),
        }
    }

    /// Whether the region can take anything.
    fn is_well(self, region: &Region) -> bool {
        self.of(region).is_some_and(|group| group.usable().well != 0)
    }

    fn standing(self, region: &Region) -> Standing {
        self.of(region).map(Group::standing).unwrap_or_default()
    }
}

impl Proxy {
    /// Sends a request until a backend has answered it; `asked` is the region it is for.
    pub(super) async fn exchange(
        &self,
        asked: &Arc<Region>,
        side: Side,
        request: Request<RequestBody>,
        terms: &Terms<'_>,
        report: &mut Report,
    ) -> Result<Exchange, ForwardError> {
        let turn = asked.budget.request();
        let left = if terms.replayable { asked.bounds.retry.attempts.get() } else { 1 };
        let mut course = Course {
            proxy: self,
            asked,
            side,
            terms,
            report,
            unsent: Some(request),
            left,
            due: false,
            roamed: false,
            verdict: None,
            rejected: None,
        };
        let run = pin!(course.run(turn));
        let Some(deadline) = terms.deadline else { return run.await };
        terms.alarm.bound(deadline, run).await.unwrap_or_else(|| {
            asked.series.failed(Cause::TotalTimeout);
            tracing::warn!(target: "Proxy", region = %asked.name, "{}", ForwardError::TotalTimeout);
            Err(ForwardError::TotalTimeout)
        })
    }
}

/// One request on its way.
struct Course<'a> {
    proxy: &'a Proxy,
    /// The region that the request is for.
    asked: &'a Arc<Region>,
    side: Side,
    terms: &'a Terms<'a>,
    report: &'a mut Report,
    /// The request, while nobody has it; gone for good when it must not be sent again.
    unsent: Option<Request<RequestBody>>,
    /// How often it may still be sent.
    left: u8,
    /// It may have been seen: the next one to get it needs the budget's consent.
    due: bool,
    /// It was handed to another region.
    roamed: bool,
    verdict: Option<ForwardError>,
    /// An answer that says itself that it is none; it stands where no other comes.
    rejected: Option<Exchange>,
}

impl Course<'_> {
    async fn run(&mut self, turn: usize) -> Result<Exchange, ForwardError> {
        let asked = self.asked;
        let policy = &asked.policy;
        let at_home = match policy {
            policy if policy.is_strict() => true,
            policy if policy.goes_by_share() => policy.keeps_all(self.side.standing(asked)),
            _ => self.side.is_well(asked),
        };
        if at_home && let Some(exchange) = self.within(asked).await {
            return Ok(exchange);
        }
        if !policy.is_strict() && self.unsent.is_some() {
            // Boxed: what is rare should not make the usual exchange larger.
            if let Some(exchange) = Box::pin(self.beyond(turn, at_home)).await {
                return Ok(exchange);
            }
        }
        match self.rejected.take() {
            Some(exchange) => {
                self.note(&exchange.active, &exchange.region);
                Ok(exchange)
            }
            None => Err(self.verdict.unwrap_or(ForwardError::NoBackend)),
        }
    }

    /// One region after the other, as the policy has them. `been_home`: the one that was asked for was tried before.
    async fn beyond(&mut self, turn: usize, been_home: bool) -> Option<Exchange> {
        let regions = self.proxy.shared.candidates(self.asked);
        let mut standings: Vec<_> =
            regions.iter().map(|region| self.side.standing(region)).collect();
        if let Some(home) = standings.first_mut().filter(|_| been_home) {
            home.usable = 0;
        }
        let mut order = self.asked.policy.order(&standings, turn);
        if !been_home && !order.contains(&0) {
            // When nobody else has answered, what is wrong at home is found out there.
            order.push(0);
        }
        for region in order.into_iter().filter_map(|index| regions.get(index)) {
            if self.unsent.is_none() {
                break;
            }
            if let Some(exchange) = self.within(region).await {
                return Some(exchange);
            }
        }
        None
    }

    /// One backend of a region after the other.
    async fn within(&mut self, region: &Arc<Region>) -> Option<Exchange> {
        self.onwards(region, Tried::default()).await
    }

    /// The same, without those that were tried.
    async fn onwards(&mut self, region: &Arc<Region>, mut tried: Tried) -> Option<Exchange> {
        let group = self.side.of(region)?;
        while self.unsent.is_some() {
            let request = self.unsent.as_ref()?;
            let key = group.key(request.headers(), self.terms.client);
            let active = match group.acquire(&mut tried, key).await {
                Ok(active) => active,
                Err(none) => {
                    // A reload may have replaced all that it could go to, while it waited in line or for its body.
                    if let Some((now, tried)) = self.in_present_edition(region, group, tried) {
                        return Box::pin(self.onwards(&now, tried)).await;
                    }
                    self.verdict.get_or_insert(ForwardError::from(none));
                    return None;
                }
            };
            if std::mem::take(&mut self.due) && !self.may_repeat() {
                self.unsent = None;
                return None;
            }
            self.enter(region);
            self.note(&active, region);
            self.report.attempts = self.report.attempts.saturating_add(1);
            match self.attempt(&active, group).await {
                Ok((response, sender)) => {
                    let took = Some(active.since.elapsed());
                    self.report.first_byte = took;
                    let is_none = self.unsent.is_some() && self.is_none(response.status());
                    let region = Arc::clone(region);
                    let mut exchange = Exchange { response, sender, active, region, took };
                    if !is_none {
                        return Some(exchange);
                    }
                    exchange.judge();
                    self.rejected.get_or_insert(exchange);
                    self.due = true;
                }
                Err(error) => self.failed(error),
            }
        }
        None
    }

    /// The region as the present table has it, and those that were tried in that, where it is not the same.
    fn in_present_edition(
        &self,
        region: &Arc<Region>,
        group: &Group,
        tried: Tried,
    ) -> Option<(Arc<Region>, Tried)> {
        let now = self.proxy.shared.present(region)?;
        let tried = self.side.of(&now)?.tried_before(group, tried);
        Some((now, tried))
    }

    /// The request goes to a backend of this region.
    fn enter(&mut self, region: &Arc<Region>) {
        let abroad = !Arc::ptr_eq(region, self.asked) && region.name != self.asked.name;
        if abroad && !self.roamed {
            self.asked.series.failovers.inc();
            tracing::debug!(target: "Proxy", region = %self.asked.name, served = %region.name, "failover");
        }
        self.roamed |= abroad;
        self.report.why = abroad.then(|| self.asked.policy.name());
        if self.roamed
            && let Some(request) = &mut self.unsent
        {
            headers::hand_over(request.headers_mut(), &region.header);
        }
    }

    fn note(&mut self, active: &Active, region: &Arc<Region>) {
        // Compared first: a count of references that all workers share is better left alone.
        if !self.report.served.as_ref().is_some_and(|served| Arc::ptr_eq(&served.0, region)) {
            self.report.served = Some(RegionRef(Arc::clone(region)));
        }
        self.report.backend = Some(Arc::clone(&active.upstream.label));
    }

    /// Draws the consequence of an attempt that failed: where the request must not be sent again, it is given up.
    fn failed(&mut self, error: ForwardError) {
        self.verdict = Some(error);
        let goes_on = match error {
            // Nobody has seen it.
            ForwardError::Connect | ForwardError::Tls => true,
            // Nor this, but it has taken its time.
            ForwardError::ConnectTimeout | ForwardError::TlsTimeout | ForwardError::Refused => {
                self.has_tries()
            }
            ForwardError::Reset | ForwardError::HeadTimeout => {
                self.due = true;
                true
            }
            _ => false,
        };
        if !goes_on {
            self.unsent = None;
        }
    }

    fn has_tries(&self) -> bool {
        self.report.attempts < self.asked.bounds.retry.attempts.get()
    }

    /// Whether the budget has another time; if so, it is counted.
    fn may_repeat(&mut self) -> bool {
        let retry = &self.asked.bounds.retry;
        if self.left <= 1 {
            return false;
        }
        let granted = self.asked.budget.take(retry);
        let series = &self.asked.series;
        if granted {
            self.left -= 1;
            series.retries.inc();
        } else {
            series.retries_refused.inc();
        }
        granted
    }

    /// Sends the request to one backend. What is in `unsent` afterwards was not sent, or could be sent again.
    async fn attempt(
        &mut self,
        active: &Active,
        group: &Group,
    ) -> Result<(Response<Incoming>, Sender), ForwardError> {
        let (conns, bounds) = (&self.proxy.conns, &self.asked.bounds);
        let elsewhere = group.members.len() > 1 || !self.asked.policy.is_strict();
        let upstream = &active.upstream;
        let kept = if self.terms.upgrade { None } else { conns.take(upstream, bounds) };
        if let Some(sender) = kept {
            upstream.series.reuses.inc();
            let again = self.may_be_sent_again();
            let spare = self.spare(again, &sender);
            let in_haste = elsewhere && again;
            match send(sender, active, &mut self.unsent, self.terms, in_haste).await {
                // It was closed before anything went out.
                Err(ForwardError::Reset | ForwardError::Refused) if self.unsent.is_some() => {}
                Err(ForwardError::Refused) if spare.is_some() => self.unsent = spare,
                // It was closed when the request came: the backend is as good as before.
                Err(ForwardError::Reset) if again => {
                    if !self.may_repeat() {
                        return Err(refused(active, ForwardError::Reset, "on a kept connection"));
                    }
                    self.unsent = spare;
                }
                Err(error) => {
                    self.unsent = spare.filter(|_| again);
                    return Err(refused(active, error, "on a kept connection"));
                }
                Ok(answered) => {
                    self.unsent = spare.filter(|_| again && elsewhere);
                    return Ok(answered);
                }
            }
        }
        let sender = match conns.connect(upstream, bounds, self.terms.upgrade).await {
            Ok(sender) => sender,
            Err(detail) => {
                let error = match detail {
                    ConnectError::Timeout(_) => ForwardError::ConnectTimeout,
                    ConnectError::TlsTimeout(_) => ForwardError::TlsTimeout,
                    ConnectError::Tls(_) => ForwardError::Tls,
                    ConnectError::Io(_) | ConnectError::Handshake(_) => ForwardError::Connect,
                };
                return Err(refused(active, error, detail));
            }
        };
        upstream.health.reached();
        let again = elsewhere && self.may_be_sent_again();
        let spare = if elsewhere { self.spare(again, &sender) } else { None };
        let answered = send(sender, active, &mut self.unsent, self.terms, again).await;
        let unseen = matches!(answered, Err(ForwardError::Refused));
        self.unsent = self.unsent.take().or(spare.filter(|_| again || unseen));
        answered.map_err(|error| refused(active, error, "on a new connection"))
    }

    /// Whether an answer says itself that it is none: a handshake that the backend fails, or what the settings name.
    fn is_none(&self, status: StatusCode) -> bool {
        if self.terms.upgrade {
            return status.is_server_error();
        }
        self.asked.bounds.retry.statuses.contains(&status.as_u16())
    }

    /// Whether the request could go out once more even if it was seen.
    fn may_be_sent_again(&self) -> bool {
        self.terms.replayable && self.left > 1
    }

    /// The request once more, where it may be sent `again`, or where a backend may give it back by a word: of a stream of
    /// HTTP/2 it can say that it has done nothing with it.
    fn spare(&self, again: bool, sender: &Sender) -> Option<Request<RequestBody>> {
        if !again && !matches!(sender, Sender::Http2(_)) {
            return None;
        }
        let request = self.unsent.as_ref()?;
        let mut copy = Request::new(request.body().again()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Some(copy)
    }
}
