//! The span of a request that changes something: what an operator did, and to which sessions.

use opentelemetry::trace::{Link, SpanKind};

use super::context::Context;
use super::session::continued;
use super::{Parent, Span, traces};
use crate::ids::SessionId;
use crate::time::Timestamp;

/// Sessions that a span is linked to.
const LINKED: usize = 32;

/// A request under way.
pub struct Request {
    context: Context,
    parent: Option<Parent>,
    began: Timestamp,
}

/// Begins to trace a request, unless there are no traces, or its sender says that his is not recorded.
pub fn request(traceparent: Option<&str>) -> Option<Request> {
    traces()?;
    let (context, parent) = continued(traceparent)?;
    Some(Request { context, parent, began: Timestamp::now() })
}

impl Request {
    pub fn context(&self) -> Context {
        self.context
    }

    /// It has been answered. `route` is a pattern, as `/v1/sessions/{session_id}`; `touched` are the sessions that it was
    /// about, whose spans are linked to this one in turn.
    pub fn answered(self, method: &str, route: &str, status: u16, touched: &[SessionId]) {
        let Some(traces) = traces() else { return };
        let span = Span::new(format!("{method} {route}"), SpanKind::Server, self.context, self.parent);
        let mut span = span
            .lasting(self.began, Timestamp::now())
            .with("http.request.method", method.to_owned())
            .with("http.route", route.to_owned())
            .with("http.response.status_code", i64::from(status));
        // What the sender did wrong is no error of this side.
        span.error = (status >= 500).then(|| status.to_string());
        let linked = touched.iter().take(LINKED).filter_map(|id| traces.sessions.context(*id));
        span.links.links = linked.map(|context| Link::with_context(context.into())).collect();
        span.send(&traces.exporter);
    }

    /// The session is about to be changed by it.
    pub fn touches(context: Context, id: SessionId) {
        if let Some(traces) = traces() {
            traces.sessions.link(id, context);
        }
    }
}
