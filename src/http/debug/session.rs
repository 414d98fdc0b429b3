//! `GET /debug/connections/{session_id}`: one session in full.
//!
//! One that this node holds is looked at closely: its socket, and its heartbeats from the first look on. Of another
//! node's, live state says what it last wrote; what neither holds is told as the record has it, with the heartbeats that
//! this node noted of it before its end.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::answer;
use crate::event::{Event, EventKind};
use crate::http::auth::Reader;
use crate::http::browser::wants_page;
use crate::http::openapi::shapes::WholeSession;
use crate::http::pages::{self, Frame};
use crate::http::query::{Params, session_id};
use crate::http::record::Record;
use crate::http::{Doors, json};
use crate::ids::{DeviceId, SessionId};
use crate::problem::{self, Problem};
use crate::store::{EventFilter, HistoryFilter, Match, SessionRecord, Status, StoreError};
use crate::supervisor::closeup::{CloseUp, Heartbeats};
use crate::supervisor::snapshot::SessionView;
use crate::time::Timestamp;

/// Events shown with one session.
const RECENT: usize = 50;
/// Other sessions of its device that a page shows.
const BEFORE: usize = 10;
/// How the session's events are read to find them.
const PER_READ: usize = 1000;
const MAX_READS: usize = 8;

/// What is known of a session, by who knows most of it.
pub(in crate::http) enum Known {
    Here(Box<CloseUp>),
    /// By another node, in live state.
    Elsewhere(Box<SessionView>),
    Record(Box<SessionRecord>, Option<Heartbeats>),
}

impl Known {
    pub(super) fn device_id(&self) -> &DeviceId {
        match self {
            Known::Here(seen) => &seen.view.start.device_id,
            Known::Elsewhere(view) => &view.start.device_id,
            Known::Record(record, _) => &record.device_id,
        }
    }

    /// The `seq` of its end; none while it is not on the record.
    fn end_seq(&self) -> Option<i64> {
        match self {
            Known::Record(record, _) => record.end_seq,
            Known::Here(_) | Known::Elsewhere(_) => None,
        }
    }

    fn to_json(&self) -> String {
        match self {
            Known::Here(seen) => {
                let view = json::text(&seen.view);
                let view = json::with_member(view, "heartbeats", &json::text(&seen.heartbeats));
                json::with_member(view, "socket", &json::text(&seen.socket))
            }
            Known::Elsewhere(view) => json::text(view),
            Known::Record(record, beats) => {
                let told = json::text(&Record::from((**record).clone()));
                match beats {
                    Some(beats) => json::with_member(told, "heartbeats", &json::text(beats)),
                    None => told,
                }
            }
        }
    }
}

/// One session in full, live or ended, with its recent events
#[utoipa::path(
    get, path = "/debug/connections/{session_id}", tag = "debug",
    params(("session_id" = SessionId, Path)),
    responses(
        (status = 200, content((WholeSession = "application/json"), (String = "text/html"))),
        (status = 404, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn connection(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let id = session_id(&request)?;
    let known = find(&doors, id).await?;
    let events = recent_events(&doors, id, &known).await?;
    if wants_page(&request) {
        let of_device = HistoryFilter {
            device_id: Some(Match::Is(known.device_id().to_string())),
            ..HistoryFilter::default()
        };
        let history = doors.timed("history", doors.store.history(&of_device, BEFORE)).await?;
        let history = history.into_iter().map(Record::from).collect();
        return Ok(pages::session_page(Frame::of(&caller, &doors), &known, &events, history));
    }
    let events = json::array(events.iter().map(|e| &*e.json));
    let whole = json::with_member(known.to_json(), "events", &events);
    Ok(answer(json::with_member(whole, "now", &json::text(&Timestamp::now()))))
}

/// # Errors
/// The 404 where nobody knows it.
pub(super) async fn find(doors: &Doors, id: SessionId) -> Result<Known, Problem> {
    if let Some(seen) = doors.inspector.close_up(id).await {
        return Ok(Known::Here(Box::new(seen)));
    }
    let record = doors.timed("session", doors.store.session(id)).await;
    // Only of one that may have begun since the last snapshot a new one is asked for: not of each id that somebody makes
    // up, nor again and again of one that ended.
    let may_be_here = match &record {
        Ok(record) => {
            record.as_ref().is_some_and(|r| r.status == Status::Active && r.node_id == doors.node_id)
        }
        Err(_) => true,
    };
    if may_be_here && let Some(seen) = doors.inspector.close_up_now(id).await {
        return Ok(Known::Here(Box::new(seen)));
    }
    let record = record?;
    let Some(record) = record else {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no session {id}, live or kept"))
            .about("session_id", &id.to_string(), "the id of a session that is live or kept"));
    };
    if record.status == Status::Active
        && record.node_id != doors.node_id
        && let Some(view) = doors.peers.session(id).await
    {
        return Ok(Known::Elsewhere(Box::new(view)));
    }
    let beats = doors.inspector.beats_of_the_past(id);
    Ok(Known::Record(Box::new(record), beats))
}

/// The session's last events, the oldest first.
pub(super) async fn recent_events(
    doors: &Doors,
    id: SessionId,
    known: &Known,
) -> Result<Vec<Arc<Event>>, StoreError> {
    // A device's sessions follow each other: this one's events come after the end of the one before. Only where that was
    // told late, by a node that was cut off, may they lie deeper.
    let device = Some(Match::Is(known.device_id().to_string()));
    let before = HistoryFilter { device_id: device, before: known.end_seq(), ..HistoryFilter::default() };
    let before = doors.timed("history", doors.store.history(&before, 1)).await?;
    let begin = before.first().and_then(|record| record.end_seq).unwrap_or(0);
    let events = events_after(doors, id, known.device_id(), begin).await?;
    let whole = begin == 0 || events.len() >= RECENT || has_start(&events);
    if whole { Ok(events) } else { events_after(doors, id, known.device_id(), 0).await }
}

fn has_start(events: &[Arc<Event>]) -> bool {
    events.first().is_some_and(|event| event.kind == EventKind::SessionConnected)
}

async fn events_after(
    doors: &Doors,
    id: SessionId,
    device_id: &DeviceId,
    begin: i64,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let filter = EventFilter {
        device_ids: vec![Match::Is(device_id.to_string())],
        session_id: Some(id),
        ..EventFilter::default()
    };
    let (mut events, mut after) = (Vec::new(), begin);
    for _ in 0..MAX_READS {
        // From the store, which finds the events of one device by its index.
        let page = doors.timed("events", doors.store.events(after, &filter, PER_READ)).await?;
        if page.scanned_to <= after {
            break;
        }
        after = page.scanned_to;
        events.extend(page.events);
        events.drain(..events.len().saturating_sub(RECENT));
    }
    Ok(events)
}
