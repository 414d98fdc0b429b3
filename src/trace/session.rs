//! The spans of a session: `handshake` with its parts `authenticate` and `welcome`, `session` from its start to its end,
//! and `publish` of its events.
//!
//! What is known of a session between two of its moments is kept here, by its id, and not in the session: without traces
//! it has no room for them. Of a session that ended it is kept until its end is published, of the last [`ENDED`] of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Event as Noted, Link, SpanKind};

use super::context::Context;
use super::{Parent, Span, system, traces};
use crate::event::{Connected, Disconnected, Event};
use crate::ids::SessionId;
use crate::time::Timestamp;

/// Sessions that ended and whose end is on its way to the record.
const ENDED: usize = 4_096;
/// Moments noted of one session.
const NOTED: usize = 64;
/// Spans that a session's is linked to.
const LINKED: usize = 8;

/// What is kept of a session.
struct Open {
    handshake: Context,
    parent: Option<Parent>,
    session: Context,
    began: Timestamp,
    noted: Vec<Noted>,
    links: Vec<Link>,
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    open: HashMap<SessionId, Open>,
    ended: VecDeque<(SessionId, Context)>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The span of the session is linked to `cause`.
    pub(super) fn link(&self, id: SessionId, cause: Context) {
        if let Some(open) = self.lock().open.get_mut(&id)
            && open.links.len() < LINKED
        {
            open.links.push(Link::with_context(cause.into()));
        }
    }

    /// The span of a session, live or just over.
    pub(super) fn context(&self, id: SessionId) -> Option<Context> {
        let kept = self.lock();
        let ended = || kept.ended.iter().find(|(ended, _)| *ended == id).map(|(_, context)| *context);
        kept.open.get(&id).map(|open| open.session).or_else(ended)
    }
}

/// A handshake under way.
pub struct Handshake {
    context: Context,
    parent: Option<Parent>,
    began: Timestamp,
}

/// Begins to trace a handshake, unless there are no traces, or its sender says that his is not recorded.
pub fn handshake(traceparent: Option<&str>) -> Option<Handshake> {
    traces()?;
    let (context, parent) = continued(traceparent)?;
    Some(Handshake { context, parent, began: Timestamp::now() })
}

/// A span for what `traceparent` has caused, and its parent; none where that is not recorded.
pub(super) fn continued(traceparent: Option<&str>) -> Option<(Context, Option<Parent>)> {
    match traceparent.and_then(Context::parse) {
        Some(context) if !context.sampled => None,
        Some(context) => Some((context.child(), Some(Parent { context, remote: true }))),
        None => Some((Context::root(), None)),
    }
}

impl Handshake {
    pub fn trace_id(&self) -> String {
        self.context.trace_id()
    }

    /// Who asks is known, or was refused with this outcome.
    pub fn authenticated(&self, refused: Option<&'static str>) {
        let Some(traces) = traces() else { return };
        let mut span = Span::child_of(self.context, "authenticate").lasting(self.began, Timestamp::now());
        span.error = refused.map(str::to_owned);
        span.send(&traces.exporter);
    }

    /// It came to nothing.
    pub fn failed(self, outcome: &'static str) {
        let Some(traces) = traces() else { return };
        let span = Span::new("handshake", SpanKind::Server, self.context, self.parent);
        let mut span = span.lasting(self.began, Timestamp::now()).with("lastpong.outcome", outcome);
        span.error = Some(outcome.to_owned());
        span.send(&traces.exporter);
    }

    /// A session began with it, and waits for its start to be durable.
    pub fn admitted(self, id: SessionId) {
        let Some(traces) = traces() else { return };
        let session = self.context.child();
        let Self { context: handshake, parent, began } = self;
        let open = Open { handshake, parent, session, began, noted: Vec::new(), links: Vec::new() };
        traces.sessions.lock().open.insert(id, open);
    }
}

