//! `GET /debug/audit`: what operators did, who, when and from where.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::words::{NONE, clock, count};
use super::{Frame, ways};
use crate::http::auth::Reader;
use crate::http::browser::{self, wants_page};
use crate::http::debug::{List, answer, made};
use crate::http::openapi::params::{Cursor, PageLimit};
use crate::http::{Doors, audit, json};
use crate::problem::Problem;
use crate::store::audit::{Action, Entry};

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    total: String,
    entries: Vec<Row>,
    next: Option<String>,
    first: Option<String>,
}

struct Row {
    id: String,
    at: String,
    actor: String,
    action: (&'static str, &'static str),
    target: String,
    /// Where the target is a session, which has a page.
    is_session: bool,
    detail: String,
    from: String,
    node: String,
}

/// What operators did, the newest first: as `/v1/audit`, and for browsers as a page
#[utoipa::path(
    get, path = "/debug/audit", tag = "pages",
    params(PageLimit, Cursor),
    responses((status = 200, content((List<Entry> = "application/json"), (String = "text/html")))),
)]
pub(in crate::http) async fn audit(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let list = audit::page(request.query_string(), &doors).await?;
    if !wants_page(&request) {
        return Ok(answer(json::text(&list)));
    }
    let (next, first) = ways("/debug/audit", request.query_string(), list.next_cursor.as_deref());
    let frame = Frame::of(&caller, &doors);
    let page = made(move || {
        let entries = list.items.iter().map(row).collect();
        browser::written(&Audit { frame, total: count(list.total), entries, next, first })
    });
    Ok(browser::html(StatusCode::OK, page.await?))
}

fn row(entry: &Entry) -> Row {
    let class = match entry.action {
        Action::Kick | Action::Ban | Action::Revoke | Action::UserRemove => "bad",
        Action::Drain | Action::LogFilter | Action::UserPassword => "warn",
        Action::Lift | Action::Mint | Action::Undrain | Action::UserAdd => "good",
    };
    Row {
        id: entry.id.to_string(),
        at: clock(entry.at),
        actor: entry.actor.clone(),
        action: (entry.action.as_str(), class),
        target: entry.target.clone(),
        is_session: entry.action == Action::Kick,
        detail: entry.detail.clone().unwrap_or_default(),
        from: entry.remote_addr.map_or_else(|| NONE.to_owned(), |addr| addr.to_string()),
        node: entry.node.to_string(),
    }
}
