//! `GET /presence`: who is online, and when somebody was last.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::Uri;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use super::{Refusal, Shared};
use crate::bus::{Bus, BusError, Presence};
use crate::protocol;

/// Users of one question; a request target seldom has room for more.
const MAX_USERS: usize = 1_000;
/// Questions to the bus at once.
const PIPELINED: usize = 32;
/// The last millisecond that RFC 3339 can name, counted from the Unix epoch.
const MAX_MS: u64 = 253_402_300_799_999;

const MISSING: &str =
    "name the user in the query, as in ?user=bob; several as ?user=bob&user=alice";
const MALFORMED: &str =
    "a user is 1 to 128 visible ASCII characters, without { and }, percent-encoded";
const TOO_MANY: &str = "ask for at most 1,000 users at once";

/// How one user stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    user_id: String,
    online: bool,
    /// RFC 3339; `null` where it is not known.
    last_seen: Option<String>,
}

/// The list always; the only one besides, for whoever asked for one.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    only: Option<&'a Standing>,
    users: &'a [Standing],
}

/// `GET /presence`
pub(super) async fn ask(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Refusal> {
    let users = users(&uri)?;
    let asked = futures_util::stream::iter(users).map(|user| standing(&shared.bus, user));
    let standings: Vec<_> = asked
        .buffered(PIPELINED)
        .try_collect()
        .await
        .map_err(|_away: BusError| Refusal::BusUnavailable)?;
    let only = match standings.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    // Strings, booleans and nulls: there is nothing to refuse.
    let body = serde_json::to_string(&Told { only, users: &standings }).unwrap_or_default();
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The users that the query of `uri` names, in its order.
fn users(uri: &Uri) -> Result<Vec<String>, Refusal> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_error| Refusal::QueryInvalid(MALFORMED))?;
    let users: Vec<_> =
        pairs.into_iter().filter(|(name, _)| name == "user").map(|(_, user)| user).collect();
    if users.is_empty() {
        return Err(Refusal::QueryInvalid(MISSING));
    }
    if users.len() > MAX_USERS {
        return Err(Refusal::QueryInvalid(TOO_MANY));
    }
    if !users.iter().all(|user| protocol::is_user(user)) {
        return Err(Refusal::QueryInvalid(MALFORMED));
    }
    Ok(users)
}

async fn standing(bus: &Bus, user: String) -> Result<Standing, BusError> {
    let Presence { online, last_seen_ms } = bus.presence(&user).await?;
    let last_seen = last_seen_ms.map(|at_ms| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms.min(MAX_MS));
        humantime::format_rfc3339_millis(at).to_string()
    });
    Ok(Standing { user_id: user, online, last_seen })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(query: &str) -> Result<Vec<String>, Refusal> {
        super::users(&format!("/presence?{query}").parse().unwrap())
    }

    #[test]
    fn users_are_named_once_or_often() {
        assert_eq!(users("user=bob").unwrap(), ["bob"]);
        assert_eq!(users("x=1&user=b%2Fo&user=alice&").unwrap(), ["b/o", "alice"]);
        for (query, why) in [
            ("", MISSING),
            ("users=bob", MISSING),
            ("user=", MALFORMED),
            ("user=a+b", MALFORMED),
            ("user=%7Bbob%7D", MALFORMED),
            ("user=%FF", MALFORMED),
            (&"user=a&".repeat(1_001), TOO_MANY),
        ] {
            let refused = users(query).unwrap_err();
            assert!(matches!(refused, Refusal::QueryInvalid(said) if said == why), "{refused:?}");
        }
    }

    #[test]
    fn one_user_is_told_at_the_top_too() {
        let standing =
            |user: &str| Standing { user_id: user.to_owned(), online: false, last_seen: None };
        let told = |users: &[Standing], only: Option<&Standing>| {
            serde_json::to_string(&Told { only, users }).unwrap()
        };
        let bob = [standing("bob")];
        assert_eq!(
            told(&bob, bob.first()),
            r#"{"userId":"bob","online":false,"lastSeen":null,"users":[{"userId":"bob","online":false,"lastSeen":null}]}"#
        );
        assert_eq!(told(&[], None), r#"{"users":[]}"#);
    }
}