/// The session's start is durable, and its device has been told.
pub fn welcomed(start: &Connected) {
    let Some(traces) = traces() else { return };
    let kept = traces.sessions.lock();
    let Some(open) = kept.open.get(&start.session_id) else { return };
    let now = Timestamp::now();
    let (welcome, handshake) = (
        Span::child_of(open.handshake, "welcome"),
        Span::new("handshake", SpanKind::Server, open.handshake, open.parent),
    );
    let (welcome, handshake) = (welcome.lasting(start.connected_at, now), handshake.lasting(open.began, now));
    drop(kept);
    welcome.send(&traces.exporter);
    of_device(handshake.with("lastpong.outcome", "admitted"), start).send(&traces.exporter);
}

fn of_device(span: Span, start: &Connected) -> Span {
    span.with("lastpong.device_id", start.device_id.to_string())
        .with("lastpong.device_type", start.device_type.to_string())
        .with("lastpong.session_id", start.session_id.to_string())
        .with("client.address", start.remote_addr.ip().to_string())
        .with("client.port", i64::from(start.remote_addr.port()))
}

/// Something worth noting happened to the session.
pub fn noticed(id: SessionId, what: &'static str) {
    let Some(traces) = traces() else { return };
    if let Some(open) = traces.sessions.lock().open.get_mut(&id)
        && open.noted.len() < NOTED
    {
        open.noted.push(Noted::new(what, system(Timestamp::now()), Vec::new(), 0));
    }
}

/// The session is over; `welcomed` says whether it ever began for its device.
pub fn ended(start: &Connected, end: &Disconnected, welcomed: bool) {
    let Some(traces) = traces() else { return };
    let mut kept = traces.sessions.lock();
    let Some(open) = kept.open.remove(&end.session_id) else { return };
    if kept.ended.len() == ENDED {
        kept.ended.pop_front();
    }
    kept.ended.push_back((end.session_id, open.session));
    drop(kept);
    let reason = end.reason.as_str();
    if !welcomed {
        let span = Span::new("handshake", SpanKind::Server, open.handshake, open.parent);
        let mut span = of_device(span.lasting(open.began, end.disconnected_at), start);
        span.error = Some(reason.to_owned());
        span.send(&traces.exporter);
    }
    let parent = Parent { context: open.handshake, remote: false };
    let span = Span::new("session", SpanKind::Server, open.session, Some(parent));
    let span = of_device(span.lasting(end.connected_at, end.disconnected_at), start);
    let mut span = span.with("lastpong.reason", reason).with("lastpong.detection_ms", end.detection_ms);
    let counts = [("lastpong.pings_sent", end.pings_sent), ("lastpong.pongs_received", end.pongs_received)];
    let counts = counts.into_iter().filter_map(|(name, count)| Some(KeyValue::new(name, i64::from(count?))));
    span.attributes.extend(counts);
    span.attributes.extend(end.close_code.map(|code| KeyValue::new("lastpong.close_code", i64::from(code))));
    span.events.events = open.noted;
    span.links.links = open.links;
    span.send(&traces.exporter);
}

/// An event that is durable has been told to its readers.
pub fn published(event: &Event, at: Timestamp) {
    let Some(traces) = traces() else { return };
    let Some(id) = event.session_id else { return };
    let context = {
        let mut kept = traces.sessions.lock();
        match kept.open.get(&id).map(|open| open.session) {
            Some(open) => Some(open),
            // It is the end, after which nothing comes.
            None => match kept.ended.iter().position(|(ended, _)| *ended == id) {
                Some(n) => kept.ended.remove(n).map(|(_, context)| context),
                None => None,
            },
        }
    };
    let Some(context) = context else { return };
    let mut span =
        Span::child_of(context, format!("publish {}", event.kind.as_str())).lasting(event.time, at);
    span.kind = SpanKind::Producer;
    span.with("messaging.message.id", event.id.to_string())
        .with("lastpong.seq", event.seq)
        .with("lastpong.session_id", id.to_string())
        .send(&traces.exporter);
}
