//! `GET /v1/events`: the event log as a stream (SSE) or, for who accepts JSON, as a page.
//!
//! A stream without a place to begin at begins now; a page at the oldest event kept. In both `Last-Event-ID` wins
//! over `after`, because a client that reconnects by itself sends it with the address it was first given.

use actix_web::http::header::{ACCEPT, Accept, CACHE_CONTROL, CONTENT_TYPE, Header};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{Caller, Reader};
use super::openapi::params::{After, EventFilters, LastEventId, PageLimit};
use super::openapi::shapes::EventsPage;
use super::query::{FILTERS, Params};
use super::{Doors, json};
use crate::feed::cursor::Subscription;
use crate::feed::seats::Sink;
use crate::feed::{Feed, UNKNOWN, sse};
use crate::problem::{self, Problem};
use crate::store::{EventFilter, LogBounds, StoreError};

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Where a page of events is in the log.
#[derive(Serialize, ToSchema)]
pub(super) struct PagePlace {
    /// The `after` of the next page.
    next_after: i64,
    /// The oldest event that is kept, and the newest.
    oldest: i64,
    newest: i64,
}

/// Stretches of the log that are read for one page. A filter that wants little makes pages short, not
/// requests long.
const MAX_READS: usize = 8;

/// The event log: a page of it as JSON, or (by `Accept`, and by default) a stream of server-sent events
///
/// In a stream `id:` is the `seq`, `event:` the type and `data:` the CloudEvent; without a place to begin at it begins
/// now. A page begins at the oldest event kept. See docs/events.md.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(After, LastEventId, PageLimit, EventFilters),
    responses(
        (status = 200, description = "Events in the order of `seq`.", content(
            (EventsPage = "application/json"), (String = "text/event-stream"),
        )),
        (status = 406, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn events(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    match answer_wanted(&request)? {
        Answer::Stream => stream(caller, &request, &doors).await,
        Answer::Page => page(&request, &doors).await,
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Stream,
    Page,
}

fn answer_wanted(request: &HttpRequest) -> Result<Answer, Problem> {
    if !request.headers().contains_key(ACCEPT) {
        return Ok(Answer::Stream);
    }
    const KNOWN: &str = "text/event-stream or application/json";
    let accept = Accept::parse(request).map_err(|_| Problem::bad_input("Accept", "", KNOWN))?;
    let known =
        accept.ranked().into_iter().find_map(|mime| match (mime.type_().as_str(), mime.subtype().as_str()) {
            ("text", "event-stream" | "*") | ("*", "*") => Some(Answer::Stream),
            ("application", "json" | "*") => Some(Answer::Page),
            _ => None,
        });
    known.ok_or_else(|| {
        let given = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Problem::new(StatusCode::NOT_ACCEPTABLE, format!("events come as {KNOWN}"))
            .about("Accept", given, KNOWN)
    })
}

async fn stream(
    caller: Caller,
    request: &HttpRequest,
    doors: &web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::of_stream(request.query_string())?;
    if let Some(after) = last_event_id(request)? {
        (asked.input, asked.after) = (LAST_EVENT_ID, Some(after));
    }
    let subscription = asked.follow(&doors.feed, Sink::Sse).await?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies that gather answers before they pass them on would hold events back.
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    // Who comes back goes on where he was, if he may.
    let over = Box::pin(caller.until_over(doors.clone()));
    Ok(response.streaming(sse::stream(subscription).take_until(over)))
}

async fn page(request: &HttpRequest, doors: &Doors) -> Result<HttpResponse, Problem> {
    let known: Vec<&str> = ["after", "limit"].into_iter().chain(FILTERS).collect();
    let params = Params::parse(request.query_string(), &known)?;
    let (limit, filter, after) = (params.limit()?, params.event_filter()?, params.after()?);
    let bounds = doors.feed.bounds().await?;
    let (input, asked) = match last_event_id(request)? {
        Some(seen) => (LAST_EVENT_ID, Some(seen)),
        None => ("after", after),
    };
    let after = asked.unwrap_or(bounds.oldest - 1);
    within(input, after, bounds)?;
    let (events, next_after) = read(&doors.feed, after, &filter, limit).await?;
    let place = PagePlace { next_after, oldest: bounds.oldest, newest: bounds.newest.max(next_after) };
    let page = json::with_member(json::text(&place), "events", &json::array(events.iter().map(|e| &*e.json)));
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("application/json")
        .body(page))
}

/// Where a client says itself that it goes on.
fn last_event_id(request: &HttpRequest) -> Result<Option<i64>, Problem> {
    let Some(value) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let after = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seq: &i64| *seq >= 0);
    after.map(Some).ok_or_else(|| {
        let given = String::from_utf8_lossy(value.as_bytes());
        Problem::bad_input(LAST_EVENT_ID, &given, "the id of an event: a seq")
    })
}

async fn read(
    feed: &Feed,
    after: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<(Vec<std::sync::Arc<crate::event::Event>>, i64), StoreError> {
    let (mut events, mut place) = (Vec::new(), after);
    for _ in 0..MAX_READS {
        let more = feed.read(place, filter, limit - events.len()).await?;
        let moved = more.scanned_to > place;
        place = place.max(more.scanned_to);
        events.extend(more.events);
        if events.len() >= limit || !moved {
            break;
        }
    }
    Ok((events, place))
}

/// What a subscriber asks for.
pub(crate) struct Asked {
    after: Option<i64>,
    /// Where `after` was said.
    input: &'static str,
    filter: EventFilter,
}

impl Asked {
    pub(crate) fn of_stream(query: &str) -> Result<Self, Problem> {
        let known: Vec<&str> = ["after"].into_iter().chain(FILTERS).collect();
        if let Ok(pairs) = serde_urlencoded::from_str::<Vec<(String, String)>>(query)
            && pairs.iter().any(|(name, _)| name == "limit")
        {
            let detail = "limit is for a page: a page is asked for with `Accept: application/json`";
            return Err(Problem::bad_request(detail).about("limit", "", "nothing on a stream"));
        }
        let params = Params::parse(query, &known)?;
        Ok(Self { after: params.after()?, input: "after", filter: params.event_filter()? })
    }

    pub(super) async fn follow(self, feed: &Feed, sink: Sink) -> Result<Subscription, Problem> {
        if feed.is_closed() {
            return Err(Problem::unavailable("this node is shutting down", 1));
        }
        let newest = feed.newest();
        if newest == UNKNOWN {
            return Err(Problem::unavailable("the store has not been reached since this node started", 1));
        }
        let after = self.after.unwrap_or(newest);
        // The store is asked only where the feed cannot tell: its end may be just ahead of what was
        // published.
        if after > newest {
            within(self.input, after, feed.bounds().await?)?;
        }
        Ok(feed.follow(sink, after, self.filter)?)
    }
}

fn within(input: &str, after: i64, bounds: LogBounds) -> Result<(), Problem> {
    if after <= bounds.newest {
        return Ok(());
    }
    let allowed = format!("0 to {}, the newest", bounds.newest);
    Err(Problem::bad_input(input, &after.to_string(), &allowed))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_accept_header_chooses() {
        let choose = |accept: &str| {
            answer_wanted(&TestRequest::get().insert_header((ACCEPT, accept)).to_http_request())
        };
        assert_eq!(answer_wanted(&TestRequest::get().to_http_request()).unwrap(), Answer::Stream);
        for stream in
            ["*/*", "text/event-stream", "text/html,*/*;q=0.8", "application/json;q=0.1, text/event-stream"]
        {
            assert_eq!(choose(stream).unwrap(), Answer::Stream, "{stream}");
        }
        for page in ["application/json", "application/json, */*;q=0.5", "application/*"] {
            assert_eq!(choose(page).unwrap(), Answer::Page, "{page}");
        }
        assert_eq!(choose("image/png").unwrap_err().status, 406);
    }
}
