//! Folders that the gateway serves itself, each mounted on a path.
//!
//! Walk: `edge` asks [`Mounts::find`] with a request's path; where a folder is mounted there, [`Mount::answer`] has the
//! answer: a file, a part of it, "not modified", the index of a folder, the application's page, or nothing.
//!
//! The serving itself (one part, conditions, precompressed files, types) is tower-http's (`lookup`); what it leaves open is
//! here: hidden files (`path`), links out of the folder (`fence`), which part is asked for (`ranges`, `If-Range`), several at
//! once (`parts`), files that change while they are sent (`body`), caching, the page of an application.
//!
//! Absent on purpose: listings of folders.

mod body;
mod fence;
mod lookup;
mod parts;
mod path;
mod ranges;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

pub use self::body::FileBody;
use self::lookup::Files;
use self::ranges::{Asked, Part};
use crate::settings::StaticSettings;

/// The page of a folder, and of an application.
const PAGE: &str = "/index.html";

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
    files: Files,
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
        let cache_control = &settings.cache_control;
        Ok(Self {
            path: settings.path.clone(),
            files: Files::new(&root, settings),
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
        let mut headers = headers.clone();
        if headers.contains_key(RANGE)
            && let Some(answer) = self.of_parts(method, rest, &mut headers).await?
        {
            return Ok(answer);
        }
        let mut response = self.look_up(method, rest, &headers).await?;
        let mut cache_control = self.cache_control_of(rest);
        if response.status() == StatusCode::NOT_FOUND {
            if !self.spa || !is_page(rest, &headers) {
                return Err(Refusal::NotFound);
            }
            headers.remove(RANGE);
            response = self.look_up(method, PAGE, &headers).await?;
            cache_control = self.cache_control_of(PAGE);
        }
        if let Some(cache_control) = cache_control {
            response.headers_mut().insert(CACHE_CONTROL, cache_control);
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
        let found = self.files.look_up(method.clone(), target, headers).await?;
        Ok(FileBody::of(found, *method == Method::HEAD))
    }

    /// The page of an application names the files of one edition of it, so it is always looked at anew.
    fn cache_control_of(&self, target: &str) -> Option<HeaderValue> {
        if self.spa && matches!(target, "/" | PAGE) {
            return Some(HeaderValue::from_static("no-cache"));
        }
        self.cache_control.clone()
    }

    /// Decides which part is asked for: the answer with several of them; else nothing, and `headers` ask for one as
    /// tower-http understands it, or for the whole file.
    async fn of_parts(
        &self,
        method: &Method,
        target: &str,
        headers: &mut HeaderMap,
    ) -> Result<Option<Response<FileBody>>, Refusal> {
        let mut plain = headers.clone();
        plain.remove(RANGE);
        let asked = std::mem::replace(headers, plain);
        // Of other methods it says nothing (RFC 9110, 14.2).
        if *method != Method::GET {
            return Ok(None);
        }
        let now = self.files.look_up(Method::HEAD, target, headers).await?;
        // Conditions come before parts (RFC 9110, 13.2.2), and so does what is elsewhere or nowhere.
        if now.status() != StatusCode::OK || !is_current(&asked, now.headers()) {
            return Ok(None);
        }
        let length = now.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let Some(length) = length.and_then(|length| length.parse().ok()) else { return Ok(None) };
        match ranges::asked(&asked, length) {
            Asked::Whole => Ok(None),
            Asked::Nothing => {
                Err(Refusal::NoSuchPart(HeaderValue::try_from(format!("bytes */{length}")).ok()))
            }
            Asked::Parts(parts) => match *parts {
                [Part { first, last }] => {
                    let one = HeaderValue::try_from(format!("bytes={first}-{last}"));
                    headers.extend(one.ok().map(|one| (RANGE, one)));
                    Ok(None)
                }
                ref parts => {
                    let (mut head, _) = now.into_parts();
                    state_charset(&mut head.headers);
                    if let Some(cache_control) = self.cache_control_of(target) {
                        head.headers.insert(CACHE_CONTROL, cache_control);
                    }
                    Ok(Some(parts::answer(&self.files, target, headers, head, parts, length)))
                }
            },
        }
    }
}

/// Whether a part that was asked for is one of the file as it is now (RFC 9110, 13.1.5).
fn is_current(asked: &HeaderMap, now: &HeaderMap) -> bool {
    let is = |condition, name| now.get(name) == Some(condition);
    asked.get(IF_RANGE).is_none_or(|tag| is(tag, ETAG) || is(tag, LAST_MODIFIED))
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
