//! Requests that change something are traced; those that look are too many, and change nothing to be explained.
//!
//! Where there are no traces this is one look at a method.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest};

use super::auth::changes;
use crate::ids::SessionId;
use crate::trace::{self, Context, Request, TRACEPARENT};

/// The span that a request is under, and the sessions that it was about.
struct Cause {
    context: Context,
    touched: Vec<SessionId>,
}

pub(super) async fn traced<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let begin = || {
        let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        trace::request(traceparent)
    };
    let Some(span) = changes(request.head()).then(begin).flatten() else { return next.call(request).await };
    request.extensions_mut().insert(Cause { context: span.context(), touched: Vec::new() });
    let response = next.call(request).await?;
    let request = response.request();
    let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
    let touched = request.extensions_mut().remove::<Cause>().map(|cause| cause.touched).unwrap_or_default();
    span.answered(request.method().as_str(), &route, response.status().as_u16(), &touched);
    Ok(response)
}

/// Whether it is worth finding out which sessions a request changes.
pub(super) fn is(request: &HttpRequest) -> bool {
    request.extensions().contains::<Cause>()
}

/// The request is about to change this session: their spans are linked.
pub(super) fn touch(request: &HttpRequest, id: SessionId) {
    if let Some(cause) = request.extensions_mut().get_mut::<Cause>() {
        Request::touches(cause.context, id);
        cause.touched.push(id);
    }
}
