//! `GET /debug/connections`: live sessions by their snapshots, closed ones by the record; and one session in
//! full.

use std::str::FromStr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::IpNet;

use super::select::{Filter, Order, Place, SortBy, select};
use super::{List, answer, seal, unseal};
use crate::event::Event;
use crate::http::auth::Reader;
use crate::http::openapi::params::{Cursor, PageLimit, SessionFilters};
use crate::http::openapi::shapes::{Sessions, WholeSession};
use crate::http::query::{Params, session_id};
use crate::http::record::Record;
use crate::http::{Doors, json};
use crate::ids::{DeviceId, DeviceType, NodeId, SessionId};
use crate::problem::{self, Problem};
use crate::store::{EventFilter, HistoryFilter, Match, StoreError};
use crate::supervisor::snapshot::State;
use crate::time::{Timestamp, millis};

pub(crate) const OF_ALL: [&str; 6] = ["state", "limit", "cursor", "device_id", "device_type", "node"];
pub(crate) const OF_LIVE: [&str; 4] = ["sort", "remote_addr", "min_rtt_ms", "idle_gt"];
const OF_CLOSED: [&str; 1] = ["reason"];

/// Events shown with one session.
const RECENT: usize = 50;
/// How the session's events are read to find them.
const PER_READ: usize = 1000;
const MAX_READS: usize = 8;

/// Sessions: live ones in any order, or with `state=closed` those that have ended, newest first
#[utoipa::path(
    get, path = "/debug/connections", tag = "debug",
    params(PageLimit, Cursor, SessionFilters),
    responses((status = 200, body = Sessions)),
)]
pub(in crate::http) async fn connections(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let known: Vec<&str> = OF_ALL.into_iter().chain(OF_LIVE).chain(OF_CLOSED).collect();
    let params = Params::parse(request.query_string(), &known)?;
    if params.text("state") == Some("closed") {
        refuse(
            &params,
            &OF_LIVE,
            "nothing with state=closed, which is always in order of end, newest first",
        )?;
        return closed(&params, &doors).await;
    }
    refuse(&params, &OF_CLOSED, "nothing but with state=closed: a live session has no reason")?;
    live(&params, &doors).await
}

fn refuse(params: &Params, names: &[&str], allowed: &str) -> Result<(), Problem> {
    match names.iter().find_map(|name| Some((name, params.text(name)?))) {
        Some((name, value)) => Err(Problem::bad_input(name, value, allowed)),
        None => Ok(()),
    }
}

/// What a query asks of the live sessions.
pub(crate) struct AskedLive {
    pub order: Order,
    pub filter: Filter,
    pub after: Option<Place>,
    pub limit: usize,
}

impl AskedLive {
    pub(crate) fn of(params: &Params) -> Result<Self, Problem> {
        let sorts = || SortBy::ALL.map(|(name, _)| name).join(", ") + ", reversed with a - before it";
        let order: Order = params.parsed("sort", &sorts())?.unwrap_or_default();
        Ok(Self {
            order,
            filter: live_filter(params)?,
            after: read_cursor(params, &format!("{order}~"), |text| Place::read(order, text))?,
            limit: params.limit()?,
        })
    }
}

async fn live(params: &Params, doors: &Doors) -> Result<HttpResponse, Problem> {
    let AskedLive { order, filter, after, limit } = AskedLive::of(params)?;
    let snapshots = doors.inspector.glance().await;
    // Of a hundred thousand sessions this takes milliseconds, which a worker's loop does not have.
    let picking = web::block(move || {
        let sessions = snapshots.iter().flat_map(|worker| &worker.sessions);
        let picked = select(sessions, &filter, order, after.as_ref(), limit);
        json::text(&List {
            items: picked.items,
            next_cursor: picked.next.map(|place| seal(&format!("{order}~{}", place.to_text()))),
            total: picked.total as u64,
            now: Timestamp::now(),
        })
    });
    let list = picking.await.map_err(|_| Problem::unavailable("this node has no thread to look with", 1))?;
    Ok(answer(list))
}

