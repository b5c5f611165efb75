//! Folders that the gateway serves itself, each mounted on a path.
//!
//! Walk: `edge` asks [`Mounts::find`] with a request's path; where a folder is mounted there, [`Mount::answer`] has the
//! answer: a file, a part of it, "not modified", the index of a folder, the application's page, or nothing.
//!
//! The serving itself (ranges, conditions, precompressed files, types) is tower-http's; what it leaves open is here:
//! hidden files (`path`), links out of the folder (`fence`), `If-Range`, caching, the page of an application.
//!
//! Absent on purpose: listings of folders.

mod fence;
mod path;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LAST_MODIFIED, LOCATION,
    RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_http::services::fs::{DefaultServeDirFallback, ServeFileSystemResponseBody};

use self::fence::Fenced;
use crate::settings::StaticSettings;

/// Bytes that are read from a file at once.
const CHUNK: usize = 64 * 1024;

/// The body of an answer.
pub type FileBody = ServeFileSystemResponseBody;

/// Why a folder cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("static.{name}.folder: {folder:?} cannot be served: {source}")]
pub struct MountError {
    name: String,
    folder: PathBuf,
    source: io::Error,
}

/// Why there is no file in an answer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such file")]
    NotFound,
    #[error("files are read with GET and HEAD")]
    MethodNotAllowed,
    /// It is not the version that the request is for (RFC 9110, 15.5.13).
    #[error("the file has changed")]
    Changed,
    /// It has no such part; with what `Content-Range` says of its length.
    #[error("the file has no such part")]
    NoSuchPart(Option<HeaderValue>),
    /// The system's fault; the log has the reason.
    #[error("the file cannot be read")]
    Unreadable,
}

/// All mounted folders.
#[derive(Debug, Default)]
pub struct Mounts {
    /// The longest path first.
    mounts: Vec<Mount>,
}

/// A folder on a path.
#[derive(Debug)]
pub struct Mount {
    /// With a slash at its end.
    path: String,
    files: ServeDir<DefaultServeDirFallback, Fenced>,
    /// Answers with the folder's index what is no file and looks like a page.
    spa: bool,
    precompressed: bool,
    cache_control: Option<HeaderValue>,
}

impl Mounts {
    /// # Errors
    /// Where a folder is not there.
    pub fn new(settings: &BTreeMap<String, StaticSettings>) -> Result<Self, MountError> {
        let mount = |(name, settings): (&String, &StaticSettings)| {
            Mount::new(settings).map_err(|source| {
                let (name, folder) = (name.clone(), settings.folder.clone());
                MountError { name, folder, source }
            })
        };
        let mut mounts = settings.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
        Ok(Self { mounts })
    }

    /// The folder that serves `path`, where one does.
    pub fn find(&self, path: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.rest(path).is_some())
    }
}

impl Mount {
    fn new(settings: &StaticSettings) -> io::Result<Self> {
        let root = settings.folder.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut files = ServeDir::with_backend(&root, Fenced::new(&root))
            .append_index_html_on_directories(settings.index)
            .redirect_to_trailing_slash(settings.index)
            .redirect_path_prefix(settings.path.trim_end_matches('/'))
            .ignore_multi_range_requests(true)
            .with_buf_chunk_size(CHUNK);
        if settings.precompressed {
            files = files.precompressed_br().precompressed_gzip().precompressed_zstd();
        }
        let cache_control = &settings.cache_control;
        Ok(Self {
            path: settings.path.clone(),
            files,
            spa: settings.spa,
            precompressed: settings.precompressed,
            cache_control: HeaderValue::from_str(cache_control)
                .ok()
                .filter(|_| !cache_control.is_empty()),
        })
    }

