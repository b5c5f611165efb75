//! Each format against what its readers expect.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::observability::{Ending, Part};

fn at(seconds: u64, millis: u32) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000)
}

fn style(format: AccessFormat) -> Style {
    Style { format, queries: false, client: ClientShown::Full }
}

fn line(entry: &Entry<'_>, style: Style) -> String {
    let mut out = Vec::new();
    write(entry, style, at(1_774_117_532, 7), &mut Stamp::default(), &mut out);
    String::from_utf8(out).unwrap()
}

fn full() -> Entry<'static> {
    Entry {
        part: Part::Proxy,
        method: "GET",
        path: "/a",
        query: Some("token=1"),
        status: 200,
        took: Duration::from_micros(12_900),
        region: Some("1"),
        served: Some("2"),
        why: Some("ordered"),
        backend: Some("127.0.0.1:4001"),
        attempts: 2,
        first_byte: Some(Duration::from_micros(1_050)),
        received: Some(0),
        sent: Some(512),
        end: Some(Ending::Complete),
        key: None,
        request_id: "r1",
        trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        protocol: "HTTP/2.0",
        tls: Some("1.3"),
        client: Some([192, 0, 2, 130].into()),
        referer: Some(b"http://a/\"x"),
        agent: Some(b"curl/8\\\xff\n"),
        socket: None,
    }
}

#[test]
fn text_says_the_message_and_the_fields_in_their_order() {
    assert_eq!(
        line(&full(), style(AccessFormat::Text)),
        "[2026-03-21T18:25:32.007Z] [INFO] [Proxy] GET /a 200 - 12ms region=1 served=2 why=ordered \
         backend=127.0.0.1:4001 attempts=2 first_byte_ms=1.050 bytes_in=0 bytes=512 end=complete \
         client=192.0.2.130 protocol=HTTP/2.0 tls=1.3 request_id=r1 \
         trace_id=0af7651916cd43dd8448eb211c80319c\n"
    );
}

#[test]
fn json_has_the_shape_of_the_log() {
    let line = line(&full(), style(AccessFormat::Json));
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap(),
        json!({
            "timestamp": "2026-03-21T18:25:32.007Z", "level": "INFO", "component": "Proxy",
            "fields": {
                "message": "GET /a 200 - 12ms", "method": "GET", "path": "/a", "status": 200,
                "duration_ms": 12, "region": "1", "served": "2", "why": "ordered",
                "backend": "127.0.0.1:4001", "attempts": 2, "first_byte_ms": 1.05, "bytes_in": 0,
                "bytes": 512, "end": "complete", "client": "192.0.2.130", "protocol": "HTTP/2.0",
                "tls": "1.3", "request_id": "r1", "trace_id": "0af7651916cd43dd8448eb211c80319c",
            }
        })
    );
}

#[test]
fn combined_is_what_others_write() {
    assert_eq!(
        line(&full(), style(AccessFormat::Combined)),
        "192.0.2.130 - - [21/Mar/2026:18:25:32 +0000] \"GET /a HTTP/2.0\" 200 512 \
         \"http://a/\\\"x\" \"curl/8\\\\\\xff\\x0a\"\n"
    );
}

#[test]
fn a_request_that_could_not_be_read_has_a_line() {
    let entry = Entry { status: 400, request_id: "r", ..Entry::default() };
    let text = line(&entry, style(AccessFormat::Text));
    assert!(text.ends_with("[Proxy] unparsed request 400 - 0ms request_id=r\n"), "{text}");
    let json: Value = serde_json::from_str(&line(&entry, style(AccessFormat::Json))).unwrap();
    assert_eq!(json["fields"]["status"], 400);
    let combined = line(&entry, style(AccessFormat::Combined));
    assert!(combined.starts_with("- - - [") && combined.contains("] \"-\" 400 0 "), "{combined}");
}

#[test]
fn a_socket_says_its_frames_and_its_end() {
    let socket = Socket {
        user: Some("a=\"b"),
        frames_in: 1,
        frames_out: 3,
        close: Some(1005),
        ended_by: "client",
    };
    let entry =
        Entry { method: "WS", path: "/ws", status: 101, socket: Some(socket), ..Entry::default() };
    let text = line(&entry, style(AccessFormat::Text));
    assert!(
        text.ends_with("WS /ws 101 - 0ms user=a=\"b in=1 out=3 close=1005 ended_by=client\n"),
        "{text}"
    );
}

#[test]
fn queries_are_said_where_they_are_wanted() {
    let with = Style { queries: true, ..style(AccessFormat::Combined) };
    assert!(line(&full(), with).contains("\"GET /a?token=1 HTTP/2.0\""));
    for format in [AccessFormat::Text, AccessFormat::Json, AccessFormat::Combined] {
        assert!(!line(&full(), style(format)).contains("token"));
    }
}

#[test]
fn addresses_can_be_made_short() {
    let shown = |client: &str, how| shown(client.parse().unwrap(), how).map(|a| a.to_string());
    let short = |client| shown(client, ClientShown::Truncated).unwrap();
    assert_eq!(short("192.0.2.130"), "192.0.2.0");
    assert_eq!(short("::ffff:192.0.2.130"), "192.0.2.0");
    assert_eq!(short("2001:db8:1:2:3::4"), "2001:db8:1::");
    assert_eq!(shown("::1", ClientShown::Full).unwrap(), "::1");
    assert_eq!(shown("::1", ClientShown::None), None);
}

#[test]
fn a_stamp_goes_on_with_the_clock_and_back() {
    let mut stamp = Stamp::default();
    for (seconds, millis) in [(1_774_117_532, 999), (1_774_117_533, 0), (86_399, 5), (0, 0)] {
        let time = at(seconds, millis);
        let mut out = Vec::new();
        let millis = stamp.set(time);
        stamp.write(millis, &mut out);
        assert_eq!(out, humantime::format_rfc3339_millis(time).to_string().into_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_from_outside_breaks_a_line(
        path in "\\PC{0,20}",
        raw in "[\\x00-\\x7f\"\\\\]{0,20}",
        agent in proptest::collection::vec(any::<u8>(), 0..20),
        number in any::<u64>(),
    ) {
        let path = format!("/{path}{raw}");
        let entry = Entry { path: &path, agent: Some(&agent), sent: Some(number), ..full() };
        for format in [AccessFormat::Text, AccessFormat::Json, AccessFormat::Combined] {
            let line = line(&entry, style(format));
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.contains(&number.to_string()));
            if format == AccessFormat::Json {
                let read: Value = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(read["fields"]["path"].as_str().unwrap(), path.as_str());
            }
            if format == AccessFormat::Text {
                // Between spaces: as many as fields.
                prop_assert_eq!(line.split(' ').count(), 22);
            }
        }
    }
}
