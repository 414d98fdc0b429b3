//! `GET /debug/connections/{session_id}`: one session in full.
//!
//! One that this node holds is looked at closely: its socket, and its heartbeats from the first look on. Of another
//! node's, live state says what it last wrote; what neither holds is told as the record has it.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::answer;
use crate::event::Event;
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
use crate::supervisor::closeup::CloseUp;
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
    Record(Box<SessionRecord>),
}

impl Known {
    pub(super) fn device_id(&self) -> &DeviceId {
        match self {
            Known::Here(seen) => &seen.view.start.device_id,
            Known::Elsewhere(view) => &view.start.device_id,
            Known::Record(record) => &record.device_id,
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
            Known::Record(record) => json::text(&Record::from((**record).clone())),
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
    let events = recent_events(&doors, id, known.device_id()).await?;
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
    let record = doors.timed("session", doors.store.session(id)).await?;
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
    Ok(Known::Record(Box::new(record)))
}

/// The session's last events, the oldest first.
pub(super) async fn recent_events(
    doors: &Doors,
    id: SessionId,
    device_id: &DeviceId,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let filter = EventFilter {
        device_ids: vec![Match::Is(device_id.to_string())],
        session_id: Some(id),
        ..EventFilter::default()
    };
    let (mut events, mut after) = (Vec::new(), 0);
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