    /// What of `path` is below the mount, with a slash before it; nothing where it is elsewhere.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let bare = self.path.trim_end_matches('/');
        path.strip_prefix(bare).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The answer to a request whose path is here.
    ///
    /// # Errors
    /// Where there is nothing to be sent.
    pub async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<FileBody>, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::MethodNotAllowed);
        }
        let rest = self.rest(uri.path()).ok_or(Refusal::NotFound)?;
        if !path::is_servable(rest) {
            return Err(Refusal::NotFound);
        }
        if rest.is_empty() {
            return self.redirect_to_folder(uri);
        }
        let target = rest;
        let mut headers = headers.clone();
        if !self.is_range_current(target, &headers).await? {
            headers.remove(RANGE);
        }
        let mut response = self.look_up(method, target, &headers).await?;
        if response.status() == StatusCode::NOT_FOUND {
            if !self.spa || !is_page(target, &headers) {
                return Err(Refusal::NotFound);
            }
            // The application's page is told from a file by its name alone, so it is always looked at anew.
            response = self.look_up(method, "/index.html", &headers).await?;
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        } else if let Some(cache_control) = &self.cache_control {
            response.headers_mut().insert(CACHE_CONTROL, cache_control.clone());
        }
        match response.status() {
            StatusCode::NOT_FOUND => return Err(Refusal::NotFound),
            StatusCode::TEMPORARY_REDIRECT => keep_query(&mut response, uri),
            StatusCode::PRECONDITION_FAILED => return Err(Refusal::Changed),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Refusal::NoSuchPart(response.headers_mut().remove(CONTENT_RANGE)));
            }
            // As the answer with the file would have it (RFC 9110, 15.4.5).
            StatusCode::NOT_MODIFIED if self.precompressed => {
                let headers = response.headers_mut();
                headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            }
            _ => state_charset(response.headers_mut()),
        }
        Ok(response)
    }

    /// The folder itself is asked for without its slash, against which a page's links would lead elsewhere.
    fn redirect_to_folder(&self, uri: &Uri) -> Result<Response<FileBody>, Refusal> {
        let mut response = Response::new(FileBody::default());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let location = HeaderValue::from_str(&self.path).or(Err(Refusal::NotFound))?;
        response.headers_mut().insert(LOCATION, location);
        keep_query(&mut response, uri);
        Ok(response)
    }

    async fn look_up(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Response<FileBody>, Refusal> {
        let mut request = Request::new(http_body_util::Empty::<bytes::Bytes>::new());
        *request.method_mut() = method.clone();
        // A part of a target that was one is one, too.
        *request.uri_mut() = target.parse().or(Err(Refusal::NotFound))?;
        *request.headers_mut() = headers.clone();
        match self.files.clone().try_call(request).await {
            Ok(response) => Ok(response),
            Err(error) if is_absent(&error) => {
                let mut response = Response::new(FileBody::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
            Err(error) => {
                tracing::warn!(target: "Proxy", %error, path = target, "a file cannot be read");
                Err(Refusal::Unreadable)
            }
        }
    }

    /// Whether a range that was asked for is one of the file as it is now (RFC 9110, 13.1.5).
    async fn is_range_current(&self, target: &str, headers: &HeaderMap) -> Result<bool, Refusal> {
        let Some(condition) = headers.get(IF_RANGE).filter(|_| headers.contains_key(RANGE)) else {
            return Ok(true);
        };
        let mut plain = headers.clone();
        plain.remove(RANGE);
        let now = self.look_up(&Method::HEAD, target, &plain).await?;
        let of = |name| now.headers().get(name) == Some(condition);
        Ok(of(ETAG) || of(LAST_MODIFIED))
    }
}

/// Not there, or not for everybody.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    matches!(
        error.kind(),
        NotFound | PermissionDenied | NotADirectory | InvalidFilename | InvalidInput
    )
}

/// Whether it is a page that is asked for, and not a file that is missing: its name has no ending, and the client
/// takes HTML, as one does that does not say what it takes.
fn is_page(target: &str, headers: &HeaderMap) -> bool {
    let last = target.rsplit('/').next().unwrap_or_default();
    !last.contains('.') && headers.get(ACCEPT).is_none_or(takes_html)
}

fn takes_html(accept: &HeaderValue) -> bool {
    let kinds = accept.as_bytes().split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
    let html = [&b"text/html"[..], b"text/*", b"*/*"];
    kinds.into_iter().any(|kind| html.iter().any(|html| html.eq_ignore_ascii_case(kind)))
}

/// A redirect to the folder's slash goes on with the query.
fn keep_query(response: &mut Response<FileBody>, uri: &Uri) {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    if let (Some(location), Some(query)) = (location, uri.query())
        && !location.contains('?')
        && let Ok(whole) = HeaderValue::from_str(&format!("{location}?{query}"))
    {
        response.headers_mut().insert(LOCATION, whole);
    }
}

/// Text is UTF-8 these days, and a browser that is not told guesses.
fn state_charset(headers: &mut HeaderMap) {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return;
    };
    if (kind.starts_with("text/") || kind == "application/javascript")
        && !kind.contains("charset")
        && let Ok(whole) = HeaderValue::from_str(&format!("{kind}; charset=utf-8"))
    {
        headers.insert(CONTENT_TYPE, whole);
    }
}
