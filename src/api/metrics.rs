//! Counts of the API: requests and messages, by the key that made them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Refusal;
use crate::identity::KeyId;
use crate::observability::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    key: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MessageLabels {
    key: String,
    result: &'static str,
}

/// How requests end.
#[derive(Debug, Default)]
struct Requests {
    answered: Counter,
    refused: Counter,
    rate_limited: Counter,
    unavailable: Counter,
}

/// What became of messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) published: Counter,
    pub(super) duplicate: Counter,
    pub(super) refused: Counter,
    pub(super) unavailable: Counter,
}

/// Handles of the series, beside the keys.
#[derive(Debug)]
pub(super) struct Metrics {
    requests: Vec<Requests>,
    messages: Vec<Messages>,
    /// Requests that showed no key that is known, or needed none: their label is empty.
    keyless: Requests,
}

impl Metrics {
    pub(super) fn new<'a>(keys: impl Iterator<Item = &'a str>, registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let messages = Family::<MessageLabels, Counter>::default();
        let requests_of = |key: &str| {
            let of = |outcome| {
                requests.get_or_create(&RequestLabels { key: key.to_owned(), outcome }).clone()
            };
            Requests {
                answered: of("answered"),
                refused: of("refused"),
                rate_limited: of("rate_limited"),
                unavailable: of("unavailable"),
            }
        };
        let messages_of = |key: &str| {
            let of = |result| {
                messages.get_or_create(&MessageLabels { key: key.to_owned(), result }).clone()
            };
            Messages {
                published: of("published"),
                duplicate: of("duplicate"),
                refused: of("refused"),
                unavailable: of("unavailable"),
            }
        };
        let (of_keys, of_messages) = keys.map(|key| (requests_of(key), messages_of(key))).collect();
        let metrics = Self { requests: of_keys, messages: of_messages, keyless: requests_of("") };
        registry.register("api_requests", "Requests to the API", requests);
        registry.register("api_messages", "Messages posted to the API", messages);
        metrics
    }

    pub(super) fn request(&self, key: Option<KeyId>, refusal: Option<&Refusal>) {
        let of = key.and_then(|key| self.requests.get(key.index())).unwrap_or(&self.keyless);
        let counter = match refusal {
            None => &of.answered,
            Some(Refusal::RateLimited { .. }) => &of.rate_limited,
            Some(Refusal::BatchUnavailable(_) | Refusal::BusUnavailable | Refusal::Overloaded) => {
                &of.unavailable
            }
            Some(Refusal::Message(fault)) if fault.is_retryable => &of.unavailable,
            Some(_) => &of.refused,
        };
        counter.inc();
    }

    pub(super) fn messages(&self, key: KeyId) -> Option<&Messages> {
        self.messages.get(key.index())
    }
}
