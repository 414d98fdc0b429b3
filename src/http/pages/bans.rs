//! `GET /debug/bans`: who is banned, with what it takes to ban and to lift.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::words::{NONE, clock, count, lasting};
use super::{Frame, ways};
use crate::http::auth::Reader;
use crate::http::browser::{self, wants_page};
use crate::http::debug::{List, answer, made};
use crate::http::openapi::params::{Cursor, PageLimit};
use crate::http::{Doors, bans, json};
use crate::problem::Problem;
use crate::store::bans::{Ban, Target};
use crate::time::Timestamp;

#[derive(Template)]
#[template(path = "bans.html")]
struct Bans {
    frame: Frame,
    total: String,
    bans: Vec<Row>,
    next: Option<String>,
    first: Option<String>,
}

struct Row {
    id: String,
    target: String,
    is_device: bool,
    reason: String,
    by: String,
    at: String,
    until: String,
    left: String,
}

/// The bans that hold, the newest first: as `/v1/bans`, and for browsers as a page
#[utoipa::path(
    get, path = "/debug/bans", tag = "pages",
    params(PageLimit, Cursor),
    responses((status = 200, content((List<Ban> = "application/json"), (String = "text/html")))),
)]
pub(in crate::http) async fn bans(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let list = bans::page(request.query_string(), &doors).await?;
    if !wants_page(&request) {
        return Ok(answer(json::text(&list)));
    }
    let (next, first) = ways("/debug/bans", request.query_string(), list.next_cursor.as_deref());
    let frame = Frame::of(&caller, &doors);
    let page = made(move || {
        let bans = list.items.iter().map(|ban| row(ban, list.now)).collect();
        browser::written(&Bans { frame, total: count(list.total), bans, next, first })
    });
    Ok(browser::html(StatusCode::OK, page.await?))
}

fn row(ban: &Ban, now: Timestamp) -> Row {
    let left = |until: Timestamp| lasting(until.0.saturating_sub(now.0) as f64 / 1000.0);
    Row {
        id: ban.id.to_string(),
        target: ban.target.to_string(),
        is_device: matches!(ban.target, Target::Device(_)),
        reason: ban.reason.clone().unwrap_or_else(|| NONE.to_owned()),
        by: ban.by.clone(),
        at: clock(ban.at),
        until: ban.until.map_or_else(|| "it is lifted".to_owned(), clock),
        left: ban.until.map_or_else(|| NONE.to_owned(), left),
    }
}
