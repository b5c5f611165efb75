//! `POST /messages`: one message, or a batch of them.
//!
//! Invariants: messages are begun in the order of the request, so those of one sender to one recipient keep it; at
//! most [`PIPELINED`] of a request are in flight; once the bus has failed, those that were not begun are not; every
//! message has its own result, in the order of the request.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::intake::Parcel;
use super::metrics::Messages;
use super::{Fault, Refusal, Shared};
use crate::bus::{Bus, Envelope, Receipt};
use crate::identity::KeyId;
use crate::protocol::outgoing::{self, Outgoing};
use crate::protocol::posted::{self, Post, Posted};
use crate::protocol::{Code, incoming};
use crate::settings::{DeliveryMode, RegionName, Settings};

/// Messages of one batch.
pub(super) const MAX_BATCH: usize = 1_000;
/// Messages of one batch in flight at once, as of one socket.
const PIPELINED: usize = 32;
/// Batches that are published at once; with [`PIPELINED`] far below what the bus takes from all together.
const BATCHES: usize = 64;
/// For its turn a batch waits no longer.
const TURN: Duration = Duration::from_secs(10);

/// What turns posted text into messages on the bus.
#[derive(Debug)]
pub(super) struct Publisher {
    bus: Bus,
    /// As the hubs have it.
    delivery: DeliveryMode,
    max_text: usize,
    regions: Vec<RegionName>,
    /// The region of a message that names none.
    region: RegionName,
    batches: Semaphore,
}

/// A message that is on the bus.
struct Published {
    id: String,
    receipt: Receipt,
}

/// `POST /messages`
pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    Extension(key): Extension<KeyId>,
    Extension(parcel): Extension<Parcel>,
    request: Request,
) -> Result<Response, Refusal> {
    check_type(request.headers())?;
    let held = shared.intake.read(&parcel).await?;
    let refuse = |fault: incoming::Fault<'_>| Refusal::Message(shared.publisher.fault(&fault));
    let no_text = || Refusal::Message(Fault::new(Code::BadJson, "the body is not UTF-8", None));
    let body = std::str::from_utf8(&held.bytes).map_err(|_error| no_text())?;
    let counts = shared.metrics.messages(key);
    match posted::read(body, MAX_BATCH).map_err(refuse)? {
        Posted::One(message) => {
            let published = shared.publisher.one(message).await;
            if let Some(counts) = counts {
                count(counts, &published);
            }
            let published = published.map_err(Refusal::Message)?;
            Ok(json(published.ack()))
        }
        Posted::Batch(batch) if batch.is_over => Err(Refusal::BatchTooLarge(MAX_BATCH)),
        Posted::Batch(batch) if batch.items.is_empty() => Err(Refusal::BatchEmpty),
        Posted::Batch(batch) => shared.publisher.batch(&batch.items, counts).await,
    }
}

/// A body that says of itself that it is something else is not looked at.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_coded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_coded {
        return Err(Refusal::MediaType("send the body without a Content-Encoding"));
    }
    let is_json = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    if headers.get_all(CONTENT_TYPE).iter().all(is_json) {
        Ok(())
    } else {
        Err(Refusal::MediaType("send JSON, with Content-Type: application/json"))
    }
}

