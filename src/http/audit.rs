//! `GET /v1/audit`: what operators did, the newest first.

use actix_web::{HttpRequest, HttpResponse, web};

use super::auth::Reader;
use super::debug::{List, answer, cursor_of, seal};
use super::openapi::params::{Cursor, PageLimit};
use super::query::Params;
use super::{Doors, json};
use crate::problem::Problem;
use crate::store::audit::Entry;
use crate::time::Timestamp;

/// What operators did, the newest first
#[utoipa::path(
    get, path = "/v1/audit", tag = "node",
    params(PageLimit, Cursor),
    responses((status = 200, body = List<Entry>)),
)]
pub(super) async fn audit(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Ok(answer(json::text(&page(request.query_string(), &doors).await?)))
}

/// A page of what operators did.
pub(super) async fn page(query: &str, doors: &Doors) -> Result<List<Entry>, Problem> {
    const BEGINS: &str = "audit~";
    let params = Params::parse(query, &["limit", "cursor"])?;
    let limit = params.limit()?;
    let before = cursor_of(&params, BEGINS, "a next_cursor of /v1/audit", |text| text.parse().ok())?;
    let total = doors.timed("audit_total", doors.store.audit_total()).await?;
    let mut items = doors.timed("audit", doors.store.audit(before, limit + 1)).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|entry| seal(&format!("{BEGINS}{}", entry.id)));
    Ok(List { items, next_cursor, total, now: Timestamp::now() })
}
