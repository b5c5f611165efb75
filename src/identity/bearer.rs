//! The credential of a request: `Authorization: Bearer …` (RFC 6750, section 2.1).

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The scheme, in any case (RFC 9110, section 11.1).
const SCHEME: &str = "bearer";

/// The bearer credential of a request; `None` where there is none, or more than one header that could hold it.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        return None;
    }
    let (scheme, rest) = line.trim().split_once(' ')?;
    let credential = rest.trim();
    (scheme.eq_ignore_ascii_case(SCHEME) && !credential.is_empty()).then_some(credential)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_static(line));
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn one_bearer_credential_counts() {
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bEARER   a.b~c= "]).as_deref(), Some("a.b~c="));
        let refused: &[&[&'static str]] =
            &[&[], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"], &["Bearer a", "Bearer a"]];
        for lines in refused {
            assert_eq!(of(lines), None, "{lines:?}");
        }
    }
}
