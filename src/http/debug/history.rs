//! Closed sessions, as the record has them: of all devices for `/debug/connections?state=closed`, of one for
//! `GET /v1/devices/{id}/sessions`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::live::checked;
use super::{List, OF_SESSIONS, answer, cursor_of, seal};
use crate::http::auth::Reader;
use crate::http::devices::device_id;
use crate::http::openapi::params::{Cursor, EndReason, PageLimit};
use crate::http::query::Params;
use crate::http::record::Record;
use crate::http::{Doors, json};
use crate::ids::{DeviceId, DeviceType, NodeId};
use crate::problem::Problem;
use crate::store::{HistoryFilter, Match};
use crate::time::Timestamp;

const BEGINS: &str = "closed~";

/// A page of closed sessions, the end that came last on the record first.
pub(super) async fn closed(params: &Params, doors: &Doors) -> Result<List<Record>, Problem> {
    let filter = HistoryFilter {
        device_id: params.device_id()?,
        device_type: checked::<DeviceType>(params, "device_type")?,
        node_id: checked::<NodeId>(params, "node")?,
        reason: params.reason()?,
        before: None,
    };
    page(params, doors, filter, 0).await
}

/// A page that leaves room for so many others.
async fn page(
    params: &Params,
    doors: &Doors,
    mut filter: HistoryFilter,
    others: usize,
) -> Result<List<Record>, Problem> {
    let before = cursor_of(params, BEGINS, OF_SESSIONS, |text| text.parse().ok())?;
    let limit = params.limit()?.saturating_sub(others);
    let total = doors.timed("history_total", doors.store.history_total(&filter)).await?;
    filter.before = before;
    // One more than is shown tells whether there is a next page.
    let mut records = doors.timed("history", doors.store.history(&filter, limit + 1)).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    // Where the others took all the room, the next page begins at the beginning.
    let last = if limit == 0 { Some(i64::MAX) } else { records.last().and_then(|record| record.end_seq) };
    let next = last.filter(|_| more).map(|seq| seal(&format!("{BEGINS}{seq}")));
    Ok(List {
        items: records.into_iter().map(Record::from).collect(),
        next_cursor: next,
        total,
        now: Timestamp::now(),
    })
}

/// A device's sessions: the one that it holds, then those that ended, the last first
#[utoipa::path(
    get, path = "/v1/devices/{device_id}/sessions", tag = "devices",
    params(("device_id" = DeviceId, Path), PageLimit, Cursor, EndReason),
    responses((status = 200, body = List<Record>)),
)]
pub(in crate::http) async fn sessions_of(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let params = Params::parse(request.query_string(), &["limit", "cursor", "reason"])?;
    let device = device_id(request.match_info().query("device_id"))?;
    let (reason, goes_on) = (params.reason()?, params.text("cursor").is_some());
    // One that is held has no reason.
    let held = match reason {
        None => doors.timed("presence", doors.store.active_of(std::slice::from_ref(&device))).await?,
        Some(_) => Vec::new(),
    };
    let shown = if goes_on { 0 } else { held.len().min(params.limit()?) };
    let filter =
        HistoryFilter { device_id: Some(Match::Is(device.to_string())), reason, ..HistoryFilter::default() };
    let mut list = page(&params, &doors, filter, shown).await?;
    list.total += held.len() as u64;
    list.items.splice(0..0, held.into_iter().rev().take(shown).map(Record::from));
    Ok(answer(json::text(&list)))
}
