//! The same requests for the same files, here and at a real nginx: ranges, conditions, precompressed files, paths. The
//! answers are the same but where a standard says otherwise, which stands in the table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::{Answer, exchange};
use crate::harness::nginx::Nginx;

const TEXT: &str = "/files/a.txt";
const CODED: &str = "/files/b.js";
const FUTURE: &str = "If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT";

/// Method, path and fields; `{tag}` and `{date}` are those of the server's own answer.
const SAME: &[(&str, &str, &str)] = &[
    ("GET", TEXT, ""),
    ("HEAD", TEXT, ""),
    ("GET", TEXT, "Range: bytes=0-9"),
    ("GET", TEXT, "Range: bytes=-5"),
    ("GET", TEXT, "Range: bytes=5-"),
    ("GET", TEXT, "Range: bytes=-99999"),
    ("GET", TEXT, "Range: bytes=0-0,5-9,-3"),
    ("GET", TEXT, "Range: bytes=4-5, 1-2"),
    ("GET", TEXT, "Range: bytes=1-2,99999-"),
    ("GET", TEXT, "Range: bytes=0-700,500-1249"),
    ("GET", TEXT, "Range: BYTES=0-3"),
    ("GET", TEXT, "Range: items=0-4"),
    ("GET", TEXT, "Range: bytes=99999-"),
    ("GET", TEXT, "Range: bytes=99999-,88888-"),
    ("GET", TEXT, "Range: bytes=9-5"),
    ("GET", TEXT, "Range: bytes=a-b"),
    ("GET", TEXT, "Range: bytes=-0"),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-Range: {tag}"),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-Range: W/{tag}"),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-Range: \"x\""),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-Range: {date}"),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-Range: Sat, 01 Jan 2000 00:00:00 GMT"),
    ("GET", TEXT, "Range: bytes=99999-\r\nIf-Range: \"x\""),
    ("GET", TEXT, "Range: bytes=0-1\r\nIf-None-Match: {tag}"),
    ("GET", TEXT, "Range: bytes=99999-\r\nIf-None-Match: {tag}"),
    ("GET", TEXT, "If-None-Match: {tag}"),
    ("HEAD", TEXT, "If-None-Match: {tag}"),
    ("GET", TEXT, "If-None-Match: W/{tag}"),
    ("GET", TEXT, "If-None-Match: \"a\", {tag}"),
    ("GET", TEXT, "If-None-Match: *"),
    ("GET", TEXT, "If-None-Match: \"x\"\r\nIf-Modified-Since: {date}"),
    ("GET", TEXT, "If-Modified-Since: {date}"),
    ("GET", TEXT, "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT"),
    ("GET", TEXT, "If-Match: {tag}"),
    ("GET", TEXT, "If-Match: W/{tag}"),
    ("GET", TEXT, "If-Match: \"x\""),
    ("GET", TEXT, "If-Match: *"),
    ("GET", TEXT, "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT"),
    ("GET", "/files/empty.txt", "Range: bytes=0-0"),
    ("GET", "/files/empty.txt", "Range: bytes=-1"),
    ("GET", CODED, "Accept-Encoding: gzip"),
    ("GET", CODED, "Accept-Encoding: gzip;q=0"),
    ("GET", "/files/none.txt", ""),
    ("GET", "/files/a.txt/", ""),
    ("POST", TEXT, ""),
    ("DELETE", TEXT, ""),
    ("GET", "/files/%61.txt", ""),
];

/// The same, what nginx answers, what is answered here, and why.
const OTHERWISE: &[(&str, &str, &str, u16, u16, &str)] = &[
    ("HEAD", TEXT, "Range: bytes=0-4", 206, 200, "only GET has ranges: RFC 9110, 14.2"),
    ("GET", TEXT, "Range: bytes=0-99999999999999999999999", 416, 206, "RFC 9110, 14.1.2"),
    ("GET", TEXT, "Range: bytes=0-700,500-999", 206, 200, "overlapping: RFC 9110, 17.15"),
    ("GET", TEXT, "Range: bytes=", 200, 416, "may be refused: RFC 9110, 14.2"),
    ("GET", TEXT, FUTURE, 200, 304, "not changed since: RFC 9110, 13.1.3"),
    ("GET", CODED, "Accept-Encoding: gzip\r\nRange: bytes=0-3", 200, 206, "parts of coded files"),
    ("GET", "/files/../files/a.txt", "", 200, 404, "dot segments are the client's to resolve"),
    ("GET", "/files//a.txt", "", 200, 404, "one name for one file"),
    ("GET", "/files/a.txt%00", "", 400, 404, "no such name"),
];

async fn ask(server: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: files.test\r\nContent-Length: 0\r\n{fields}\r\n"
    );
    exchange(server, &request).await
}

/// What counts of an answer: an error's text is everybody's own, and so are a boundary and the case of a part's fields.
fn essence(answer: &Answer) -> (u16, BTreeMap<&str, String>, String) {
    let counts =
        |name: &str| answer.status < 300 && (name != "content-length" || answer.body.is_empty());
    let names = ["content-range", "content-encoding", "content-length"].into_iter();
    let fields = names
        .filter(|name| counts(name))
        .filter_map(|name| Some((name, answer.header(name)?.to_owned())));
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    let kind = answer.header("content-type").unwrap_or_default();
    if let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") {
        let lines = body.replace(boundary, "-").to_lowercase();
        body = lines.replace("text/plain; charset=utf-8", "text/plain");
    }
    let body = if answer.status < 300 { body } else { String::new() };
    (answer.status, fields.collect(), body)
}

#[tokio::test]
async fn files_are_served_as_nginx_serves_them() {
    let nginx = Nginx::start("nginx").await;
    let text: String = ('a'..='z').cycle().take(1250).collect();
    nginx.put("a.txt", text.as_bytes());
    nginx.put("b.js", b"plain");
    nginx.put("b.js.gz", b"stands for gzip");
    nginx.put("empty.txt", b"");
    let gateway = Gateway::start(|settings| {
        let mount = meridian::settings::StaticSettings {
            path: "/files/".to_owned(),
            folder: nginx.files(),
            ..Default::default()
        };
        settings.mounts.insert("files".to_owned(), mount);
    })
    .await;
    let servers = [nginx.address, gateway.proxy()];
    let mut validators = Vec::new();
    for server in servers {
        let plain = ask(server, "GET", TEXT, "").await;
        validators
            .push(["etag", "last-modified"].map(|name| plain.header(name).unwrap().to_owned()));
    }
    assert_eq!(validators[0][1], validators[1][1], "one file, one date");
    let both = async |method: &str, path: &str, fields: &str| {
        let mut answers = Vec::new();
        for (server, [tag, date]) in servers.into_iter().zip(&validators) {
            let fields = fields.replace("{tag}", tag).replace("{date}", date);
            answers.push(ask(server, method, path, &fields).await);
        }
        answers
    };
    for (method, path, fields) in SAME {
        let answers = both(method, path, fields).await;
        let of = format!("{method} {path} {fields:?}");
        assert_eq!(essence(&answers[1]), essence(&answers[0]), "{of}: nginx is on the right");
    }
    for (method, path, fields, theirs, ours, why) in OTHERWISE {
        let answers = both(method, path, fields).await;
        let statuses = [answers[0].status, answers[1].status];
        assert_eq!(statuses, [*theirs, *ours], "{method} {path} {fields:?}: {why}");
    }
    gateway.stop().await.unwrap();
}
