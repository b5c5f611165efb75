//! Why a request was not forwarded: what happened, whose fault it is, whether it may be tried again.
//!
//! Invariants: a message goes to the client, so it names no address; what the network said is in the
//! log. What a status code is, `edge` knows.

use std::error::Error as _;

use super::backends::NoBackend;
use super::dial::TlsSetupError;
use super::headers::FramingError;
use super::upload::UploadError;
use crate::observability::Ending;

/// Why a request has no response from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The region has no backend at all (503, with `Retry-After`).
    #[error("no backend of this region is available; try again later")]
    NoBackend,
    /// As many tunnels are open as may be (503, with `Retry-After`).
    #[error("this gateway has as many WebSockets open as it may; try again later")]
    TooManyTunnels,
    /// All backends are at their bound, and it could not be waited for one, or not any longer (503, with
    /// `Retry-After`).
    #[error("every backend of this region is busy; try again later")]
    Overloaded,
    /// No new tunnel is opened while the process goes down (503, with `Retry-After`).
    #[error("this gateway is draining; connect again")]
    Draining,
    /// No backend finished the TLS handshake in time (504). Nothing was sent.
    #[error("the backend did not finish the TLS handshake in time; try again later")]
    TlsTimeout,
    /// TLS with the backend failed: its certificate, most often (502). Nothing was sent.
    #[error("TLS with the backend failed; try again later")]
    Tls,
    /// Every backend refused, or its name has no address (502). Nothing was sent.
    #[error("the backend could not be reached; try again later")]
    Connect,
    /// No backend took the connection in time (504). Nothing was sent.
    #[error("the backend did not accept the connection in time; try again later")]
    ConnectTimeout,
    /// The backend closed the connection instead of answering (502). It may have seen the request.
    #[error("the backend closed the connection without an answer")]
    Reset,
    /// The backend gave a stream of HTTP/2 back untouched (502; RFC 9113, 8.7). It has done nothing with the request.
    #[error("the backend refused the request; try again later")]
    Refused,
    /// What the backend answered is not HTTP, or says two things about its own length (502).
    #[error("the backend's answer is not valid HTTP")]
    Garbage,
    /// A 101 that nobody asked for, or to another protocol (502; RFC 9110, 15.2.2).
    #[error("the backend switched protocols without being asked")]
    UnaskedUpgrade,
    /// A success that is no tunnel, to a client that could not tell the difference (502; RFC 8441, 5).
    #[error("the backend did not open the WebSocket")]
    NotSwitched,
    /// No response head in time (504).
    #[error("the backend did not answer in time")]
    HeadTimeout,
    /// Not all of the answer's head came in the time that the whole exchange may take (504).
    #[error("the exchange took longer than this gateway allows")]
    TotalTimeout,
    /// The request has been here before, or has passed too many gateways (508; RFC 9110, 7.6.3).
    #[error("this request goes in a circle; check where the gateways on its way send this region")]
    Loop,
    /// The request's framing headers cannot be trusted (400, close).
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The body the client sent breaks the chunked coding (400, close).
    #[error("the request body is malformed: check its chunked encoding")]
    BadBody,
    /// The body is over the limit, in bytes (413, close).
    #[error("the request body is larger than the limit of {0} bytes")]
    BodyTooLarge(u64),
    /// The client stopped sending its body (408, close).
    #[error("the request body stopped arriving; send it again")]
    BodyStalled,
    /// An upgrade request that RFC 9110, 7.8 or RFC 6455, 4.1 does not allow (400).
    #[error("{0}")]
    BadUpgrade(&'static str),
    /// A handshake of another version of the WebSocket protocol (426; RFC 6455, 4.4).
    #[error("send Sec-WebSocket-Version: 13; no other version is spoken here")]
    UpgradeVersion,
    /// The client left while its body was read (nobody is there to be answered; 499 in logs).
    #[error("the client left before the answer")]
    ClientGone,
}

/// Whose fault a failed exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Client,
    Backend,
    Gateway,
}

impl ForwardError {
    pub fn fault(self) -> Fault {
        match self {
            Self::NoBackend
            | Self::TooManyTunnels
            | Self::Overloaded
            | Self::Draining
            | Self::Loop => Fault::Gateway,
            Self::Connect
            | Self::ConnectTimeout
            | Self::Tls
            | Self::TlsTimeout
            | Self::Reset
            | Self::Refused
            | Self::Garbage
            | Self::UnaskedUpgrade
            | Self::NotSwitched
            | Self::HeadTimeout
            | Self::TotalTimeout => Fault::Backend,
            Self::Framing(_)
            | Self::BadBody
            | Self::BodyTooLarge(_)
            | Self::BodyStalled
            | Self::BadUpgrade(_)
            | Self::UpgradeVersion
            | Self::ClientGone => Fault::Client,
        }
    }

