//! Codings, conditions and bounds.

use std::io::Read as _;
use std::num::NonZeroUsize;

use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::*;

const TEXT: &str = "a line that is said again and again\n";

fn compression(change: impl FnOnce(&mut CompressionSettings)) -> Compression {
    let mut settings = CompressionSettings { enabled: true, ..CompressionSettings::default() };
    change(&mut settings);
    Compression::new(&settings).unwrap()
}

fn answer(headers: &[(&'static str, &'static str)]) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Bytes::from(TEXT.repeat(200))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}

async fn bytes_of(response: Response<Content>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[test]
fn off_is_nothing() {
    assert!(Compression::new(&CompressionSettings::default()).is_none());
}

#[tokio::test]
async fn each_coding_is_read_back_as_it_was() {
    for coding in [Coding::Br, Coding::Zstd, Coding::Gzip] {
        let response = compression(|_| ()).apply(answer(&[]), Some(coding), false);
        assert_eq!(response.headers()[CONTENT_ENCODING], coding.name());
        assert_eq!(response.headers()[VARY], "accept-encoding");
        let coded = bytes_of(response).await;
        assert!(coded.len() < 1_000, "{coding:?}: {} bytes", coded.len());
        let mut text = Vec::new();
        match coding {
            Coding::Br => brotli::Decompressor::new(&*coded, 4096).read_to_end(&mut text).unwrap(),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(&*coded).unwrap().read_to_end(&mut text).unwrap()
            }
            Coding::Gzip => flate2::read::GzDecoder::new(&*coded).read_to_end(&mut text).unwrap(),
        };
        assert_eq!(text, TEXT.repeat(200).as_bytes());
    }
}

#[test]
fn a_strong_tag_becomes_a_weak_one_and_parts_are_not_offered() {
    let plain =
        answer(&[("etag", "\"x\""), ("accept-ranges", "bytes"), ("content-length", "7200")]);
    let response = compression(|_| ()).apply(plain, Some(Coding::Gzip), false);
    assert_eq!(response.headers()[ETAG], "W/\"x\"");
    assert!(!response.headers().contains_key(ACCEPT_RANGES));
    assert!(!response.headers().contains_key(CONTENT_LENGTH));
}

#[test]
fn what_must_not_or_need_not_be_changed_is_left() {
    let left = |compression: &Compression, response| {
        let response = compression.apply(response, Some(Coding::Gzip), false);
        !response.headers().contains_key(CONTENT_ENCODING)
            || response.headers()[CONTENT_ENCODING] != "gzip"
    };
    let usual = compression(|_| ());
    assert!(!left(&usual, answer(&[])));
    for header in [
        ("content-encoding", "br"),
        ("cache-control", "public, No-Transform"),
        ("content-type", "image/png"),
        ("content-type", "text/plain2x"),
        ("content-range", "bytes 0-1/2"),
    ] {
        let is_text = header.1 == "text/plain2x";
        assert_eq!(left(&usual, answer(&[header])), !is_text, "{header:?}");
    }
    for status in [204, 206, 304] {
        let mut response = answer(&[]);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert!(left(&usual, response), "{status}");
    }
    assert!(left(&compression(|settings| settings.min_bytes = 1 << 20), answer(&[])));
    let response = usual.apply(answer(&[]), None, false);
    assert_eq!(response.headers()[VARY], "accept-encoding", "also of the plain form");
}

#[test]
fn there_is_room_for_so_many_at_once() {
    let one = compression(|settings| settings.max_active = NonZeroUsize::MIN);
    let first = one.apply(answer(&[]), Some(Coding::Gzip), false);
    assert!(first.headers().contains_key(CONTENT_ENCODING));
    let second = one.apply(answer(&[]), Some(Coding::Gzip), false);
    assert!(!second.headers().contains_key(CONTENT_ENCODING));
    drop(first);
    let third = one.apply(answer(&[]), Some(Coding::Gzip), false);
    assert!(third.headers().contains_key(CONTENT_ENCODING));
}

#[test]
fn the_head_alone_says_the_same() {
    let head = compression(|_| ()).apply(answer(&[]), Some(Coding::Br), true);
    assert_eq!(head.headers()[CONTENT_ENCODING], "br");
    assert!(head.body().is_end_stream());
}

#[test]
fn a_stated_length_counts_and_a_head_says_what_a_get_would() {
    let small = answer(&[("content-length", "20")]);
    let small = compression(|_| ()).apply(small, Some(Coding::Gzip), false);
    assert!(!small.headers().contains_key(CONTENT_ENCODING));
    let (head, _) = answer(&[("content-length", "7200"), ("etag", "\"x\"")]).into_parts();
    let head = Response::from_parts(head, Content::Fixed(Bytes::new()));
    let head = compression(|_| ()).apply(head, Some(Coding::Gzip), true);
    assert_eq!(head.headers()[CONTENT_ENCODING], "gzip");
    assert_eq!(
        (&head.headers()[VARY], &head.headers()[ETAG]),
        (&"accept-encoding".parse().unwrap(), &"W/\"x\"".parse().unwrap())
    );
    assert!(!head.headers().contains_key(CONTENT_LENGTH));
}

#[test]
fn bytes_that_have_a_digest_stay_as_they_are() {
    for digest in ["content-digest", "repr-digest", "digest", "content-md5"] {
        let response = answer(&[(digest, "sha-256=:AA==:")]);
        let response = compression(|_| ()).apply(response, Some(Coding::Gzip), false);
        assert!(!response.headers().contains_key(CONTENT_ENCODING), "{digest}");
    }
}