fn live_filter(params: &Params) -> Result<Filter, Problem> {
    const STATES: [(&str, State); 3] =
        [("starting", State::Starting), ("live", State::Live), ("suspect", State::Suspect)];
    let state = match params.text("state") {
        None => None,
        Some(name) => match STATES.into_iter().find(|(known, _)| *known == name) {
            Some((_, state)) => Some(state),
            None => return Err(Problem::bad_input("state", name, "starting, live, suspect, closed")),
        },
    };
    let milliseconds: Option<f64> = params.parsed("min_rtt_ms", NUMBER)?;
    if let (Some(x), Some(text)) = (milliseconds, params.text("min_rtt_ms"))
        && !(x.is_finite() && x >= 0.0)
    {
        return Err(Problem::bad_input("min_rtt_ms", text, NUMBER));
    }
    Ok(Filter {
        state,
        device_id: params.device_id()?,
        device_type: checked::<DeviceType>(params, "device_type")?,
        node: checked::<NodeId>(params, "node")?,
        remote_addr: network(params)?,
        min_rtt_ms: milliseconds,
        idle_over_ms: idle(params)?,
    })
}

const NUMBER: &str = "a number of milliseconds, 0 or more";

/// A name that is one of its kind, as text.
fn checked<T: FromStr + ToString>(params: &Params, name: &str) -> Result<Option<String>, Problem> {
    Ok(params.parsed::<T>(name, "1-128 of [A-Za-z0-9._:@-]")?.map(|t| t.to_string()))
}

fn network(params: &Params) -> Result<Option<IpNet>, Problem> {
    let Some(text) = params.text("remote_addr") else { return Ok(None) };
    let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
    net.map(Some)
        .map_err(|_| Problem::bad_input("remote_addr", text, "an address, or a network like 10.0.0.0/8"))
}

fn idle(params: &Params) -> Result<Option<f64>, Problem> {
    const ALLOWED: &str = "a duration like 500ms, 30s, 5m, 1h";
    let Some(text) = params.text("idle_gt") else { return Ok(None) };
    let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|d| d.try_into().ok());
    duration.map(|d| Some(millis(d))).ok_or_else(|| Problem::bad_input("idle_gt", text, ALLOWED))
}

/// A cursor belongs to one order: it begins with that order's words.
fn read_cursor<T>(
    params: &Params,
    begins: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(cursor) = params.text("cursor") else { return Ok(None) };
    let place = unseal(cursor).and_then(|text| read(text.strip_prefix(begins)?));
    place.map(Some).ok_or_else(|| {
        Problem::bad_input("cursor", cursor, "a next_cursor of a page with the same sort and state")
    })
}

async fn closed(params: &Params, doors: &Doors) -> Result<HttpResponse, Problem> {
    const BEGINS: &str = "closed~";
    let limit = params.limit()?;
    let mut filter = HistoryFilter {
        device_id: params.device_id()?,
        device_type: checked::<DeviceType>(params, "device_type")?,
        node_id: checked::<NodeId>(params, "node")?,
        reason: params.reason()?,
        before: None,
    };
    let before = read_cursor(params, BEGINS, |text| text.parse().ok())?;
    let total = doors.timed("history_total", doors.store.history_total(&filter)).await?;
    filter.before = before;
    // One more than is shown tells whether there is a next page.
    let mut records = doors.timed("history", doors.store.history(&filter, limit + 1)).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let last = records.last().filter(|_| more);
    let next = last.and_then(|r| Some(format!("{BEGINS}{}", r.end_seq?)));
    Ok(answer(json::text(&List {
        items: records.into_iter().map(Record::from).collect(),
        next_cursor: next.map(|place| seal(&place)),
        total,
        now: Timestamp::now(),
    })))
}

/// One session in full, live or ended, with its recent events
#[utoipa::path(
    get, path = "/debug/connections/{session_id}", tag = "debug",
    params(("session_id" = SessionId, Path)),
    responses(
        (status = 200, body = WholeSession),
        (status = 404, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn connection(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let id = session_id(&request)?;
    let found = match doors.inspector.find(id).await {
        Some(view) => Some((view.start.device_id.clone(), json::text(&view))),
        None => {
            let record = doors.timed("session", doors.store.session(id)).await?;
            record.map(|record| (record.device_id.clone(), json::text(&Record::from(record))))
        }
    };
    let Some((device_id, session)) = found else {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no session {id}, live or kept"))
            .about("session_id", &id.to_string(), "the id of a session that is live or kept"));
    };
    let events = recent_events(&doors, id, &device_id).await?;
    let events = json::array(events.iter().map(|e| &*e.json));
    let whole = json::with_member(session, "events", &events);
    Ok(answer(json::with_member(whole, "now", &json::text(&Timestamp::now()))))
}

async fn recent_events(
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
