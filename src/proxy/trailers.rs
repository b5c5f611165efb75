//! The fields behind a body, either way. Pure.
//!
//! Those that the gateway answers for do not pass, since some frameworks merge trailers with the head; nor do those that
//! no trailer may be (RFC 9110, 6.5.1): a connection of HTTP/2 refuses to send some of them, and leaves the message
//! without an end.

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use http_body::Frame;

use super::headers;

/// A frame of a body; where it is one of trailers, without those that must not pass.
pub(super) fn safe(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(fit(trailers)),
        Err(data) => data,
    }
}

fn fit(mut trailers: HeaderMap) -> HeaderMap {
    let unfit = |name: &&HeaderName| {
        let name = name.as_str().replace('_', "-");
        headers::is_own(&name) || is_for_heads_alone(&name)
    };
    let unfit: Vec<HeaderName> = trailers.keys().filter(unfit).cloned().collect();
    for name in unfit {
        trailers.remove(name);
    }
    trailers
}

/// What frames, routes or secures a message, says how to read it, or belongs to one connection.
fn is_for_heads_alone(name: &str) -> bool {
    name.starts_with("proxy-")
        || matches!(
            name,
            "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "http2-settings"
                | "content-length"
                | "content-encoding"
                | "content-range"
                | "content-type"
                | "host"
                | "authorization"
                | "cache-control"
                | "max-forwards"
                | "expect"
                | "cookie"
                | "set-cookie"
        )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_for_heads_alone_does_not_pass() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-sum",
            "x-region",
            "x_real_ip",
            "connection",
            "keep-alive",
            "te",
            "set-cookie",
            "transfer-encoding",
            "content-length",
            "host",
            "proxy-connection",
            "grpc-status",
        ] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        let Ok(passed) = safe(Frame::trailers(trailers)).into_trailers() else { panic!("none") };
        let names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-sum", "grpc-status"]);
    }
}
