//! `GET /debug/events`: the most recent events first, and where the feed stands.
//!
//! The log is read backwards in stretches, at most [`MAX_SCANNED`] events a request: with a filter that wants
//! little, a page may be short although `next_cursor` says that there is more.
//!
//! A page that renews itself says with `since` up to where it was read. Only what came after that is looked at; where
//! none of it is wanted, the page comes without rows, and what it shows stays.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{answer, made, seal, unseal};
use crate::event::Event;
use crate::feed::{Feed, Standing};
use crate::http::auth::Reader;
use crate::http::browser::{self, wants_page};
use crate::http::openapi::params::{Cursor, EventFilters, PageLimit};
use crate::http::openapi::shapes::RecentEvents;
use crate::http::pages::{self, Frame};
use crate::http::query::{FILTERS, Params};
use crate::http::{Doors, json};
use crate::problem::Problem;
use crate::store::{EventFilter, LogBounds, StoreError};
use crate::time::Timestamp;

const STRETCH: i64 = 1000;
const MAX_SCANNED: i64 = 20_000;
const BEGINS: &str = "before~";

/// Where recent events are in the log.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Facts {
    next_cursor: Option<String>,
    /// Events kept, whatever the filter.
    total: i64,
    oldest: i64,
    newest: i64,
    feed: Standing,
    now: Timestamp,
}

/// The most recent events first, and where the feed stands
#[utoipa::path(
    get, path = "/debug/events", tag = "debug",
    params(PageLimit, Cursor, EventFilters),
    responses((status = 200, content((RecentEvents = "application/json"), (String = "text/html")))),
)]
pub(in crate::http) async fn events(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let mut known: Vec<&str> = ["limit", "cursor"].into_iter().chain(FILTERS).collect();
    let is_page = wants_page(&request);
    let query = match is_page {
        true => pages::asked_by_form(request.query_string()),
        false => request.query_string().to_owned(),
    };
    if is_page {
        known.push("since");
    }
    let params = Params::parse(&query, &known)?;
    let (limit, filter) = (params.limit()?, params.event_filter()?);
    let bounds = doors.feed.bounds().await?;
    let last = match params.text("cursor") {
        None => bounds.newest,
        Some(cursor) => {
            let place = unseal(cursor).and_then(|text| text.strip_prefix(BEGINS)?.parse::<i64>().ok());
            let before = place.filter(|seq| *seq > 0);
            before
                .ok_or_else(|| Problem::bad_input("cursor", cursor, "a next_cursor of /debug/events"))?
                .min(bounds.newest + 1)
                - 1
        }
    };
    if let Some(since) = params.number("since", 0..=i64::MAX)?
        && nothing_since(&doors.feed, since, bounds.newest, &filter).await?
    {
        let place = pages::LogPlace { total: bounds.newest + 1 - bounds.oldest, scanned: bounds.newest };
        let frame = Frame::of(&caller, &doors);
        let page = pages::events_page(frame, &query, None, None, place, doors.feed.standing());
        return Ok(browser::html(StatusCode::OK, page));
    }
    let (events, scanned_down_to) = newest_first(&doors.feed, bounds, last, &filter, limit).await?;
    let next_cursor = (scanned_down_to > bounds.oldest).then(|| seal(&format!("{BEGINS}{scanned_down_to}")));
    let (total, feed) = (bounds.newest + 1 - bounds.oldest, doors.feed.standing());
    if is_page {
        let (frame, place) = (Frame::of(&caller, &doors), pages::LogPlace { total, scanned: bounds.newest });
        let page = made(move || {
            pages::events_page(frame, &query, Some(&events), next_cursor.as_deref(), place, feed)
        });
        return Ok(browser::html(StatusCode::OK, page.await?));
    }
    let facts = Facts {
        next_cursor,
        total,
        oldest: bounds.oldest,
        newest: bounds.newest,
        feed,
        now: Timestamp::now(),
    };
    let items = json::array(events.iter().map(|e| &*e.json));
    Ok(answer(json::with_member(json::text(&facts), "items", &items)))
}

/// Whether no event after `since` is wanted, as one read can tell.
async fn nothing_since(
    feed: &Feed,
    since: i64,
    newest: i64,
    filter: &EventFilter,
) -> Result<bool, StoreError> {
    if since >= newest {
        return Ok(true);
    }
    let page = feed.read(since, filter, 1).await?;
    Ok(page.events.is_empty() && page.scanned_to >= newest)
}

/// Up to `limit` events at or before `last`, and the `seq` that the log was read down to.
async fn newest_first(
    feed: &Feed,
    bounds: LogBounds,
    last: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<(Vec<Arc<Event>>, i64), StoreError> {
    // Unfiltered from the log and filtered here: the log is read forwards, so a filter would lead past the
    // stretch.
    let everything = EventFilter::default();
    let mut found = Vec::new();
    let mut end = last;
    while end >= bounds.oldest && last - end < MAX_SCANNED {
        let begin = (end - STRETCH).max(bounds.oldest - 1);
        for event in
            stretch(feed, begin, end, &everything).await?.into_iter().rev().filter(|e| filter.matches(e))
        {
            let seq = event.seq;
            found.push(event);
            if found.len() >= limit {
                return Ok((found, seq));
            }
        }
        end = begin;
    }
    Ok((found, end + 1))
}

/// The events after `begin` up to and with `end`.
async fn stretch(
    feed: &Feed,
    begin: i64,
    end: i64,
    all: &EventFilter,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let (mut events, mut place) = (Vec::new(), begin);
    while place < end {
        let page = feed.read(place, all, (end - place) as usize).await?;
        if page.scanned_to <= place {
            break;
        }
        place = page.scanned_to;
        events.extend(page.events.into_iter().filter(|e| e.seq <= end));
    }
    Ok(events)
}
