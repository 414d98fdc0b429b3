//! What an operator looks at: sessions, recent events, and how this node performs.
//!
//! Live sessions come from published snapshots, closed ones from the record, so that looking never slows the
//! traffic.

pub(crate) mod connections;
pub(in crate::http) mod events;
pub(in crate::http) mod history;
pub(crate) mod live;
pub mod select;
pub(in crate::http) mod session;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use connections::connections;
pub(super) use events::events;
pub(super) use history::sessions_of;
pub(super) use session::{Known, connection};

use super::auth::Reader;
use super::browser::wants_page;
use super::pages::{self, Frame};
use super::query::Params;
use super::{Doors, json};
use crate::feed::Standing;
use crate::ids::NodeId;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::time::Timestamp;

/// Which cursors a list of sessions takes.
const OF_SESSIONS: &str = "a next_cursor of a page with the same sort and state";

/// A list as every list of lastpong is told.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct List<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
    pub total: u64,
    pub now: Timestamp,
}

/// What this process holds in memory, and what that is for each session.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct Memory {
    /// Absent where the system does not tell.
    pub resident_bytes: Option<u64>,
    pub sessions: u64,
    /// All of it by all of them, so that few sessions seem to take much.
    pub bytes_per_session: Option<u64>,
}

impl Memory {
    fn of(metrics: &Metrics) -> Self {
        let sessions = metrics.sessions_held();
        let resident_bytes = metrics.resident_bytes();
        Self {
            resident_bytes,
            sessions,
            bytes_per_session: resident_bytes.and_then(|b| b.checked_div(sessions)),
        }
    }
}

/// How this node does: metrics as JSON, and where its feed stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Performance {
    now: Timestamp,
    node_id: NodeId,
    feed: Standing,
    memory: Memory,
    /// Samples by the name of their metric.
    #[schema(value_type = Object)]
    metrics: Value,
}

/// How this node does
#[utoipa::path(
    get, path = "/debug/performance", tag = "debug",
    responses((status = 200, content((Performance = "application/json"), (String = "text/html")))),
)]
pub(super) async fn performance(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let (feed, memory, metrics) = (doors.feed.standing(), Memory::of(&doors.metrics), doors.metrics.facts());
    if wants_page(&request) {
        return Ok(pages::performance_page(Frame::of(&caller, &doors), &metrics, feed, memory));
    }
    let facts = Performance { now: Timestamp::now(), node_id: doors.node_id.clone(), feed, memory, metrics };
    Ok(answer(json::text(&facts)))
}

/// Makes an answer of many rows where that may take a while: a worker's loop has sessions to listen to.
pub(super) async fn made<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let made = web::block(make).await;
    made.map_err(|_| Problem::unavailable("this node has no thread to look with", 1))
}

pub(super) fn answer(json: String) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type("application/json").body(json)
}

/// Cursors are for handing back, not for reading: hexadecimal needs no escaping in an address.
pub(super) fn seal(place: &str) -> String {
    use std::fmt::Write;
    place.bytes().fold(String::with_capacity(place.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The place that the parameter `cursor` of a list names. It belongs to one list in one order: it begins with the words of that.
pub(super) fn cursor_of<T>(
    params: &Params,
    begins: &str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(cursor) = params.text("cursor") else { return Ok(None) };
    let place = unseal(cursor).and_then(|text| read(text.strip_prefix(begins)?));
    place.map(Some).ok_or_else(|| Problem::bad_input("cursor", cursor, allowed))
}

fn unseal(cursor: &str) -> Option<String> {
    if !cursor.len().is_multiple_of(2) || !cursor.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&cursor[at..at + 2], 16).ok();
    String::from_utf8((0..cursor.len()).step_by(2).map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_unsealed_as_it_was_sealed() {
        for place in ["", "-rtt~0~1.5", "é"] {
            assert_eq!(unseal(&seal(place)).as_deref(), Some(place));
        }
        for bad in ["a", "zz", "éé", "+1", "ff"] {
            assert_eq!(unseal(bad), None, "{bad:?}");
        }
    }
}
