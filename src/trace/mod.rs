//! Traces: where the time of a session went, in spans that are sent by OTLP.
//!
//! | file | holds |
//! | --- | --- |
//! | `context` | whose trace it is: W3C Trace Context (pure) |
//! | `session` | the spans of a session: handshake, welcome, life, events, publication |
//! | `request` | the span of a request that changes something |
//! | `export` | the queue of spans, and the thread that sends them |
//!
//! - One for the process, as the log is: begun once at its start or never. Where it was not, every function here looks at
//!   one atomic and is done: nothing is kept of a session, nothing is reserved for a ping.
//! - A caller's trace goes on where he asks for it (`traceparent`), and his decision not to record it holds. Where he says
//!   nothing, a trace begins here.
//! - Nobody waits for a span: the queue is bounded, and what finds no room is dropped and counted.
//!
//! Left out on purpose: pings, of which there are too many, and what other nodes do to a session.

mod context;
mod export;
mod request;
mod session;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

pub use context::{Context, TRACEPARENT, trace_id};
pub use export::NotStarted;
pub use request::{Request, request};
pub use session::{Handshake, ended, handshake, noticed, published, welcomed};

use crate::ids::{Incarnation, NodeId};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::time::Timestamp;
use export::Exporter;
use session::Sessions;

struct Traces {
    exporter: Exporter,
    sessions: Sessions,
}

static TRACES: OnceLock<Traces> = OnceLock::new();

/// Traces are sent to the OTLP receiver at `endpoint` from now on, until [`stop`].
///
/// # Errors
/// An endpoint that is none, or a thread that cannot be started.
pub fn start(
    endpoint: &Secret,
    node_id: &NodeId,
    incarnation: Incarnation,
    metrics: Arc<Metrics>,
) -> Result<(), NotStarted> {
    let exporter = Exporter::start(endpoint, node_id, incarnation, metrics)?;
    // Who comes second finds the first at work.
    let _ = TRACES.set(Traces { exporter, sessions: Sessions::default() });
    Ok(())
}

/// Sends what waits, for as long as `patience` allows.
pub fn stop(patience: Duration) {
    if let Some(traces) = TRACES.get() {
        traces.exporter.finish(patience);
    }
}

fn traces() -> Option<&'static Traces> {
    TRACES.get()
}

/// A span that is over.
struct Span {
    name: String,
    kind: SpanKind,
    context: Context,
    /// None where the trace begins.
    parent: Option<Parent>,
    from: Timestamp,
    to: Timestamp,
    attributes: Vec<KeyValue>,
    events: SpanEvents,
    links: SpanLinks,
    /// What went wrong, where something did.
    error: Option<String>,
}

#[derive(Clone, Copy)]
struct Parent {
    context: Context,
    /// It is a span of the caller's.
    remote: bool,
}

impl Span {
    fn new(name: impl Into<String>, kind: SpanKind, context: Context, parent: Option<Parent>) -> Self {
        let now = Timestamp::now();
        Self {
            name: name.into(),
            kind,
            context,
            parent,
            from: now,
            to: now,
            attributes: Vec::new(),
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            error: None,
        }
    }

    fn child_of(context: Context, name: impl Into<String>) -> Self {
        Self::new(name, SpanKind::Internal, context.child(), Some(Parent { context, remote: false }))
    }

    fn lasting(mut self, from: Timestamp, to: Timestamp) -> Self {
        (self.from, self.to) = (from, to.max(from));
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    fn send(self, exporter: &Exporter) {
        let parent = self.parent;
        let none = opentelemetry::trace::SpanId::INVALID;
        exporter.send(SpanData {
            span_context: self.context.into(),
            parent_span_id: parent.map_or(none, |p| SpanContext::from(p.context).span_id()),
            parent_span_is_remote: parent.is_some_and(|p| p.remote),
            span_kind: self.kind,
            name: self.name.into(),
            start_time: system(self.from),
            end_time: system(self.to),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: self.events,
            links: self.links,
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: InstrumentationScope::builder("lastpong")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

fn system(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