    /// Whether no backend has seen anything of the request, so that repeating it cannot do it twice.
    pub fn may_retry(self) -> bool {
        matches!(
            self,
            Self::NoBackend
                | Self::TooManyTunnels
                | Self::Overloaded
                | Self::Draining
                | Self::Connect
                | Self::ConnectTimeout
                | Self::Tls
                | Self::TlsTimeout
                | Self::Refused
        )
    }

    /// The cause as a metric label, for what counts against a backend.
    pub(super) fn cause(self) -> Option<Cause> {
        match self {
            Self::Connect => Some(Cause::Connect),
            Self::ConnectTimeout => Some(Cause::ConnectTimeout),
            Self::Tls => Some(Cause::Tls),
            Self::TlsTimeout => Some(Cause::TlsTimeout),
            Self::Reset | Self::Refused => Some(Cause::Reset),
            Self::Garbage | Self::UnaskedUpgrade | Self::NotSwitched => Some(Cause::Garbage),
            Self::HeadTimeout => Some(Cause::HeadTimeout),
            Self::TotalTimeout => Some(Cause::TotalTimeout),
            _ => None,
        }
    }

    /// How the exchange ended, for records of it.
    pub fn ending(self) -> Ending {
        match self {
            Self::NoBackend => Ending::NoBackend,
            Self::Overloaded | Self::TooManyTunnels => Ending::Overloaded,
            Self::Draining => Ending::Draining,
            Self::Connect => Ending::ConnectFailed,
            Self::ConnectTimeout => Ending::ConnectTimeout,
            Self::Tls => Ending::TlsFailed,
            Self::TlsTimeout => Ending::TlsTimeout,
            Self::Reset => Ending::BackendReset,
            Self::Refused => Ending::BackendRefused,
            Self::Garbage | Self::UnaskedUpgrade | Self::NotSwitched => Ending::BackendGarbage,
            Self::HeadTimeout => Ending::FirstByteTimeout,
            Self::TotalTimeout => Ending::TotalTimeout,
            Self::Loop => Ending::Loop,
            Self::Framing(_) | Self::BadBody | Self::BadUpgrade(_) | Self::UpgradeVersion => {
                Ending::BadRequest
            }
            Self::BodyTooLarge(_) => Ending::TooLarge,
            Self::BodyStalled => Ending::BodyTimeout,
            Self::ClientGone => Ending::ClientGone,
        }
    }

    /// What an exchange that failed in hyper means. A body error travels through hyper as the cause
    /// of a "user" error: without walking the chain, a client's bad chunk looks like a bad backend.
    pub(super) fn of_exchange(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(upload) = cause.downcast_ref::<UploadError>() {
                return upload.verdict();
            }
            source = cause.source();
        }
        if error.is_parse() {
            Self::Garbage
        } else if is_unprocessed(error) {
            Self::Refused
        } else {
            Self::Reset
        }
    }
}

impl From<NoBackend> for ForwardError {
    fn from(none: NoBackend) -> Self {
        match none {
            NoBackend::Unavailable => Self::NoBackend,
            NoBackend::Overloaded => Self::Overloaded,
        }
    }
}

/// Whether the backend has said that it did nothing with the stream: it refused it, or its GOAWAY leaves it out, which
/// is the only way in which that frame reaches a stream (RFC 9113, 6.8 and 8.7). A test holds that hyper's `h2` is ours.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (is_refused || cause.is_go_away())
    })
}

/// What went wrong with a backend; the closed set of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Connect,
    ConnectTimeout,
    Tls,
    TlsTimeout,
    Reset,
    Garbage,
    HeadTimeout,
    /// The response body broke off.
    Aborted,
    /// The response body stopped.
    Stalled,
    /// A WebSocket was closed as soon as it was accepted.
    EarlyClose,
    /// The exchange was not over in its time.
    TotalTimeout,
}

impl Cause {
    pub(super) const ALL: [Self; 11] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::TlsTimeout,
        Self::Reset,
        Self::Garbage,
        Self::HeadTimeout,
        Self::Aborted,
        Self::Stalled,
        Self::EarlyClose,
        Self::TotalTimeout,
    ];

    /// Whether it says something of the backend. A total time may have been used up by a client that reads slowly.
    pub(super) fn is_of_backend(self) -> bool {
        self != Self::TotalTimeout
    }

    /// Whether there was no connection, so that nothing of the backend is there.
    pub(super) fn is_unreachable(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Tls | Self::TlsTimeout)
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::HeadTimeout => "head_timeout",
            Self::Aborted => "aborted",
            Self::Stalled => "stalled",
            Self::EarlyClose => "early_close",
            Self::TotalTimeout => "total_timeout",
        }
    }
}

/// Why the regions of the settings cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("[tls.backends] {0}")]
    Tls(#[from] TlsSetupError),
    #[error(
        "region {region}: {url:?} is not a backend; write it like http://host:port or https://host:port"
    )]
    Url { region: String, url: String },
    #[error("region {region} has more than {limit} backends")]
    TooManyBackends { region: String, limit: usize },
    #[error("the default region {0} is not configured")]
    DefaultRegion(String),
    #[error("region {0} is not configured")]
    UnknownRegion(String),
}
