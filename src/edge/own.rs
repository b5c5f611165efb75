//! The paths that this gateway answers itself: health, readiness, the chat page with its files.

use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::body::Content;
use super::page::{self, Asset};
use super::{Door, Edge, answer};
use crate::proxy::ends_here;
use crate::settings::{ApiSettings, PageSettings, ProxySettings};

/// Where the own paths of the proxy listener are; an empty one is turned off.
#[derive(Clone, Debug)]
pub(super) struct OwnPaths {
    health: String,
    ready: String,
    ws: String,
    page: String,
    api: String,
}

impl OwnPaths {
    pub(super) fn new(proxy: &ProxySettings, page: &PageSettings, api: &ApiSettings) -> Self {
        Self {
            health: proxy.health_path.clone(),
            ready: proxy.ready_path.clone(),
            ws: proxy.ws_path.clone(),
            page: page.path.clone(),
            api: api.mount.clone(),
        }
    }

    pub(super) fn is_ws(&self, path: &str) -> bool {
        !self.ws.is_empty() && path == self.ws
    }

    /// Where the API is mounted, if `path` is there or below.
    pub(super) fn mount(&self, path: &str) -> Option<&str> {
        let mount = self.api.as_str();
        let rest = path.strip_prefix(mount).filter(|_| !mount.is_empty())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(mount)
    }

    /// The file of the page that `path` names, where it does.
    fn page(&self, path: &str) -> Option<&'static Asset> {
        page::find(path.strip_prefix(self.page.as_str()).filter(|_| !self.page.is_empty())?)
    }

    /// Whether `path` is the page's but for the final slash.
    fn lacks_slash(&self, path: &str) -> bool {
        self.page.strip_suffix('/').is_some_and(|page| page == path)
    }
}

/// The answer, where the path is an own one of this door.
pub(super) fn answer<B>(
    edge: &Edge,
    own: &OwnPaths,
    request: &Request<B>,
) -> Option<Response<Content>> {
    let path = request.uri().path();
    let (method, headers) = (request.method(), request.headers());
    if (*method == Method::OPTIONS && path == "*") || ends_here(method, headers) {
        return Some(answer::options());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let (health, ready) = match edge.door {
        Door::Public | Door::Redirect(_) => (own.health.as_str(), own.ready.as_str()),
        Door::Hub(_) | Door::Api(_) => ("/health", "/ready"),
    };
    if path == health && !health.is_empty() {
        return Some(uncached(answer::json(StatusCode::OK, edge.health.json())));
    }
    if path == ready && !ready.is_empty() {
        let (is_ready, body) = edge.common.readiness.json(false);
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Some(uncached(answer::json(status, body)));
    }
    if !matches!(edge.door, Door::Public) {
        return None;
    }
    if let Some(asset) = own.page(path) {
        return Some(page::answer(asset, request.headers()));
    }
    if !own.lacks_slash(path) {
        return None;
    }
    let mut redirect = answer::empty(StatusCode::PERMANENT_REDIRECT);
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::from_str(&format!("{}{query}", own.page)).ok()?;
    redirect.headers_mut().insert(LOCATION, location);
    Some(redirect)
}

/// What changes with the process must not be kept by anyone on the way.
fn uncached(mut response: Response<Content>) -> Response<Content> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
