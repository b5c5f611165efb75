//! Where requests begin in what a client sends, and whether the target of one has a fragment.
//!
//! RFC 9112, section 3.2 has no `#` in a target; the parser behind us drops it and what follows without a word. So the
//! reads of a connection are looked at as they come: those without a `#` cost one search, and in the others the requests
//! are stepped over one by one.
//!
//! Pure. What is not found, where requests are pipelined behind chunks, or a request line comes in two reads behind another
//! request, loses its fragment in the parser.

use memchr::{memchr, memmem};

/// Follows one connection. Each number that is given is that of a request from here on, the next being 1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    /// The line of the next request has begun and not ended.
    open: bool,
    /// Something of the next request came while one was answered: at this change of the connection's phase.
    ahead: Option<u64>,
}

impl Lines {
    /// `read` came between requests, which was the phase's `change`.
    pub(super) fn head(&mut self, read: &[u8], change: u64) -> Option<u8> {
        // One change later, that request was not answered yet: this is its rest.
        let is_rest = self.ahead.take().is_some_and(|ahead| ahead + 1 == change);
        if is_rest && !self.open { None } else { self.look(read) }
    }

    /// `read` came behind the first of a head.
    pub(super) fn more(&mut self, read: &[u8]) -> Option<u8> {
        if self.open { self.look(read) } else { None }
    }

    /// `read` came while a request was answered that had come whole.
    pub(super) fn ahead(&mut self, read: &[u8], change: u64) -> Option<u8> {
        self.ahead = Some(change);
        self.look(read)
    }

    fn look(&mut self, read: &[u8]) -> Option<u8> {
        self.open = memchr(b'\n', start(read)).is_none();
        memchr(b'#', read)?;
        fragment_at(read)
    }
}

/// Empty lines before a request are passed over (RFC 9112, 2.2).
fn start(read: &[u8]) -> &[u8] {
    let blank = read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    read.get(blank..).unwrap_or_default()
}

/// Which of the requests in `read` has a fragment in its line, counted from 1.
fn fragment_at(read: &[u8]) -> Option<u8> {
    let mut rest = read;
    for number in 1..=u8::MAX {
        rest = start(rest);
        let line = memchr(b'\n', rest).unwrap_or(rest.len());
        if memchr(b'#', rest.get(..line)?).is_some() {
            return Some(number);
        }
        let end = memmem::find(rest, b"\r\n\r\n")? + 4;
        let body = length(rest.get(..end)?)?;
        rest = rest.get(end.checked_add(body)?..)?;
    }
    None
}

/// The length of the body behind a head; none where it is chunked, or cannot be told.
fn length(head: &[u8]) -> Option<usize> {
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = line.split_at_checked(colon)?;
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value.get(1..)?).ok()?;
            length = value.trim().parse().ok()?;
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_found_in_any_request_of_a_read() {
        let get = "GET /a HTTP/1.1\r\nCookie: #\r\n\r\n";
        let post = "POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n/a#b";
        let bad = "GET /a#b HTTP/1.1\r\n";
        for (read, at) in [
            (bad.to_owned(), Some(1)),
            ("GET /a#b".to_owned(), Some(1)),
            (format!("\r\n{bad}"), Some(1)),
            (format!("{get}{bad}"), Some(2)),
            (format!("{get}{post}\r\n{bad}"), Some(3)),
            (format!("{get}{post}{get}"), None),
            (get.to_owned(), None),
            ("GET / HTTP/1.1\r\nX: #".to_owned(), None),
            (String::new(), None),
            // Not told apart from the body.
            (format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{bad}"), None),
            (format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{bad}", usize::MAX), None),
        ] {
            assert_eq!(Lines::default().head(read.as_bytes(), 1), at, "{read:?}");
        }
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.head(b"GET /a", 0), None);
        assert_eq!(lines.more(b"#b HTTP/1.1\r\n"), Some(1));
        assert_eq!(lines.head(b"GET /a HTTP/1.1\r\nX: ", 2), None);
        assert_eq!(lines.more(b"#\r\n\r\n"), None, "a value may have one");
    }

    #[test]
    fn a_head_may_begin_before_its_turn() {
        let mut lines = Lines::default();
        assert_eq!(lines.ahead(b"GET /a HTTP/1.1\r\nX: ", 1), None);
        assert_eq!(lines.head(b"#\r\n\r\n", 2), None, "the rest of it");
        assert_eq!(lines.ahead(b"GET /a", 4), None);
        assert_eq!(lines.head(b"#b HTTP/1.1\r\n", 5), Some(1));
        assert_eq!(lines.ahead(b"GET /a HTTP/1.1\r\n\r\n", 7), None);
        assert_eq!(
            lines.head(b"GET /a#b HTTP/1.1\r\n", 10),
            Some(1),
            "another, after that was answered"
        );
    }
}
