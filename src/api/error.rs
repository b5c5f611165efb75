//! Why the API did not do what was asked; `edge` makes the answer of it.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use serde_json::value::RawValue;

use crate::identity::Unauthorized;
use crate::protocol::Code;

/// Why a request was refused. The text says what to do next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Unauthorized(Unauthorized),
    /// The key is over its rate; how many seconds until it is not.
    #[error("this key makes too many requests: make this one again later, or post batches")]
    RateLimited { retry_after: u32 },
    #[error("{0}")]
    MediaType(&'static str),
    /// The limit, in bytes.
    #[error("the body is over {0} bytes (api.max_body_bytes): post it in parts")]
    BodyTooLarge(usize),
    #[error("the body did not come in time")]
    BodyStalled,
    #[error("the body broke off, or its framing is wrong")]
    BodyBroken,
    /// The limit, in messages.
    #[error("a batch has at most {0} messages: post it in parts")]
    BatchTooLarge(usize),
    #[error("the batch has no messages")]
    BatchEmpty,
    #[error("too much is being posted at once: post this again later")]
    Overloaded,
    /// The one message of the request.
    #[error("{}", .0.message)]
    Message(Fault),
    /// No message of the batch was taken, for want of a bus; the result of each.
    #[error("{}", Code::BusUnavailable.advice())]
    BatchUnavailable(Box<RawValue>),
    /// What was asked for cannot be read from the bus now.
    #[error("this cannot be told now: ask again later")]
    BusUnavailable,
    #[error("{0}")]
    QueryInvalid(&'static str),
    #[error(
        "nothing is here; there are /messages, /presence, /docs and /openapi.json, below the API's own prefix"
    )]
    NotFound,
    /// With the methods there are, as `Allow` has them.
    #[error("use a method that Allow lists")]
    MethodNotAllowed(Option<HeaderValue>),
}

/// What is wrong with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: &'static str,
    pub message: Cow<'static, str>,
    /// Of the message, where it has a valid one.
    pub id: Option<String>,
    /// The same message may be taken later.
    pub is_retryable: bool,
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>, id: Option<&str>) -> Self {
        Self {
            code: code.as_str(),
            message: message.into(),
            id: id.map(str::to_owned),
            is_retryable: code.is_retryable(),
        }
    }
}

/// Carries the refusal through the router, to be taken out behind it: the status says nothing.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}
