//! What an exchange ends as that this gateway answers by itself.

use http::StatusCode;
use http::header::LOCATION;

use super::answer::Refused;
use super::body::Content;
use crate::api;
use crate::files;
use crate::hub;
use crate::limits;
use crate::observability::Ending;

/// What a whole answer is.
pub(super) fn of_answer(response: &http::Response<Content>) -> Ending {
    match response.body() {
        Content::Forwarded(_) => Ending::Complete,
        Content::File(_) => Ending::File,
        Content::Fixed(_) | Content::Compressed(_) => {
            let moved = response.status().is_redirection()
                && response.status() != StatusCode::NOT_MODIFIED
                && response.headers().contains_key(LOCATION);
            if moved { Ending::Redirect } else { Ending::Local }
        }
    }
}

/// What a refusal is.
pub(super) fn of_refusal(refused: &Refused) -> Ending {
    match refused {
        Refused::BadRequest(_) | Refused::ProtocolUnknown => Ending::BadRequest,
        Refused::MethodNotAllowed => Ending::Denied,
        Refused::TargetTooLong | Refused::HeadersTooLarge => Ending::TooLarge,
        Refused::HeadTimeout => Ending::HeadTimeout,
        Refused::TooManyConnections => Ending::RateLimited,
        Refused::Misdirected | Refused::PlainOnTls => Ending::Misdirected,
        Refused::NotFound => Ending::NotFound,
        Refused::Route(_) => Ending::NoRegion,
        Refused::Forward(error) => error.ending(),
        Refused::File(refusal) => match refusal {
            files::Refusal::NotFound => Ending::NotFound,
            files::Refusal::MethodNotAllowed => Ending::Denied,
            files::Refusal::Changed | files::Refusal::NoSuchPart(_) => Ending::BadRequest,
            files::Refusal::Unreadable => Ending::Failed,
        },
        Refused::Hub(refusal) => of_hub(refusal),
        Refused::Api(refusal) => of_api(refusal),
        Refused::Limits(refusal) => match refusal {
            limits::Refusal::RateLimited { .. } => Ending::RateLimited,
            limits::Refusal::Unavailable => Ending::Failed,
            limits::Refusal::Forbidden | limits::Refusal::MethodNotAllowed(_) => Ending::Denied,
            limits::Refusal::AmbiguousPath => Ending::BadRequest,
        },
    }
}

fn of_hub(refusal: &hub::Refusal) -> Ending {
    use hub::Refusal;
    match refusal {
        Refusal::UserInvalid(_) | Refusal::UpgradeRequired | Refusal::VersionUnsupported => {
            Ending::BadRequest
        }
        Refusal::OriginForbidden => Ending::Denied,
        Refusal::TooManyConnections => Ending::RateLimited,
        Refusal::Draining => Ending::Draining,
        Refusal::Overloaded => Ending::Overloaded,
    }
}

fn of_api(refusal: &api::Refusal) -> Ending {
    use api::Refusal;
    match refusal {
        Refusal::Unauthorized(_) | Refusal::MethodNotAllowed(_) => Ending::Denied,
        Refusal::RateLimited { .. } => Ending::RateLimited,
        Refusal::BodyTooLarge(_) | Refusal::BatchTooLarge(_) => Ending::TooLarge,
        Refusal::BodyStalled => Ending::BodyTimeout,
        Refusal::Overloaded => Ending::Overloaded,
        Refusal::NotFound => Ending::NotFound,
        Refusal::BatchUnavailable(_) | Refusal::BusUnavailable => Ending::Failed,
        Refusal::Message(fault) if fault.is_retryable => Ending::Failed,
        Refusal::Message(_)
        | Refusal::MediaType(_)
        | Refusal::BodyBroken
        | Refusal::BatchEmpty
        | Refusal::QueryInvalid(_) => Ending::BadRequest,
    }
}
