//! What the API says of itself: its description (`OpenAPI` 3.1), and a page to read it.
//!
//! The description is a file, held against the router and the real answers by the tests of whole gateways.

use std::sync::Arc;

use axum::extract::Extension;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use super::Prefix;

/// The description; its server is [`super::PREFIX`].
const DESCRIPTION: &str = include_str!("openapi.json");
/// Where the API is mounted, as the description says it.
const SERVER: &str = r#""url": "/api""#;
/// Stands for the version of this gateway.
const VERSION: &str = r#""version": "0.0.0""#;

const PAGE: &str = include_str!("docs.html");
/// What the page cannot say of itself; the rest of its policy stands in it.
const FRAMES: &str = "frame-ancestors 'none'";

/// `GET /openapi.json`
pub(super) async fn description(Extension(Prefix(prefix)): Extension<Prefix>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    (headers, described(&prefix)).into_response()
}

fn described(prefix: &Arc<str>) -> String {
    // A path that may be configured has no character that JSON escapes but these two.
    let prefix = prefix.replace('\\', "\\\\").replace('"', "\\\"");
    let version = concat!(r#""version": ""#, env!("CARGO_PKG_VERSION"), '"');
    DESCRIPTION.replacen(SERVER, &format!(r#""url": "{prefix}""#), 1).replacen(VERSION, version, 1)
}

/// `GET /docs`
pub(super) fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, FRAMES),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_description_names_its_place_and_version() {
        for prefix in ["/api", "/gateway\"\\/api"] {
            let described: Value = serde_json::from_str(&described(&Arc::from(prefix))).unwrap();
            assert_eq!(described["servers"][0]["url"], prefix);
            assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        }
    }
}
