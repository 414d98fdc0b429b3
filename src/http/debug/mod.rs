//! What an operator looks at: sessions, recent events, and how this node performs.
//!
//! Live sessions come from published snapshots, closed ones from the record, so that looking never slows the
//! traffic.

pub(crate) mod connections;
pub(in crate::http) mod events;
pub mod select;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use connections::{connection, connections};
pub(super) use events::events;

use super::auth::Reader;
use super::query::Params;
use super::{Doors, json};
use crate::feed::Standing;
use crate::ids::NodeId;
use crate::problem::Problem;
use crate::time::Timestamp;

/// A list as every list of lastpong is told.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
    total: u64,
    now: Timestamp,
}

/// How this node does: metrics as JSON, and where its feed stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Performance {
    now: Timestamp,
    node_id: NodeId,
    feed: Standing,
    /// Samples by the name of their metric.
    #[schema(value_type = Object)]
    metrics: Value,
}

/// How this node does
#[utoipa::path(get, path = "/debug/performance", tag = "debug", responses((status = 200, body = Performance)))]
pub(super) async fn performance(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let facts = Performance {
        now: Timestamp::now(),
        node_id: doors.node_id.clone(),
        feed: doors.feed.standing(),
        metrics: doors.metrics.facts(),
    };
    Ok(answer(json::text(&facts)))
}

fn answer(json: String) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type("application/json").body(json)
}

/// Cursors are for handing back, not for reading: hexadecimal needs no escaping in an address.
fn seal(place: &str) -> String {
    use std::fmt::Write;
    place.bytes().fold(String::with_capacity(place.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
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
