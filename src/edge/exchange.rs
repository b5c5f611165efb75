//! One request, from its head to its answer: which of the parts behind a door it goes to, and what is written on what comes back.
//!
//! Walk: [`Edge::answer`] begins the `access` record, has the request dispatched, and marks the answer; `dispatch` checks the head,
//! holds the request to rules and limits, and hands it to an own path, the API, a mounted folder, a hub or the proxy.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::access::Access;
use super::answer::{self, Answering, Refused, X_REQUEST_ID};
use super::body::{AnswerBody, Content};
use super::link::{Link, is_trusted};
use super::policy::Policy;
use super::request_id::request_id;
use super::wire::Wire;
use super::{Door, Edge, call, ending, head, own, redirect};
use crate::api;
use crate::files::Mount;
use crate::proxy::{Caller, client_address};

impl Edge {
    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(super) async fn answer(
        self: Arc<Self>,
        link: Link,
        wire: Wire,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let policy = self.common.policy();
        let trusted = is_trusted(link.peer, &policy.settings.trusted_proxies);
        let request_id = request_id(request.headers(), trusted);
        let (head, connect) =
            (*request.method() == Method::HEAD, *request.method() == Method::CONNECT);
        let compression = policy.compression.as_ref().filter(|_| matches!(self.door, Door::Public));
        let coding = compression.and_then(|compression| compression.wanted(request.headers()));
        wire.begin(!request.body().is_end_stream());
        let fault = wire.take_fault();
        let has_connection_fields = wire.has_connection_fields();
        let mut access = Access::begin(
            Arc::clone(&self.access),
            wire,
            self.common.drain.in_flight(),
            &link,
            &request,
            request_id,
        );
        let result = match fault {
            Some(fault) => Err(Refused::BadRequest(fault.message())),
            None => self.dispatch(&policy, &link, &mut access, request).await,
        };
        let mut response = self.outcome(result, &policy, &mut access);
        let status = response.status();
        access.answered(status.as_u16());
        let upgraded =
            status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success());
        if matches!(self.door, Door::Public) {
            if matches!(response.body(), Content::Forwarded(_)) {
                policy.security.remove(response.headers_mut());
            }
            policy.security.add(response.headers_mut(), link.scheme());
        }
        if let Some(compression) = compression.filter(|_| !upgraded) {
            response = compression.apply(response, coding, head);
        }
        let headers = response.headers_mut();
        access.write_limits(headers);
        headers.insert(X_REQUEST_ID.clone(), access.request_id().clone());
        if !has_connection_fields {
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
        } else if self.common.drain.is_draining() && !upgraded {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Neither has a body to be read to its end: the head is the whole answer.
        if upgraded {
            access.upgraded();
        } else if head {
            access.done();
        }
        Ok(AnswerBody::new(response, access))
    }

    /// The answer, also where it is a refusal.
    fn outcome(
        &self,
        result: Result<Response<Content>, Refused>,
        policy: &Policy,
        access: &mut Access,
    ) -> Response<Content> {
        match result {
            Ok(response) => {
                access.verdict(ending::of_answer(&response));
                response
            }
            Err(refused) => {
                access.verdict(ending::of_refusal(&refused));
                let answering = Answering {
                    request_id: access.request_id(),
                    regions: &self.common.regions.region_names(),
                    retry_after: policy.settings.retry_after_seconds,
                };
                answer::refuse(&refused, &answering)
            }
        }
    }

    async fn dispatch(
        &self,
        policy: &Policy,
        link: &Link,
        access: &mut Access,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, Refused> {
        let settings = &policy.settings;
        head::check(&request, settings.max_target_bytes.get())?;
        let host = link.host(&request)?;
        head::check_size(request.headers(), settings)?;
        let (client, trusted) =
            client_address(request.headers(), link.peer.ip(), &settings.trusted_proxies);
        access.client(client);
        let max_body_bytes = self.obey(policy, client, &request)?;
        if let Some(response) = own::answer(self, &policy.own, &request) {
            return Ok(response);
        }
        if !policy.limits.is_empty() {
            let head = (request.method(), request.uri(), request.headers());
            Box::pin(self.count(policy, client, head, access)).await?;
        }
        let region = match &self.door {
            Door::Redirect(to) => return redirect::answer(policy, to, &request).await,
            Door::Hub(region) => {
                // Boxed, as what goes to the API is, so that a proxied request does not carry its state.
                return Box::pin(self.chat_here(region, client, access, request)).await;
            }
            Door::Api(api) => {
                return Box::pin(call::answer(api, api::PREFIX, access, request)).await;
            }
            Door::Public => {
                if let Some(api) = &self.common.api
                    && let Some(mount) = policy.own.mount(request.uri().path())
                {
                    return Box::pin(call::answer(api, mount, access, request)).await;
                }
                let path = request.uri().path();
                if let Some(mount) = policy.mounts.find(path).filter(|_| !policy.own.is_ws(path)) {
                    return Box::pin(file(mount, &request)).await;
                }
                self.proxy.route(request.headers(), request.uri()).map_err(Refused::Route)?
            }
        };
        access.region(region.clone());
        let caller = Caller {
            peer: link.peer.ip(),
            client,
            trusted,
            scheme: link.scheme(),
            tls: link.tls(),
            host,
            request_id: access.request_id().clone(),
            arrival: access.arrival(),
            max_body_bytes,
        };
        let response = if policy.own.is_ws(request.uri().path()) {
            if self.common.hub.hosts(region.name().as_str()) {
                return Box::pin(self.chat_of(&region, client, access, request)).await;
            }
            self.proxy.forward_to_hub(&region, &caller, request, access.report()).await
        } else {
            self.proxy.forward(&region, &caller, request, access.report()).await
        }
        .map_err(Refused::Forward)?;
        Ok(response.map(Content::Forwarded))
    }
}

/// Answers with what a mounted folder has.
pub(super) async fn file(
    mount: &Mount,
    request: &Request<Incoming>,
) -> Result<Response<Content>, Refused> {
    let answered = mount.answer(request.method(), request.uri(), request.headers()).await;
    answered.map(|response| response.map(Content::File)).map_err(Refused::File)
}
