//! Several parts of a file in one answer (RFC 9110, 14.6): `multipart/byteranges`.
//!
//! Each part is read when its turn comes, so that an answer holds one open file, however many parts it has. A file that was
//! replaced in between breaks the answer off: parts of two editions are none of either.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, response};
use http_body_util::BodyExt as _;

use super::body::{Bits, FileBody};
use super::lookup::Files;
use super::ranges::Part;

/// An answer with these parts of the file at `target`, whose head, as it answers without a range, is `head`.
pub(super) fn answer(
    files: &Files,
    target: &str,
    asked: &HeaderMap,
    mut head: response::Parts,
    parts: &[Part],
    length: u64,
) -> Response<FileBody> {
    let boundary = format!("{:032x}", fastrand::u128(..));
    let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let sections: Vec<_> =
        parts.iter().map(|part| (*part, section(&boundary, kind, *part, length))).collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let total = sections.iter().map(|(part, head)| part.length() + head.len() as u64).sum::<u64>()
        + end.len() as u64;
    let reader = Reader {
        files: files.clone(),
        target: target.to_owned(),
        codings: asked.get_all(ACCEPT_ENCODING).into_iter().cloned().collect(),
        tag: head.headers.get(ETAG).cloned(),
    };
    let parts = stream::iter(sections)
        .then(move |(part, section)| {
            let reader = reader.clone();
            async move { reader.read(part, section).await }
        })
        .try_flatten();
    let bits = parts.chain(stream::once(async { Ok(end) }));
    head.status = StatusCode::PARTIAL_CONTENT;
    let kind = format!("multipart/byteranges; boundary={boundary}");
    if let Ok(kind) = HeaderValue::try_from(kind) {
        head.headers.insert(CONTENT_TYPE, kind);
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(total));
    Response::from_parts(head, FileBody::of_parts(bits.boxed(), total))
}

/// What stands before a part.
fn section(boundary: &str, kind: &[u8], part: Part, length: u64) -> Bytes {
    let Part { first, last } = part;
    let mut section = format!("\r\n--{boundary}\r\nContent-Type: ").into_bytes();
    section.extend_from_slice(kind);
    let range = format!("\r\nContent-Range: bytes {first}-{last}/{length}\r\n\r\n");
    section.extend_from_slice(range.as_bytes());
    section.into()
}

/// Reads parts of one edition of a file.
#[derive(Clone)]
struct Reader {
    files: Files,
    target: String,
    /// So that it is the same of the precompressed files.
    codings: Vec<HeaderValue>,
    tag: Option<HeaderValue>,
}

impl Reader {
    async fn read(self, part: Part, section: Bytes) -> io::Result<Bits> {
        let mut headers = HeaderMap::new();
        for coding in self.codings {
            headers.append(ACCEPT_ENCODING, coding);
        }
        let Part { first, last } = part;
        let range = HeaderValue::try_from(format!("bytes={first}-{last}"));
        headers.insert(RANGE, range.map_err(io::Error::other)?);
        let looked_up = self.files.look_up(Method::GET, &self.target, &headers).await;
        let response = looked_up.map_err(io::Error::other)?;
        let same = response.status() == StatusCode::PARTIAL_CONTENT
            && response.headers().get(ETAG) == self.tag.as_ref();
        if !same {
            return Err(io::Error::other("the file was replaced while parts of it were sent"));
        }
        let section = stream::once(async { Ok(section) });
        // No more than the part: a file reads on where it has grown, but a range does not.
        Ok(section.chain(response.into_body().into_data_stream()).boxed())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::Mounts;
    use crate::settings::StaticSettings;

    #[tokio::test]
    async fn every_line_on_codings_counts_for_each_part() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.js"), "0123456789").unwrap();
        fs::write(folder.path().join("a.js.gz"), "gzipped").unwrap();
        let settings = StaticSettings {
            path: "/".to_owned(),
            folder: folder.path().to_owned(),
            precompressed: true,
            ..StaticSettings::default()
        };
        let mounts = Mounts::new(&[("a".to_owned(), settings)].into()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-1,4-5"));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let mount = mounts.find("/a.js").unwrap();
        let answer = mount.answer(&Method::GET, &"/a.js".parse().unwrap(), &headers).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("/7\r\n\r\ngz\r\n") && text.contains("/7\r\n\r\npe\r\n"), "{text}");
    }
}
