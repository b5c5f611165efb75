//! What there is to say of an exchange, a tunnel or a chat socket when it is over.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use crate::observability::Ending;

/// Whose line it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Proxy,
    Hub,
    Api,
}

impl Part {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "Proxy",
            Self::Hub => "Hub",
            Self::Api => "Api",
        }
    }
}

/// A version of HTTP as lines have it.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// One line's worth. What is not known, or does not apply, is left out of the line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry<'a> {
    pub part: Part,
    /// Empty where the request could not be read.
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub status: u16,
    /// From the request's head until the last byte of the answer was handed over.
    pub took: Duration,
    /// The region that was asked for.
    pub region: Option<&'a str>,
    /// The region that served, or was tried last.
    pub served: Option<&'a str>,
    /// By which policy another region served.
    pub why: Option<&'a str>,
    pub backend: Option<&'a str>,
    /// Backends that were tried.
    pub attempts: u8,
    /// From the choice of the backend until the head of its answer.
    pub first_byte: Option<Duration>,
    /// Bytes of bodies, or of a socket's frames.
    pub received: Option<u64>,
    pub sent: Option<u64>,
    pub end: Option<Ending>,
    pub key: Option<&'a str>,
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// `HTTP/1.1` and so on.
    pub protocol: &'a str,
    pub tls: Option<&'a str>,
    pub client: Option<IpAddr>,
    /// `Referer` and `User-Agent`, for the combined format.
    pub referer: Option<&'a [u8]>,
    pub agent: Option<&'a [u8]>,
    pub socket: Option<Socket<'a>>,
}

/// What a socket has besides.
#[derive(Clone, Copy, Debug)]
pub struct Socket<'a> {
    pub user: Option<&'a str>,
    /// Frames from the client, and to it.
    pub frames_in: u64,
    pub frames_out: u64,
    /// The code of the Close.
    pub close: Option<u16>,
    pub ended_by: &'a str,
}
