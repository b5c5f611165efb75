//! How an exchange, a tunnel or a chat socket ended: one word of a closed set, for its line and for the count of it.
//!
//! The words tell on which side it was: what the client did, what this gateway decided, what the backend did.

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// A backend's answer was handed over whole.
    Complete,
    /// An own path, the page or the API has answered.
    Local,
    /// A file of a mounted folder.
    File,
    /// This gateway sent the client to another place.
    Redirect,
    /// The request breaks a rule of HTTP, or of WebSocket handshakes.
    BadRequest,
    /// The request or its head is larger than it may be.
    TooLarge,
    /// It names no region, or none that there is.
    NoRegion,
    NotFound,
    /// A rule, a missing key or the chat's own checks refused it.
    Denied,
    RateLimited,
    /// For a host that the connection was not opened for (421), or plain HTTP where TLS is spoken.
    Misdirected,
    /// The client broke the rules of HTTP/2 in a way that ends the connection.
    ProtocolError,
    /// The client gave up or broke so many requests of HTTP/2 that its connection was closed.
    Flooded,
    /// The head of the request did not come in time.
    HeadTimeout,
    /// The body of the request did not come in time.
    BodyTimeout,
    /// The client left before the head of its answer.
    ClientGone,
    /// The client left in the middle of its answer.
    ClientAborted,
    /// The client took its answer too slowly.
    SlowReader,
    NoBackend,
    Overloaded,
    Draining,
    /// The request goes in a circle.
    Loop,
    /// This gateway cut it, at the end of its drain.
    Cut,
    /// A file of ours could not be read on, or the bus not be reached.
    Failed,
    ConnectFailed,
    ConnectTimeout,
    TlsFailed,
    TlsTimeout,
    BackendReset,
    BackendRefused,
    BackendGarbage,
    FirstByteTimeout,
    TotalTimeout,
    /// The backend broke off in the middle of its answer.
    BackendAborted,
    /// The backend stopped in the middle of its answer.
    BackendStalled,
    /// Of sockets: the client closed.
    ClientClosed,
    BackendClosed,
    /// This gateway closed a chat socket.
    HubClosed,
    /// The client was gone without a word …
    Lost,
    /// … or the backend.
    BackendLost,
    Idle,
    Drained,
    Aged,
    /// A socket that was served elsewhere was sent home.
    Rebalanced,
}

impl Ending {
    /// All of them, in their order.
    pub const ALL: [Self; 44] = [
        Self::Complete,
        Self::Local,
        Self::File,
        Self::Redirect,
        Self::BadRequest,
        Self::TooLarge,
        Self::NoRegion,
        Self::NotFound,
        Self::Denied,
        Self::RateLimited,
        Self::Misdirected,
        Self::ProtocolError,
        Self::Flooded,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::ClientGone,
        Self::ClientAborted,
        Self::SlowReader,
        Self::NoBackend,
        Self::Overloaded,
        Self::Draining,
        Self::Loop,
        Self::Cut,
        Self::Failed,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::TlsTimeout,
        Self::BackendReset,
        Self::BackendRefused,
        Self::BackendGarbage,
        Self::FirstByteTimeout,
        Self::TotalTimeout,
        Self::BackendAborted,
        Self::BackendStalled,
        Self::ClientClosed,
        Self::BackendClosed,
        Self::HubClosed,
        Self::Lost,
        Self::BackendLost,
        Self::Idle,
        Self::Drained,
        Self::Aged,
        Self::Rebalanced,
    ];

    /// As lines and labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Local => "local",
            Self::File => "file",
            Self::Redirect => "redirect",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::NoRegion => "no_region",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::Misdirected => "misdirected",
            Self::ProtocolError => "protocol_error",
            Self::Flooded => "flooded",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::ClientGone => "client_gone",
            Self::ClientAborted => "client_aborted",
            Self::SlowReader => "slow_reader",
            Self::NoBackend => "no_backend",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::Loop => "loop",
            Self::Cut => "cut",
            Self::Failed => "failed",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::BackendReset => "backend_reset",
            Self::BackendRefused => "backend_refused",
            Self::BackendGarbage => "backend_garbage",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::BackendAborted => "backend_aborted",
            Self::BackendStalled => "backend_stalled",
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::HubClosed => "hub_closed",
            Self::Lost => "lost",
            Self::BackendLost => "backend_lost",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::Aged => "aged",
            Self::Rebalanced => "rebalanced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_place_with_a_word_of_its_own() {
        let mut words = std::collections::BTreeSet::new();
        for (index, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, index, "{ending:?}");
            assert!(words.insert(ending.as_str()), "{ending:?}");
        }
        assert_eq!(Ending::Rebalanced as usize + 1, Ending::ALL.len());
    }
}