fn json(body: String) -> Response {
    (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn count(counts: &Messages, published: &Result<Published, Fault>) {
    let counter = match published {
        Ok(published) if published.receipt.duplicate => &counts.duplicate,
        Ok(_) => &counts.published,
        Err(fault) if fault.is_retryable => &counts.unavailable,
        Err(_) => &counts.refused,
    };
    counter.inc();
}

impl Published {
    /// The very frame that a socket would get.
    fn ack(&self) -> String {
        let Receipt { seq, at_ms, duplicate } = self.receipt;
        outgoing::ack(&self.id, seq, at_ms, duplicate).as_str().to_owned()
    }
}

impl Publisher {
    pub(super) fn new(settings: &Settings, bus: Bus) -> Self {
        let regions: Vec<_> = settings.regions.keys().cloned().collect();
        let region = settings.default_region.as_ref().or(regions.first()).cloned();
        Self {
            bus,
            delivery: settings.hub.delivery,
            max_text: settings.hub.max_text_bytes.get(),
            regions,
            // There is a first one: the settings are refused without any.
            region: region.unwrap_or_else(|| RegionName::literal("none")),
            batches: Semaphore::new(BATCHES),
        }
    }

    async fn one(&self, message: &str) -> Result<Published, Fault> {
        let post = posted::parse(message, self.max_text).map_err(|fault| self.fault(&fault))?;
        let region = self.region_of(&post)?;
        let outgoing = Outgoing::compose(&post.draft, &post.from, region, now_ms());
        let envelope = Envelope {
            to: outgoing.to(),
            from: &post.from,
            id: outgoing.id(),
            at_ms: outgoing.at_ms,
            head: outgoing.head(),
            tail: outgoing.tail(),
        };
        let taken = match self.delivery {
            DeliveryMode::ExactlyOnce => self.bus.publish(envelope).await,
            DeliveryMode::AtMostOnce => {
                let unstored = Receipt { seq: 0, at_ms: outgoing.at_ms, duplicate: false };
                self.bus.cast(envelope).await.map(|()| unstored)
            }
        };
        match taken {
            Ok(receipt) => Ok(Published { id: outgoing.id().to_owned(), receipt }),
            // Also the id that was made up: only with it can the message be sent again without a double.
            Err(_away) => Err(away(Some(outgoing.id()))),
        }
    }

    /// Publishes all of them; the answer has the result of each.
    async fn batch(
        &self,
        items: &[&RawValue],
        counts: Option<&Messages>,
    ) -> Result<Response, Refusal> {
        let turn = tokio::time::timeout(TURN, self.batches.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Refusal::Overloaded) };
        let is_away = AtomicBool::new(false);
        let results: Vec<_> = items.iter().map(|item| self.result(item.get(), &is_away)).collect();
        let mut results = futures_util::stream::iter(results).buffered(PIPELINED);
        let mut body = String::from(r#"{"results":["#);
        let mut all_away = true;
        let mut separator = "";
        while let Some(result) = results.next().await {
            if let Some(counts) = counts {
                count(counts, &result);
            }
            body.push_str(separator);
            separator = ",";
            match &result {
                Ok(published) => body.push_str(&published.ack()),
                Err(fault) => append_fault(&mut body, fault),
            }
            all_away &= result.is_err_and(|fault| fault.is_retryable);
        }
        body.push_str("]}");
        if all_away && let Some(results) = results_of(&body) {
            return Err(Refusal::BatchUnavailable(results));
        }
        Ok(json(body))
    }

    /// Publishes one message of a batch, unless the bus `is_away`.
    async fn result(&self, message: &str, is_away: &AtomicBool) -> Result<Published, Fault> {
        if is_away.load(Ordering::Relaxed) {
            return Err(self.not_begun(message));
        }
        let published = self.one(message).await;
        if published.as_ref().is_err_and(|fault| fault.is_retryable) {
            is_away.store(true, Ordering::Relaxed);
        }
        published
    }

    /// The result of a message behind one that the bus did not take: what is wrong with it, or that it waits.
    fn not_begun(&self, message: &str) -> Fault {
        match posted::parse(message, self.max_text) {
            Ok(post) => match self.region_of(&post) {
                Ok(_) => away(post.draft.id.as_deref()),
                Err(fault) => fault,
            },
            Err(fault) => self.fault(&fault),
        }
    }

    fn region_of(&self, post: &Post<'_>) -> Result<&str, Fault> {
        let Some(name) = post.region.as_deref() else { return Ok(self.region.as_str()) };
        if let Some(region) = self.regions.iter().find(|region| region.as_str() == name) {
            return Ok(region.as_str());
        }
        let (code, message) = if RegionName::is_valid(name) {
            let known: Vec<_> = self.regions.iter().map(RegionName::as_str).collect();
            (
                "region_unknown",
                format!("no such region is configured; use one of {}", known.join(", ")),
            )
        } else {
            (
                "region_invalid",
                "a region is named by 1 to 32 characters of A-Z a-z 0-9 _ -".to_owned(),
            )
        };
        let id = post.draft.id.as_deref().map(str::to_owned);
        Err(Fault { code, message: message.into(), id, is_retryable: false })
    }

    fn fault(&self, fault: &incoming::Fault<'_>) -> Fault {
        let message: Cow<'static, str> = match fault.code {
            Code::TextTooLong => format!(
                "text and data together are over {} bytes (hub.max_text_bytes)",
                self.max_text
            )
            .into(),
            _ => fault.advice.into(),
        };
        Fault::new(fault.code, message, fault.id.as_deref())
    }
}

fn away(id: Option<&str>) -> Fault {
    Fault::new(Code::BusUnavailable, Code::BusUnavailable.advice(), id)
}

/// The list in a batch's answer, for an error that carries it.
fn results_of(body: &str) -> Option<Box<RawValue>> {
    let list = body.strip_prefix(r#"{"results":"#)?.strip_suffix('}')?;
    RawValue::from_string(list.to_owned()).ok()
}

#[derive(Serialize)]
struct FaultBody<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retryable: bool,
}

fn append_fault(body: &mut String, fault: &Fault) {
    let Fault { code, message, id, is_retryable } = fault;
    let error = FaultBody { code, message, id: id.as_deref(), retryable: *is_retryable };
    // Strings under string keys: neither of the two has anything to refuse.
    let error = serde_json::to_string(&error).unwrap_or_default();
    let written = write!(body, r#"{{"error":{error}}}"#);
    debug_assert!(written.is_ok(), "a String takes everything");
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
