//! Headers that tell a browser to be careful, and those of backends that tell too much.
//!
//! What a backend says itself stands: it knows its pages, and this is only what holds where it says nothing.

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::Scheme;
use crate::settings::{SecurityProfile, SecuritySettings};

/// What is done to the head of every answer.
#[derive(Debug, Default)]
pub(super) struct Security {
    added: Vec<(HeaderName, HeaderValue)>,
    /// Over TLS only (RFC 6797, 7.2).
    hsts: Option<HeaderValue>,
    removed: Vec<HeaderName>,
}

const WEB: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];

const STRICT: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

const API: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
];

impl Security {
    pub(super) fn new(settings: &SecuritySettings) -> Self {
        let added = match settings.profile {
            SecurityProfile::Off => &[][..],
            SecurityProfile::Web => WEB,
            SecurityProfile::Strict => STRICT,
            SecurityProfile::Api => API,
        };
        let hsts = settings.hsts.map(|age| {
            let below = if settings.hsts_subdomains { "; includeSubDomains" } else { "" };
            format!("max-age={}{below}", age.as_secs())
        });
        let added = added
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Self {
            added: added.collect(),
            hsts: hsts.and_then(|value| HeaderValue::from_str(&value).ok()),
            // Checked when the settings were read.
            removed: settings.remove_headers.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// Takes away what a backend should not have said; what this gateway says itself stays.
    pub(super) fn remove(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
    }

    /// Adds what is not said.
    pub(super) fn add(&self, headers: &mut HeaderMap, scheme: Scheme) {
        for (name, value) in &self.added {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if scheme == Scheme::Https
            && let Some(hsts) = &self.hsts
        {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};

    use super::*;

    fn after(
        settings: &SecuritySettings,
        scheme: Scheme,
        said: &[(&'static str, &'static str)],
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let security = Security::new(settings);
        security.remove(&mut headers);
        security.add(&mut headers, scheme);
        headers
    }

    #[test]
    fn off_adds_nothing() {
        assert!(after(&SecuritySettings::default(), Scheme::Https, &[]).is_empty());
    }

    #[test]
    fn a_profile_fills_what_the_backend_leaves_open() {
        let settings =
            SecuritySettings { profile: SecurityProfile::Web, ..SecuritySettings::default() };
        let headers = after(&settings, Scheme::Http, &[("x-frame-options", "DENY")]);
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        for profile in [SecurityProfile::Strict, SecurityProfile::Api] {
            let settings = SecuritySettings { profile, ..SecuritySettings::default() };
            assert!(after(&settings, Scheme::Http, &[]).contains_key(CONTENT_SECURITY_POLICY));
        }
    }

    #[test]
    fn hsts_is_said_over_tls_alone() {
        let hsts = Some(Duration::from_hours(24));
        let settings =
            SecuritySettings { hsts, hsts_subdomains: true, ..SecuritySettings::default() };
        assert!(after(&settings, Scheme::Http, &[]).is_empty());
        let headers = after(&settings, Scheme::Https, &[]);
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=86400; includeSubDomains");
    }

    #[test]
    fn what_tells_too_much_is_taken_away() {
        let settings = SecuritySettings {
            remove_headers: vec!["server".to_owned()],
            ..SecuritySettings::default()
        };
        assert!(after(&settings, Scheme::Http, &[("server", "nginx/1.2")]).is_empty());
    }
}
