//! What an operator looks at: sessions, recent events, and how this node performs.
//!
//! Live sessions come from published snapshots, closed ones from the record, so that looking never slows the
//! traffic.

pub(crate) mod connections;
mod events;
pub mod select;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;

pub(super) use connections::{connection, connections};
pub(super) use events::events;

use super::auth::Reader;
use super::query::Params;
use super::{Doors, json};
use crate::problem::Problem;
use crate::time::Timestamp;

/// A list as every list of lastpong is told.
#[derive(Serialize)]
pub(super) struct List<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
    pub total: u64,
    pub now: Timestamp,
}

/// `GET /debug/performance`.
pub(super) async fn performance(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let feed = doors.feed.standing();
    let facts = json!({
        "now": Timestamp::now(),
        "node_id": doors.node_id,
        "feed": feed,
        "metrics": doors.metrics.facts(),
    });
    Ok(answer(json::text(&facts)))
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

/// The place that the parameter `cursor` of a list names, whose cursors begin so.
pub(super) fn cursor_of<T: std::str::FromStr>(
    params: &Params,
    begins: &str,
    allowed: &str,
) -> Result<Option<T>, Problem> {
    let Some(cursor) = params.text("cursor") else { return Ok(None) };
    let place = unseal(cursor).and_then(|text| text.strip_prefix(begins)?.parse().ok());
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
